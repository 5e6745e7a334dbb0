"""HTTP/1.1 listeners for ASGI applications."""

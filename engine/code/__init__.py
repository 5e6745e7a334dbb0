"""Code packages: unpacked, stored once, packed again."""

"""Page of a function's asynchronous settings: retries, maximum age, status log, retry rules and destinations."""

"""Authentication of clients: access keys, tokens, signatures, and a limit on failures."""

"""Code that several plugins use."""

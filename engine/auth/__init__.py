"""Authentication: keys, tokens, signatures and throttling of failed logins."""

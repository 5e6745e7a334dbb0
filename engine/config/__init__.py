"""Settings and plugins: read, checked whole, and looked up by kind."""

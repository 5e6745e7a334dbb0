"""The application: construction, lifecycle, process and embedding."""

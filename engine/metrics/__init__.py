"""Metrics: histograms, usage by function, and the Prometheus format."""

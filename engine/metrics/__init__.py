"""Metrics: histograms, counts of attempts by function and project, and the Prometheus format."""

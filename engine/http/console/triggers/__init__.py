"""Console pages of triggers: lists, forms for each kind, and pages of gateways' APIs."""

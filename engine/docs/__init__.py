"""User documentation. ``python -m engine.docs`` writes the generated pages."""

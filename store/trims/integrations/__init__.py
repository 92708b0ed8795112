"""Framework objects over shared weights, one module a framework, each importable alone."""

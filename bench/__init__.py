"""Demonstration and measurements: not installed, run from the repository by scripts/{demo,bench,zoo}."""

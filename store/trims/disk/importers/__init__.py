"""Readers of other people's files: each turns one format into tensors, a graph and side files."""

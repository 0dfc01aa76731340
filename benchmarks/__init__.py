"""Measurements of loading, each in a process of its own."""

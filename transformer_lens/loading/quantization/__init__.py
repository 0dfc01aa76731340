"""Packed weights: opaque values that are carried whole, gathered by rows, and turned into numbers on demand."""

"""Drawings and tables of hook points, made from the records of ``transformer_lens.anatomy``."""

"""Fuzz targets of everything that reads a stranger's bytes: ``make fuzz``."""

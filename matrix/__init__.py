"""The version matrix: one environment a cell, every test in each, one table of what came of it."""

"""On which device each parameter lies."""

"""Which optional libraries are there."""

from importlib.util import find_spec


def is_library_available(name: str) -> bool:
    """Says whether a top-level package can be imported, without importing it."""
    return find_spec(name) is not None

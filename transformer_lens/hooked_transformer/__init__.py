"""The parts of ``HookedTransformer``, one concern a file."""

"""The parts of `ActivationCache`, one concern a file."""

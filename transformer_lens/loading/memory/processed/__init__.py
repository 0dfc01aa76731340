"""Processed weights as files: made once, mapped by every later load. What is checked when: ``docs/adr/0010``."""

from transformer_lens.loading.memory.processed.entries import Entry, clear, entries, verify
from transformer_lens.loading.memory.processed.entry_file import BrokenEntry
from transformer_lens.loading.memory.processed.folder import cache_folder
from transformer_lens.loading.memory.processed.lookup import TAKEN, Lookup, look_up

__all__ = ["TAKEN", "BrokenEntry", "Entry", "Lookup", "cache_folder", "clear", "entries", "look_up", "verify"]

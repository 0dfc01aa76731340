"""Upstream 3's path of the lists of model names: the lists themselves, which callers may append to."""

from transformer_lens.loading.sources.model_names import MODEL_ALIASES, OFFICIAL_MODEL_NAMES
from transformer_lens.loading.sources.names import DEFAULT_MODEL_ALIASES

__all__ = ["DEFAULT_MODEL_ALIASES", "MODEL_ALIASES", "OFFICIAL_MODEL_NAMES"]

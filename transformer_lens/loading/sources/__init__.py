"""Which checkpoint is meant, and where its files are."""

from transformer_lens.loading.sources.generation_config import read_stop_tokens, stop_tokens_of
from transformer_lens.loading.sources.hub_source import HubSource
from transformer_lens.loading.sources.resolve import resolve, resolve_tokenizer
from transformer_lens.loading.sources.source import FolderSource, GGUFSource, Source
from transformer_lens.loading.sources.tokenizers import load_tokenizer
from transformer_lens.loading.sources.training_checkpoints import (
    TrainingCheckpoint,
    find_training_checkpoint,
    training_run,
)

__all__ = [
    "FolderSource",
    "GGUFSource",
    "HubSource",
    "Source",
    "TrainingCheckpoint",
    "find_training_checkpoint",
    "load_tokenizer",
    "read_stop_tokens",
    "resolve",
    "resolve_tokenizer",
    "stop_tokens_of",
    "training_run",
]

"""Files, live models and state dicts as promises of tensors."""

from transformer_lens.loading.checkpoint.checkpoint import Checkpoint, open_checkpoint, read_config_json
from transformer_lens.loading.checkpoint.gguf import open_gguf
from transformer_lens.loading.checkpoint.live_model import from_live_model

__all__ = ["Checkpoint", "from_live_model", "open_checkpoint", "open_gguf", "read_config_json"]

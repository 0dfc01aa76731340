"""The tokens that end a text, as a checkpoint's generation config lists them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformer_lens.loading.errors import CorruptCheckpointError
from transformer_lens.loading.sources.json_files import read_json
from transformer_lens.loading.sources.source import GGUFSource, Source

_FILE = "generation_config.json"
# What a GGUF header calls them: the end of a text, of a turn and of a message.
_GGUF_FIELDS = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")
# Checkpoints list a handful.
_MOST = 4096


def stop_tokens_of(source: Source, config: Mapping[str, Any]) -> tuple[int, ...]:
    """Returns the tokens that end a text: of the generation config, or of the config where there is no such file.

    Args:
        source: Where the files are.
        config: The checkpoint's config, parsed.

    Raises:
        CorruptCheckpointError: The file is broken, or its ``eos_token_id`` is neither a token nor a list of tokens.
    """
    if isinstance(source, GGUFSource):
        from transformer_lens.loading.checkpoint.gguf_header import read_gguf_header

        fields = read_gguf_header(source.path).fields
        found = [read_stop_tokens(fields.get(name), f"{name} of {source.label}") for name in _GGUF_FIELDS]
        return tuple(dict.fromkeys(token for tokens in found for token in tokens))
    path = source.find(_FILE)
    if path is None:
        return read_stop_tokens(config.get("eos_token_id"), f"eos_token_id in config.json of {source.label}")
    return read_stop_tokens(read_json(path).get("eos_token_id"), f"eos_token_id in {_FILE} of {source.label}")


def read_stop_tokens(said: Any, where: str) -> tuple[int, ...]:
    """Reads an ``eos_token_id``: a token, a list of tokens, or None for none; -1 is a habit of some files for none.

    Raises:
        CorruptCheckpointError: It is something else.
    """
    listed = said if isinstance(said, (list, tuple)) else [] if said is None else [said]
    if len(listed) > _MOST or any(isinstance(token, bool) or not isinstance(token, int) for token in listed):
        raise CorruptCheckpointError(
            f"{where} is {str(said)[:80]}, and neither a token nor a list of tokens.\n"
            "  It says where generate stops. Correct it there, or remove it and pass generate(eos_token_id=...)."
        )
    return tuple(dict.fromkeys(token for token in listed if token >= 0))

"""Arguments of a call, for type checkers: their names, their types, and the values that a word can have."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from typing_extensions import TypedDict

from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache
from transformer_lens.hook_points import DeviceType, NamesFilter
from transformer_lens.utilities.slice import Slice, SliceInput

if TYPE_CHECKING:
    from typing import Literal

    LoadMode = Literal["auto", "assign", "copy"]
    IO = Literal["auto", "map", "read"]
    PaddingSide = Literal["left", "right"]
    ReturnType = Literal["logits", "loss", "both"] | None
else:
    # A wrong word reaches the check that says which there are: nothing refuses it before.
    LoadMode = IO = PaddingSide = str
    ReturnType = str | None

Input = str | list[str] | Tensor
"""Text, texts, tokens, or with `start_at_layer` the residual stream."""
_NamedHooks = Sequence[tuple[str | Callable[[str], bool], Callable[..., Any]]]


class ForwardOptions(TypedDict, total=False):
    """Keyword arguments of ``forward`` that do not change what kind of thing it returns."""

    prepend_bos: bool | None
    padding_side: PaddingSide | None
    start_at_layer: int | None
    tokens: Tensor | None
    shortformer_pos_embed: Tensor | None
    attention_mask: Tensor | None
    past_kv_cache: TransformerLensKeyValueCache | None


class HookOptions(ForwardOptions, total=False):
    """Keyword arguments of ``run_with_hooks``."""

    fwd_hooks: _NamedHooks
    bwd_hooks: _NamedHooks
    reset_hooks_end: bool
    clear_contexts: bool


class CacheOptions(ForwardOptions, total=False):
    """Keyword arguments of ``run_with_cache``."""

    names_filter: NamesFilter
    device: DeviceType
    remove_batch_dim: bool
    incl_bwd: bool
    reset_hooks_end: bool
    clear_contexts: bool
    pos_slice: Slice | SliceInput | None


class OtherArguments(TypedDict, total=False):
    """What `from_pretrained` takes in the name that transformers has for it."""

    torch_dtype: Any
    low_cpu_mem_usage: bool


class LoadOptions(OtherArguments, total=False):
    """Keyword arguments that `from_pretrained_no_processing` hands on; tests hold them to `from_pretrained`."""

    checkpoint_index: int | None
    checkpoint_value: int | None
    checkpoint_label: int | str | None
    hf_model: Any
    device: str | torch.device | None
    n_devices: int
    tokenizer: Any
    move_to_device: bool
    first_n_layers: int | None
    n_ctx: int | None
    load_mode: LoadMode
    io: IO
    revision: str | None
    subfolder: str | None
    token: str | bool | None
    cache_dir: str | Path | None
    local_files_only: bool
    trust_remote_code: bool
    adapter: str | Path | None
    check_memory: bool
    progress: bool | None
    quantization_config: Any
    load_in_4bit: bool | None
    load_in_8bit: bool | None
    dequantize: bool
    cache_processed: bool | None


class PlanOptions(LoadOptions, total=False):
    """Keyword arguments of `plan_load`."""

    fold_ln: bool
    center_writing_weights: bool
    center_unembed: bool
    refactor_factored_attn_matrices: bool
    fold_value_biases: bool
    default_prepend_bos: bool | None
    default_padding_side: PaddingSide | None
    dtype: str | torch.dtype

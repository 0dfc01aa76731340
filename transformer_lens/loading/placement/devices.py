"""Devices of parameters: blocks are shared out, ends lie with their neighbours."""

from __future__ import annotations

import torch

from transformer_lens import anatomy
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.config.rope_scaling import InvalidConfigError
from transformer_lens.loading.processing.cast import cast
from transformer_lens.loading.weights import Weights
from transformer_lens.utilities.devices import get_device_for_block_index


def device_of(name: str, cfg: HookedTransformerConfig) -> torch.device:
    """Returns the device of a parameter; the unembedding and the last norm lie with the last block."""
    if cfg.n_devices <= 1:
        return torch.device(cfg.device or "cpu")
    head, _, rest = name.partition(".")
    if head == "blocks":
        return get_device_for_block_index(int(rest.partition(".")[0]), cfg)
    return get_device_for_block_index(cfg.n_layers - 1 if head in ("ln_final", "unembed") else 0, cfg)


def require_devices(n_devices: int) -> None:
    """Raises before anything is read for more devices than there are.

    Raises:
        InvalidConfigError: There are fewer.
    """
    if n_devices > 1 and torch.cuda.device_count() < n_devices:
        raise InvalidConfigError(
            f"n_devices is {n_devices}, but there are {torch.cuda.device_count()} CUDA devices here.\n"
            "  plan_load plans for a machine that has them."
        )


def place(weights: Weights, cfg: HookedTransformerConfig) -> Weights:
    """Promises every tensor in the config's dtype on its device; a router's correction in float32 at least."""
    alike: dict[tuple[torch.device, torch.dtype], list[str]] = {}
    precise = torch.promote_types(cfg.dtype, torch.float32)
    for name in weights:
        dtype = precise if name.endswith(anatomy.CORRECTION) else cfg.dtype
        alike.setdefault((device_of(name, cfg), dtype), []).append(name)
    out = weights
    for (device, dtype), names in alike.items():
        out = out.updated(cast(Weights({name: weights[name] for name in names}), dtype, device))
    return out

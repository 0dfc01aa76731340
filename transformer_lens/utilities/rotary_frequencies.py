"""How fast each pair of dimensions of a head turns with the position, in every way of stretching it."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def rotary_frequencies(
    dim: int, theta: float, scaling: Mapping[str, Any] | None, length: int
) -> tuple[Float[Tensor, "half"], float]:
    """Returns ``f_j`` of a sequence of `length` tokens, and the factor of its cosines and sines.

    Sources: linear (Chen et al., 2023), dynamic NTK (the Transformers implementation), llama3 (Dubey et al., 2024),
    yarn (Peng et al., 2023), longrope (Ding et al., 2024).

    Args:
        dim: Dimensions of a head that rotate.
        theta: Base of the frequencies.
        scaling: ``cfg.rope_scaling``: how they are stretched; None for not at all.
        length: Tokens of the sequence.
    """
    exponents = torch.arange(0, dim, 2, dtype=torch.float32, device="cpu") / dim
    plain = 1.0 / theta**exponents
    if scaling is None:
        return plain, 1.0
    kind = scaling["rope_type"]
    if kind == "linear":
        return plain / scaling["factor"], 1.0
    if kind == "dynamic":
        trained, factor = scaling["max_position_embeddings"], scaling["factor"]
        stretched = factor * max(length, trained) / trained - (factor - 1)
        return 1.0 / (theta * stretched ** (dim / (dim - 2))) ** exponents, 1.0
    if kind == "llama3":
        trained = scaling["original_max_position_embeddings"]
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        turns = trained * plain / (2 * math.pi)
        keep = ((turns - low) / (high - low)).clamp(0, 1)
        return (1 - keep) * plain / scaling["factor"] + keep * plain, 1.0
    if kind == "yarn":
        trained = scaling["original_max_position_embeddings"]

        def dimension_of(turns: float | int) -> float:
            return dim * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(theta))

        first, last = dimension_of(scaling["beta_fast"]), dimension_of(scaling["beta_slow"])
        if scaling["truncate"]:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, dim - 1)
        if first == last:
            last += 0.001
        ramp = ((torch.arange(dim // 2, dtype=torch.float32, device="cpu") - first) / (last - first)).clamp(0, 1)
        return ramp * plain / scaling["factor"] + (1 - ramp) * plain, float(scaling["attention_factor"])
    if kind == "longrope":
        is_long = length > scaling["original_max_position_embeddings"]
        stretch = torch.tensor(
            scaling["long_factor"] if is_long else scaling["short_factor"], dtype=torch.float32, device="cpu"
        )
        return plain / stretch, float(scaling["attention_factor"])
    raise ValueError(f"rope_type = {kind!r} is not one of linear, dynamic, llama3, yarn, longrope.")

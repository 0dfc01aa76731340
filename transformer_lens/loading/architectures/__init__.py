"""The architectures that can be loaded: data, one file a family."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from transformer_lens.loading.architectures.bloom import BLOOM
from transformer_lens.loading.architectures.cohere import COHERE
from transformer_lens.loading.architectures.cohere2 import COHERE2
from transformer_lens.loading.architectures.gemma import GEMMA
from transformer_lens.loading.architectures.gemma2 import GEMMA2
from transformer_lens.loading.architectures.gemma3 import GEMMA3, GEMMA3_MULTIMODAL
from transformer_lens.loading.architectures.gpt2 import GPT2
from transformer_lens.loading.architectures.gpt_neo import GPT_NEO
from transformer_lens.loading.architectures.gpt_neox import GPT_NEOX
from transformer_lens.loading.architectures.gpt_oss import GPT_OSS
from transformer_lens.loading.architectures.gptj import GPTJ
from transformer_lens.loading.architectures.granite import GRANITE
from transformer_lens.loading.architectures.llama import LLAMA
from transformer_lens.loading.architectures.mistral import MISTRAL
from transformer_lens.loading.architectures.mixtral import MIXTRAL
from transformer_lens.loading.architectures.nanogpt import NANOGPT
from transformer_lens.loading.architectures.olmo import OLMO
from transformer_lens.loading.architectures.olmo2 import OLMO2
from transformer_lens.loading.architectures.olmo3 import OLMO3
from transformer_lens.loading.architectures.olmoe import OLMOE
from transformer_lens.loading.architectures.opt import OPT
from transformer_lens.loading.architectures.own_names import own_names
from transformer_lens.loading.architectures.phi import PHI
from transformer_lens.loading.architectures.phi3 import PHI3
from transformer_lens.loading.architectures.qwen2 import QWEN2
from transformer_lens.loading.architectures.qwen2_moe import QWEN2_MOE
from transformer_lens.loading.architectures.qwen3 import QWEN3
from transformer_lens.loading.architectures.qwen3_moe import QWEN3_MOE
from transformer_lens.loading.architectures.saved_model import MODEL_TYPE, saved_model
from transformer_lens.loading.architectures.smollm3 import SMOLLM3
from transformer_lens.loading.architectures.stablelm import STABLELM
from transformer_lens.loading.architectures.starcoder2 import STARCODER2
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.errors import CorruptCheckpointError, UnsupportedArchitectureError
from transformer_lens.loading.sources.remote_code import code_named

__all__ = ["NANOGPT", "SUPPORTED", "find", "own_names"]

# What config.json may name.
SUPPORTED: Mapping[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        BLOOM,
        COHERE,
        COHERE2,
        GEMMA,
        GEMMA2,
        GEMMA3,
        GEMMA3_MULTIMODAL,
        GPT2,
        GPTJ,
        GPT_NEO,
        GPT_NEOX,
        GPT_OSS,
        GRANITE,
        LLAMA,
        MISTRAL,
        MIXTRAL,
        OLMO,
        OLMO2,
        OLMO3,
        OLMOE,
        OPT,
        PHI,
        PHI3,
        QWEN2,
        QWEN2_MOE,
        QWEN3,
        QWEN3_MOE,
        SMOLLM3,
        STABLELM,
        STARCODER2,
    )  # fmt: skip
}
_BY_MODEL_TYPE = {architecture.model_type: architecture for architecture in SUPPORTED.values()}


def find(config: Mapping[str, Any], label: str) -> Architecture:
    """Returns the architecture that a config names: by its class, else by its ``model_type``.

    That of a model saved by ``save_pretrained`` is made of the config that it was saved with.

    Raises:
        UnsupportedArchitectureError: There is no table for it.
        CorruptCheckpointError: The config names none, or two that contradict each other.
    """
    names = config.get("architectures") or []
    model_type = config.get("model_type")
    if model_type == MODEL_TYPE:
        return saved_model(config, label)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CorruptCheckpointError(f"config.json of {label}: architectures = {names!r} is not a list of names.")
    if not names and not isinstance(model_type, str):
        raise CorruptCheckpointError(
            f"config.json of {label} names neither `architectures` nor `model_type`: what the tensors mean is not said."
        )
    family = _BY_MODEL_TYPE.get(model_type) if isinstance(model_type, str) else None
    for name in names:
        if name in SUPPORTED:
            if family not in (None, SUPPORTED[name]):
                raise CorruptCheckpointError(
                    f"config.json of {label} names {name} and model_type {model_type!r}, which is another architecture."
                )
            return SUPPORTED[name]
    # The class without a head (GPT2Model) has the same tensors; a class with another head has not.
    if family is not None and all(name == family.headless for name in names):
        return family
    asked = names[0] if names else f"model_type {model_type!r}"
    near = difflib.get_close_matches(str(asked), list(SUPPORTED), n=1, cutoff=0.0)
    code = code_named(config)
    raise UnsupportedArchitectureError(
        f"{label} is {asked} (model_type {model_type!r}), which has no table here.\n"
        + (
            f"  it brings code of its own, {code} (auto_map), which is never run: weights need a table.\n"
            if code
            else ""
        )
        + f"  there are: {', '.join(sorted(SUPPORTED))}; the nearest name is {near[0]}\n"
        "  CONTRIBUTING.md says in a numbered list how to add one."
    )

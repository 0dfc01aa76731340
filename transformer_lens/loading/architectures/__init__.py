"""The architectures that can be loaded: data, one file a family."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from transformer_lens.loading.architectures.bloom import BLOOM
from transformer_lens.loading.architectures.cohere import COHERE
from transformer_lens.loading.architectures.cohere2 import COHERE2
from transformer_lens.loading.architectures.dots1 import DOTS1
from transformer_lens.loading.architectures.ernie4_5_moe import ERNIE4_5_MOE
from transformer_lens.loading.architectures.flex_olmo import FLEX_OLMO
from transformer_lens.loading.architectures.gemma import GEMMA
from transformer_lens.loading.architectures.gemma2 import GEMMA2
from transformer_lens.loading.architectures.gemma3 import GEMMA3, GEMMA3_MULTIMODAL
from transformer_lens.loading.architectures.glm4_moe import GLM4_MOE
from transformer_lens.loading.architectures.gpt2 import GPT2
from transformer_lens.loading.architectures.gpt_neo import GPT_NEO
from transformer_lens.loading.architectures.gpt_neox import GPT_NEOX
from transformer_lens.loading.architectures.gpt_oss import GPT_OSS
from transformer_lens.loading.architectures.gptj import GPTJ
from transformer_lens.loading.architectures.granite import GRANITE
from transformer_lens.loading.architectures.granite_swa import GRANITE_SWA
from transformer_lens.loading.architectures.granitemoe import GRANITE_MOE
from transformer_lens.loading.architectures.granitemoeshared import GRANITE_MOE_SHARED
from transformer_lens.loading.architectures.hunyuan_v1_moe import HUNYUAN_V1_MOE
from transformer_lens.loading.architectures.hy_v3 import HY_V3
from transformer_lens.loading.architectures.llama import LLAMA
from transformer_lens.loading.architectures.mellum import MELLUM
from transformer_lens.loading.architectures.minimax_m2 import MINIMAX_M2
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
from transformer_lens.loading.architectures.phimoe import PHIMOE
from transformer_lens.loading.architectures.qwen2 import QWEN2
from transformer_lens.loading.architectures.qwen2_moe import QWEN2_MOE
from transformer_lens.loading.architectures.qwen3 import QWEN3
from transformer_lens.loading.architectures.qwen3_moe import QWEN3_MOE
from transformer_lens.loading.architectures.refusals import kind_of
from transformer_lens.loading.architectures.saved_model import MODEL_TYPE, saved_model
from transformer_lens.loading.architectures.smollm3 import SMOLLM3
from transformer_lens.loading.architectures.solar_open import SOLAR_OPEN
from transformer_lens.loading.architectures.stablelm import STABLELM
from transformer_lens.loading.architectures.starcoder2 import STARCODER2
from transformer_lens.loading.architectures.upstream_formats import UPSTREAM_FORMATS, upstream_format
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.errors import CorruptCheckpointError, UnsupportedArchitectureError
from transformer_lens.loading.sources.remote_code import code_named

__all__ = ["NANOGPT", "SUPPORTED", "UPSTREAM_FORMATS", "find", "own_names"]

# What config.json may name.
SUPPORTED: Mapping[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        BLOOM,
        COHERE,
        COHERE2,
        DOTS1,
        ERNIE4_5_MOE,
        FLEX_OLMO,
        GEMMA,
        GEMMA2,
        GEMMA3,
        GEMMA3_MULTIMODAL,
        GLM4_MOE,
        GPT2,
        GPTJ,
        GPT_NEO,
        GPT_NEOX,
        GPT_OSS,
        GRANITE,
        GRANITE_MOE,
        GRANITE_MOE_SHARED,
        GRANITE_SWA,
        HUNYUAN_V1_MOE,
        HY_V3,
        LLAMA,
        MELLUM,
        MINIMAX_M2,
        MISTRAL,
        MIXTRAL,
        OLMO,
        OLMO2,
        OLMO3,
        OLMOE,
        OPT,
        PHI,
        PHI3,
        PHIMOE,
        QWEN2,
        QWEN2_MOE,
        QWEN3,
        QWEN3_MOE,
        SMOLLM3,
        SOLAR_OPEN,
        STABLELM,
        STARCODER2,
    )  # fmt: skip
}
_BY_NAME = {
    name: architecture for architecture in SUPPORTED.values() for name in (architecture.name, *architecture.aliases)
}
_BY_MODEL_TYPE = {architecture.model_type: architecture for architecture in SUPPORTED.values()}


def find(config: Mapping[str, Any], label: str) -> Architecture:
    """Returns the architecture that a config names: by its class, else by its ``model_type``.

    That of a model saved by ``save_pretrained`` is made of the config that it was saved with.

    Raises:
        UnsupportedArchitectureError: There is no table for it; the message says what kind it is, where that is known.
        CorruptCheckpointError: The config names none, or two that contradict each other.
    """
    names = config.get("architectures") or []
    model_type = config.get("model_type")
    if model_type == MODEL_TYPE:
        return saved_model(config, label)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CorruptCheckpointError(f"config.json of {label}: architectures = {names!r} is not a list of names.")
    if not names and not isinstance(model_type, str):
        own = upstream_format(config, label)
        if own is not None:
            return own
        raise CorruptCheckpointError(
            f"config.json of {label} names neither `architectures` nor `model_type`: what the tensors mean is not said."
        )
    family = _BY_MODEL_TYPE.get(model_type) if isinstance(model_type, str) else None
    for name in names:
        if name in _BY_NAME:
            if family not in (None, _BY_NAME[name]):
                raise CorruptCheckpointError(
                    f"config.json of {label} names {name} and model_type {model_type!r}, which is another architecture."
                )
            return _BY_NAME[name]
    # The class without a head (GPT2Model) has the same tensors; a class with another head has not.
    if family is not None and all(name == family.headless for name in names):
        return family
    raise UnsupportedArchitectureError(_refusal(config, label, names[0] if names else None, model_type, family))


def _refusal(
    config: Mapping[str, Any], label: str, name: str | None, model_type: object, family: Architecture | None
) -> str:
    """Returns why a config has no table here, and what to do.

    Args:
        config: As parsed.
        label: Names the checkpoint.
        name: The class that it names; None where it names none.
        model_type: What it says, of whatever type.
        family: The table of that ``model_type``, if there is one.
    """
    asked = f"{label} is " + (f"{name} (model_type {model_type!r})" if name else f"of model_type {model_type!r}")
    kind = kind_of(config)
    if kind is not None:
        return (
            f"{asked}: {kind.name}, which cannot be a HookedTransformer.\n"
            f"  why:      {kind.why}\n"
            f"  instead:  {kind.instead}"
        )
    lines = [f"{asked}, which has no table here."]
    code = code_named(config)
    if code:
        lines.append(f"it brings code of its own, {code} (auto_map), which is never run: weights need a table.")
    near = _meant(name, SUPPORTED) if name else _meant(str(model_type), _BY_MODEL_TYPE)
    if near is not None:
        lines.append(f"{near} has one: is {name or model_type} a slip of the pen?")
    elif family is not None:
        lines.append(f"{family.name} has one for that model_type; another class of it has other tensors.")
    lines.append(
        "`transformer-lens models` lists what has one; CONTRIBUTING.md says in a numbered list how to add one."
    )
    return "\n  ".join(lines)


def _meant(name: str, known: Iterable[str]) -> str | None:
    """Returns the known name that differs by one slip: a letter more, less, other, or changed with its neighbour.

    Another number is another model, no slip; capitals and punctuation do not count.
    """
    return next((one for one in known if _differ_by_a_slip(_letters(name), _letters(one))), None)


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _differ_by_a_slip(one: str, other: str) -> bool:
    if re.findall(r"\d+", one) != re.findall(r"\d+", other):
        return False
    start = len(os.path.commonprefix([one, other]))
    one, other = one[start:], other[start:]
    swapped = other[1::-1] + other[2:]
    return one in (other, other[1:], swapped) or one[1:] in (other, other[1:])

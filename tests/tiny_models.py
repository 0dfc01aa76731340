"""Tiny random models of every architecture and variant, made on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.tiny_families import families, mixtures, variants
from tests.tiny_families.variant import Family, Variant

__all__ = ["FAMILIES", "VARIANTS", "Family", "Variant", "family_of", "first_of", "make_model", "save"]

# Groups of families, a module each. Names of families are their ``model_type``.
VARIANTS: dict[str, Variant] = {**variants.VARIANTS, **mixtures.VARIANTS}
FAMILIES: dict[str, Family] = {**families.FAMILIES, **mixtures.FAMILIES}


def family_of(variant: Variant) -> str:
    """Returns the ``model_type`` of a variant's family."""
    return next(name for name, family in FAMILIES.items() if family.config_class == variant.config_class)


def first_of(family: str) -> str:
    """Returns the name of a family's plainest variant: the first."""
    return next(name for name, variant in VARIANTS.items() if family_of(variant) == family)


def parameters_in_order(model: Any) -> list[tuple[str, torch.nn.Parameter]]:
    """Returns the parameters sorted by name; where transformers 5 renamed one, by its newer name."""
    return sorted(model.named_parameters(), key=lambda item: item[0].replace("embed_out.", "lm_head."))


def _built(config: Any) -> Any:
    """Returns the model of a config, with any numbers."""
    import transformers

    def build() -> Any:
        return transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")

    if int(transformers.__version__.split(".")[0]) >= 5:
        return build()
    from transformers.modeling_utils import no_init_weights

    # Some releases before 5 fail where they initialize a norm without a bias.
    with no_init_weights():
        model = build()
    model.tie_weights()
    return model


def make_model(variant: Variant, dtype: torch.dtype = torch.float32, std: float = 0.25) -> Any:
    """Makes the model in eval mode, with every parameter drawn from N(0, std^2); norm weights lie around 1.

    So are the corrections of routers: scores lie between 0 and 1, so they decide which experts are chosen.

    The draw goes by sorted names, so that it is the same under every release of transformers.
    """
    model = _built(variant.config()).eval().to(torch.float32)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in parameters_in_order(model):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
            if parameter.ndim == 1 and name.endswith("weight"):
                parameter.add_(variant.norm_weights)
        for name, buffer in sorted(model.named_buffers()):
            if name.endswith("correction_bias"):
                buffer.copy_(torch.randn(buffer.shape, generator=generator) * std)
    return model.to(dtype)


def save(variant: Variant, folder: Path, dtype: torch.dtype = torch.float32, std: float = 0.25) -> Path:
    """Writes the model that `make_model` makes as a safetensors checkpoint without tokenizer."""
    make_model(variant, dtype, std).save_pretrained(folder, safe_serialization=True)
    return folder

"""What the converter to GGUF calls the tensors of each architecture, and what it does to them. Data.

Source: ``convert_hf_to_gguf.py`` and ``gguf-py`` of the llama.cpp repository.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformer_lens.loading.errors import UnsupportedArchitectureError

# Divisors of rotary frequencies: part of the config, not weights.
FREQUENCIES = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
_LLAMA_NAMES = {
    "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "attn_qkv": "self_attn.qkv_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
_GPT2_NAMES = {
    "token_embd": "transformer.wte", "position_embd": "transformer.wpe", "output_norm": "transformer.ln_f",
    "output": "lm_head", "attn_norm": "ln_1", "ffn_norm": "ln_2", "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj", "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj",
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """How one architecture was converted.

    Attributes:
        kind: ``general.architecture``, which also starts the names of its metadata.
        class_name: What ``architectures`` in config.json says.
        model_type: Of config.json.
        names: Names of modules in GGUF to those in the checkpoint, inside a layer relative to it.
        layers: What a layer's names start with, without its number.
        permutes: Rows of queries and keys are rearranged so that rotated pairs are neighbours.
        transposes: Modules whose matrices are turned around.
    """

    kind: str
    class_name: str
    model_type: str
    names: Mapping[str, str] = field(default_factory=lambda: _LLAMA_NAMES)
    layers: str = "model.layers"
    permutes: bool = False
    transposes: tuple[str, ...] = ()

    def is_transposed(self, name: str) -> bool:
        """Whether the converter has turned a tensor around."""
        return any(name.endswith(f".{module}.weight") for module in self.transposes)


FAMILIES = {
    family.kind: family
    for family in (
        Family("llama", "LlamaForCausalLM", "llama", permutes=True),
        Family("mistral", "MistralForCausalLM", "mistral", permutes=True),
        Family("qwen2", "Qwen2ForCausalLM", "qwen2"),
        Family("phi3", "Phi3ForCausalLM", "phi3", names={**_LLAMA_NAMES, "ffn_up": "mlp.gate_up_proj"}),
        Family(
            "gpt2", "GPT2LMHeadModel", "gpt2", names=_GPT2_NAMES, layers="transformer.h",
            transposes=("attn_qkv", "attn_output", "ffn_up", "ffn_down"),
        ),
    )
}  # fmt: skip


def family_of(fields: Mapping[str, Any], path: Path) -> Family:
    """Returns how a file was converted.

    Raises:
        UnsupportedArchitectureError: It is not known here.
    """
    kind = str(fields.get("general.architecture"))
    if kind not in FAMILIES:
        raise UnsupportedArchitectureError(
            f"{path} holds the architecture {kind!r}; these can be read from GGUF: {', '.join(sorted(FAMILIES))}.\n"
            "  Load the checkpoint that it was converted from instead."
        )
    family = FAMILIES[kind]
    if kind == "llama" and fields.get("llama.attention.sliding_window"):
        # The converter gives Mistral the name of Llama; a window is what tells them apart.
        return Family(kind, "MistralForCausalLM", "mistral", permutes=True)
    return family

"""The shapes of models that the benchmarks load: names and sizes of tensors, and the config that says so."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

BYTES = {"float32": 4, "bfloat16": 2}
NARROWEST, WIDEST = 0.02, 0.2


@dataclass(frozen=True)
class TensorShape:
    """One tensor of a checkpoint, and the distribution of its random numbers."""

    name: str
    shape: tuple[int, ...]
    std: float
    mean: float = 0.0

    @property
    def size(self) -> int:
        """The number of its elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Shape:
    """A model without its numbers.

    Attributes:
        name: How tables, folders and options call it.
        family: ``"gpt2"`` or ``"llama"``.
        dtype: Of the file.
        sizes: Fields of the config that differ from the family's.
        hub_name: The official name whose config this is, for libraries that take nothing else; empty if there is none.
        title: What a table says.
    """

    name: str
    family: str
    dtype: str
    sizes: Mapping[str, Any] = field(default_factory=dict)
    hub_name: str = ""
    title: str = ""

    @property
    def config(self) -> dict[str, Any]:
        """The contents of ``config.json``."""
        common = {"bos_token_id": 0, "eos_token_id": 0, "dtype": self.dtype, "torch_dtype": self.dtype}
        fields = {**FAMILIES[self.family], **common, **self.sizes}
        if self.family == "gpt2":
            # Upstream reads the length by this older name.
            fields["n_ctx"] = fields["n_positions"]
        return fields

    @property
    def layers(self) -> int:
        """The number of its layers."""
        return int(self.config["n_layer" if self.family == "gpt2" else "num_hidden_layers"])

    @property
    def vocabulary(self) -> int:
        """The number of its tokens."""
        return int(self.config["vocab_size"])

    @property
    def parameters(self) -> int:
        """The number of elements in its file."""
        return sum(tensor.size for tensor in self.tensors())

    @property
    def nbytes(self) -> int:
        """Bytes of its file, without headers."""
        return self.parameters * BYTES[self.dtype]

    def tensors(self) -> Iterator[TensorShape]:
        """Yields its tensors in file order."""
        yield from (_gpt2 if self.family == "gpt2" else _llama)(self.config)

    def resized(self, name: str, **sizes: Any) -> Shape:
        """Returns the shape with other sizes, under another name."""
        return replace(self, name=name, sizes={**self.sizes, **sizes}, hub_name=self.hub_name, title="")


FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
        "n_layer": 12,
        "n_embd": 768,
        "n_head": 12,
        "vocab_size": 50257,
        "n_positions": 1024,
    },
    "llama": {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "initializer_range": 0.02,
        "attention_bias": False,
        "mlp_bias": False,
        "rope_theta": 500000.0,
        "rope_scaling": None,
        "tie_word_embeddings": True,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "num_hidden_layers": 16,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
    },
}

_LLAMA_3_2_ROPE = {
    "factor": 32.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}


def _std(fan_in: int) -> float:
    return min(max(0.5 / math.sqrt(fan_in), NARROWEST), WIDEST)


def _gpt2(config: Mapping[str, Any]) -> Iterator[TensorShape]:
    width, vocabulary = int(config["n_embd"]), int(config["vocab_size"])
    matrices = {
        "attn.c_attn": (width, 3 * width),
        "attn.c_proj": (width, width),
        "mlp.c_fc": (width, 4 * width),
        "mlp.c_proj": (4 * width, width),
    }
    yield TensorShape("transformer.wte.weight", (vocabulary, width), 0.1)
    yield TensorShape("transformer.wpe.weight", (int(config["n_positions"]), width), 0.02)
    for layer in range(int(config["n_layer"])):
        block = f"transformer.h.{layer}"
        for norm in ("ln_1", "ln_2"):
            yield TensorShape(f"{block}.{norm}.weight", (width,), 0.1, 1.0)
            yield TensorShape(f"{block}.{norm}.bias", (width,), 0.1)
        for name, (rows, columns) in matrices.items():
            yield TensorShape(f"{block}.{name}.weight", (rows, columns), _std(rows))
            yield TensorShape(f"{block}.{name}.bias", (columns,), 0.1)
    yield TensorShape("transformer.ln_f.weight", (width,), 0.1, 1.0)
    yield TensorShape("transformer.ln_f.bias", (width,), 0.1)


def _llama(config: Mapping[str, Any]) -> Iterator[TensorShape]:
    width, hidden = int(config["hidden_size"]), int(config["intermediate_size"])
    head = int(config["head_dim"])
    queries, keys = head * int(config["num_attention_heads"]), head * int(config["num_key_value_heads"])
    vocabulary = int(config["vocab_size"])
    matrices = {
        "self_attn.q_proj": (queries, width),
        "self_attn.k_proj": (keys, width),
        "self_attn.v_proj": (keys, width),
        "self_attn.o_proj": (width, queries),
        "mlp.gate_proj": (hidden, width),
        "mlp.up_proj": (hidden, width),
        "mlp.down_proj": (width, hidden),
    }
    yield TensorShape("model.embed_tokens.weight", (vocabulary, width), 0.02)
    for layer in range(int(config["num_hidden_layers"])):
        block = f"model.layers.{layer}"
        yield TensorShape(f"{block}.input_layernorm.weight", (width,), 0.1, 1.0)
        yield TensorShape(f"{block}.post_attention_layernorm.weight", (width,), 0.1, 1.0)
        for name, (rows, columns) in matrices.items():
            yield TensorShape(f"{block}.{name}.weight", (rows, columns), _std(columns))
    yield TensorShape("model.norm.weight", (width,), 0.1, 1.0)
    if not config["tie_word_embeddings"]:
        yield TensorShape("lm_head.weight", (vocabulary, width), 0.02)


def _shapes() -> Iterator[Shape]:
    yield Shape("gpt2", "gpt2", "float32", {}, "gpt2", "GPT-2")
    medium = {"n_layer": 24, "n_embd": 1024, "n_head": 16}
    yield Shape("gpt2-medium", "gpt2", "float32", medium, "gpt2-medium", "GPT-2 medium")
    large = {"n_layer": 36, "n_embd": 1280, "n_head": 20}
    yield Shape("gpt2-large", "gpt2", "float32", large, "gpt2-large", "GPT-2 Large")
    xl = {"n_layer": 48, "n_embd": 1600, "n_head": 25}
    yield Shape("gpt2-xl", "gpt2", "float32", xl, "gpt2-xl", "GPT-2 XL")
    small_llama = {"rope_scaling": _LLAMA_3_2_ROPE}
    yield Shape("llama-3.2-1b", "llama", "bfloat16", small_llama, "meta-llama/Llama-3.2-1B", "Llama-3.2-1B")
    three = {
        **small_llama,
        "hidden_size": 3072,
        "num_attention_heads": 24,
        "head_dim": 128,
        "num_hidden_layers": 28,
    }
    yield Shape("llama-3.2-3b", "llama", "bfloat16", three, "meta-llama/Llama-3.2-3B", "Llama-3.2-3B")
    eight = {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "head_dim": 128,
        "num_hidden_layers": 32,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": False,
    }
    yield Shape("llama-8b", "llama", "bfloat16", eight, "meta-llama/Meta-Llama-3-8B", "Llama-3-8B")
    tiny = {"n_layer": 3, "n_embd": 32, "n_head": 4, "vocab_size": 61, "n_positions": 16}
    yield Shape("tiny", "gpt2", "float32", tiny, "gpt2", "A tiny GPT-2")


SHAPES: dict[str, Shape] = {shape.name: shape for shape in _shapes()}


def gpt2_of(layers: int, width: int = 768, vocabulary: int = 50257) -> Shape:
    """Returns a GPT-2 of so many layers, for how cost grows with them."""
    heads = max(1, width // 64)
    sizes = {"n_layer": layers, "n_embd": width, "n_head": heads, "vocab_size": vocabulary}
    if vocabulary < 1000:
        sizes["n_positions"] = 64
    return Shape(f"gpt2-{layers}-layers-{width}", "gpt2", "float32", sizes, "", f"{layers} layers of {width}")

"""GGUF: what the format's own writer writes comes back under the checkpoint's names; what is broken is named.

``as_gguf`` converts a tiny model the way llama.cpp's converter does, from its description; the reader undoes it.
"""

import math
import struct
from pathlib import Path

import gguf
import numpy
import pytest
import torch
from gguf import GGMLQuantizationType as Packing
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny_models import VARIANTS, Variant, make_model
from transformer_lens import HookedTransformer
from transformer_lens.loading.checkpoint import open_gguf
from transformer_lens.loading.checkpoint.gguf import tensors_of_gguf
from transformer_lens.loading.checkpoint.gguf_header import read_gguf_header
from transformer_lens.loading.errors import (
    CorruptCheckpointError,
    LoadingError,
    QuantizedTensorError,
    UnexpectedTensorError,
    UnhandledConfigError,
    UnsupportedArchitectureError,
)
from transformer_lens.loading.sources import GGUFSource, resolve
from transformer_lens.loading.weights import Held

MODULES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.qkv_proj": "attn_qkv", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "transformer.wte": "token_embd", "transformer.wpe": "position_embd", "transformer.ln_f": "output_norm",
    "ln_1": "attn_norm", "ln_2": "ffn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output",
    "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
}  # fmt: skip


def gguf_name(key: str) -> str:
    stem, _, leaf = key.rpartition(".")
    if stem in MODULES:
        return f"{MODULES[stem]}.{leaf}"
    _, _, layer, module = stem.split(".", 3)
    return f"blk.{layer}.{MODULES[module]}.{leaf}"


def permuted(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Brings the halves of each head together by pairs."""
    return rows.reshape(heads, 2, -1, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)


def write_scaling(writer: gguf.GGUFWriter, rope: dict) -> dict[str, list[float]]:
    """Writes how positions are stretched as llama.cpp's converter does; returns the lists that become tensors."""
    kind = rope.get("rope_type", rope.get("type"))
    original = rope.get("original_max_position_embeddings")
    if kind == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(original)
        for name in ("yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow"):
            value = rope.get({"yarn_attn_factor": "attention_factor"}.get(name, name.removeprefix("yarn_")))
            if value is not None:
                writer.add_float32(f"{writer.arch}.rope.scaling.{name}", value)
    if kind == "longrope":
        stretch = rope["max_position_embeddings"] / original
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_scaling_attn_factors((1 + math.log(stretch) / math.log(original)) ** 0.5)
        return {"rope_factors_long": rope["long_factor"], "rope_factors_short": rope["short_factor"]}
    return {}


def as_gguf(model, path: Path, packing: Packing = Packing.F32, **extra) -> Path:
    """Writes a transformers model as GGUF; matrices packed, vectors in float32."""
    config = model.config
    kind = {"mistral": "llama"}.get(config.model_type, config.model_type)
    writer = gguf.GGUFWriter(str(path), kind)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    if kind == "gpt2":
        writer.add_feed_forward_length(config.n_inner or 4 * config.n_embd)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
    else:
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        d_head = model.model.layers[0].self_attn.head_dim
        writer.add_key_length(d_head)
        rope = {
            **vars(config),
            **(getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}),
        }
        writer.add_rope_dimension_count(int(d_head * (rope.get("partial_rotary_factor") or 1.0)))
        writer.add_rope_freq_base(float(rope["rope_theta"]))
        extra |= write_scaling(writer, rope)
        if kind != "qwen2" and getattr(config, "sliding_window", None):
            writer.add_sliding_window(config.sliding_window)
    writer.add_array("tokenizer.ggml.tokens", [f"<{i}>" for i in range(config.vocab_size)])
    for key, tensor in model.state_dict().items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        name = gguf_name(key)
        if kind == "llama" and ".attn_q." in name:
            tensor = permuted(tensor, config.num_attention_heads)
        if kind == "llama" and ".attn_k." in name:
            tensor = permuted(tensor, config.num_key_value_heads)
        if kind == "gpt2" and tensor.ndim == 2 and name.startswith("blk."):
            tensor = tensor.t()
        numbers = tensor.float().contiguous().numpy()
        if numbers.ndim == 1 or packing is Packing.F32:
            writer.add_tensor(name, numbers)
        else:
            writer.add_tensor(name, gguf.quants.quantize(numbers, packing), raw_dtype=packing)
    for name, numbers in extra.items():
        writer.add_tensor(f"{name}.weight", numpy.array(numbers, dtype=numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


WRITTEN = [
    "llama-gqa", "llama-tied", "llama-head-dim", "llama-square", "mistral", "mistral-full", "qwen2", "qwen2-tied",
    "phi3-gqa", "phi3-square", "gpt2", "gpt2-square", "gpt2-inner-inverse-untied",
]  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("io", ["map", "read"])
def test_tensors_come_back_under_their_names(tmp_path, name, io):
    model = make_model(VARIANTS[name])
    checkpoint = open_gguf(GGUFSource(as_gguf(model, tmp_path / "m.gguf"), "m"), io=io)
    theirs = model.state_dict()
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    assert set(checkpoint.weights) == set(theirs) - tied
    for key, promise in checkpoint.weights.items():
        assert promise.shape == tuple(theirs[key].shape) and torch.equal(promise.make(), theirs[key]), key
        rearranged = bool(promise.origin.steps) and "transposed" not in promise.origin.steps
        assert promise.held is (Held.MAPPED if io == "map" and not rearranged else Held.FRESH), key
    assert checkpoint.io.mode == io


@pytest.mark.parametrize("name", WRITTEN)
def test_the_config_is_the_one_that_was_converted(tmp_path, name):
    model = make_model(VARIANTS[name])
    config = open_gguf(GGUFSource(as_gguf(model, tmp_path / "m.gguf"), "m")).config
    theirs = model.config.to_dict()
    theirs = {**theirs, **(theirs.get("rope_parameters") or {})}
    # What the format has no word for: a window nobody uses, and Mistral without one, which is a Llama.
    renamed = {"architectures", "model_type"} if name == "mistral-full" else {"architectures"}
    for field, value in config.items():
        if field in theirs and field not in renamed | {"bos_token_id", "eos_token_id", "rope_scaling", "head_dim"}:
            assert value == pytest.approx(theirs[field]) or (field == "n_inner" and theirs[field] is None), field
    if "head_dim" in config:
        assert config["head_dim"] == model.model.layers[0].self_attn.head_dim


@pytest.mark.parametrize("packing", [Packing.F16, Packing.BF16, Packing.Q8_0, Packing.Q4_0, Packing.Q5_1])
def test_packings(tmp_path, packing):
    variant = VARIANTS["llama-gqa"]
    model = make_model(type(variant)(variant.config_class, {**variant.settings, "hidden_size": 96,
                                                            "intermediate_size": 160}))  # fmt: skip
    checkpoint = open_gguf(GGUFSource(as_gguf(model, tmp_path / "m.gguf", packing), "m"))
    plain = {Packing.F16: torch.float16, Packing.BF16: torch.bfloat16}.get(packing)
    for key, promise in checkpoint.weights.items():
        theirs = model.state_dict()[key]
        if theirs.ndim == 2:
            packed = gguf.quants.quantize(theirs.contiguous().numpy(), packing)
            theirs = torch.from_numpy(gguf.quants.dequantize(packed, packing))
            assert promise.dtype == (plain or torch.float32)
        assert torch.equal(promise.make().float(), theirs), key


@pytest.mark.parametrize("name", ["llama-gqa", "mistral", "qwen2-tied", "phi3-gqa", "gpt2"])
@torch.no_grad()
def test_a_loaded_file_is_the_model(tmp_path, name):
    model = make_model(VARIANTS[name])
    path = as_gguf(model, tmp_path / "m.gguf")
    ours = HookedTransformer.from_pretrained_no_processing(str(path), device="cpu", tokenizer=None)
    tokens = torch.arange(12).view(1, 12)
    assert (ours(tokens).log_softmax(-1) - model(tokens).logits.log_softmax(-1)).abs().max() < 1e-4


@torch.no_grad()
def test_frequencies_of_llama_3_are_read(tmp_path):
    """The converter writes the stretching as divisors, one for each pair."""
    model = make_model(VARIANTS["llama-llama3"])
    theta, d_head = 500000.0, 8
    plain = theta ** (-torch.arange(0, d_head, 2, dtype=torch.float64) / d_head)
    divisors = (plain / model.model.rotary_emb.inv_freq.double()).tolist()
    assert max(divisors) > 2
    path = as_gguf(model, tmp_path / "m.gguf", rope_freqs=divisors)
    ours = HookedTransformer.from_pretrained_no_processing(str(path), device="cpu", tokenizer=None)
    tokens = torch.arange(50).view(1, 50)
    assert (ours(tokens).log_softmax(-1) - model(tokens).logits.log_softmax(-1)).abs().max() < 1e-4


def stretched(name: str, **rope) -> Variant:
    base = VARIANTS[name]
    return Variant(base.config_class, {**base.settings, "rope_parameters": rope}, base.right_since)


_YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16}
STRETCHED = {
    "llama-yarn": stretched("llama-yarn", **_YARN),
    "llama-yarn-attention-factor": stretched("llama-yarn", **_YARN, attention_factor=1.4),
    "qwen2-yarn-betas": Variant(
        "Qwen2Config", stretched("qwen2", **_YARN, beta_fast=8.0, beta_slow=2.0).settings, "4.55"
    ),
    "mistral-yarn": Variant("MistralConfig", stretched("mistral", **_YARN).settings, "5.0"),
    "phi3-longrope": VARIANTS["phi3-longrope"],
    "phi3-mini": VARIANTS["phi3-mini"],
}


@pytest.mark.parametrize("length", [9, 31, 33, 60])
@pytest.mark.parametrize("name", STRETCHED)
@torch.no_grad()
def test_stretched_positions_are_those_of_the_checkpoint(tmp_path, name, length):
    """Below and above the length at which yarn's model was trained, and at which longrope takes its other list."""
    variant = STRETCHED[name]
    if variant.why_no_reference():
        pytest.skip(variant.why_no_reference())
    model = make_model(variant)
    path = as_gguf(model, tmp_path / "m.gguf")
    ours = HookedTransformer.from_pretrained_no_processing(str(path), device="cpu", tokenizer=None)
    assert ours.cfg.rope_scaling["rope_type"] == ("yarn" if "yarn" in name else "longrope")
    tokens = torch.arange(length).view(1, length) * 7 % 113
    assert (ours(tokens).log_softmax(-1) - model(tokens).logits.log_softmax(-1)).abs().max() < 1e-4


def test_a_path_that_ends_in_gguf_is_a_file_of_it(tmp_path):
    path = as_gguf(make_model(VARIANTS["gpt2"]), tmp_path / "m.gguf")
    assert isinstance(resolve(str(path)), GGUFSource)


# -- what is broken ----------------------------------------------------------------------------------------------------

STRING, UINT32, ARRAY, FLOAT32 = 8, 4, 9, 6


def string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def uint(value: int) -> bytes:
    return struct.pack("<II", UINT32, value)


FIELDS = {
    "general.architecture": struct.pack("<I", STRING) + string("llama"),
    "llama.embedding_length": uint(8),
    "llama.attention.head_count": uint(2),
    "llama.block_count": uint(1),
    "llama.context_length": uint(7),
    "llama.feed_forward_length": uint(5),
}
EMBED = ("token_embd.weight", (8, 3), 0, 0)


def built(tensors=(EMBED,), data=bytes(96), version=3, n_tensors=None, n_fields=None, **fields) -> bytes:
    """Writes a file by hand; a field's value is its bytes with their type, None leaves it out."""
    entries = {**FIELDS, **{name.replace("__", "."): value for name, value in fields.items()}}
    entries = {name: value for name, value in entries.items() if value is not None}
    out = b"GGUF" + struct.pack("<I", version)
    out += struct.pack("<QQ", len(tensors) if n_tensors is None else n_tensors,
                       len(entries) if n_fields is None else n_fields)  # fmt: skip
    for name, value in entries.items():
        out += string(name) + value
    for name, shape, kind, offset in tensors:
        out += string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
    return out + bytes(-len(out) % 32) + data


def embed(shape=(8, 3), kind=0, offset=0):
    return (("token_embd.weight", shape, kind, offset),)


CORRUPT, LATER = CorruptCheckpointError, ("blk.0.attn_q.weight", (8, 8), 0, 64)
BROKEN = {
    "empty": (b"", CORRUPT, "does not start with GGUF"),
    "other": (b"PK\x03\x04" + bytes(100), CORRUPT, "does not start with GGUF"),
    "lfs-pointer": (b"version https://git-lfs.github.com/spec/v1\nsize 98362432\n", CORRUPT, "pointer.*98362432 bytes"),
    "only-magic": (b"GGUF", CORRUPT, "ends inside its version"),
    "version-1": (built(version=1), CORRUPT, "version 1; 2 and 3 are known"),
    "big-endian": (built(version=3 << 24), CORRUPT, "not little-endian"),
    "too-many-tensors": (built(n_tensors=1 << 60), CORRUPT, "says that it holds"),
    "too-many-fields": (built(n_fields=1 << 60), CORRUPT, "says that it holds"),
    "more-tensors-than-there-are": (built(n_tensors=900), CORRUPT, "ends inside|stands twice|axes|name is empty"),
    "name-of-exabytes": (
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 62),
        CORRUPT,
        "ends inside a field's name.*hf download",
    ),
    "array-of-exabytes": (
        built(x=struct.pack("<IIQ", ARRAY, UINT32, 1 << 61)), CORRUPT, "ends inside field 'x'",
    ),
    "strings-of-exabytes": (built(x=struct.pack("<IIQ", ARRAY, STRING, 1 << 61)), CORRUPT, "ends inside field 'x'"),
    "array-of-arrays": (built(x=struct.pack("<IIQ", ARRAY, ARRAY, 1)), CORRUPT, "array of the unknown type 9"),
    "unknown-field-type": (built(x=struct.pack("<I", 77)), CORRUPT, "'x' has the unknown type 77"),
    "alignment-of-three": (built(general__alignment=uint(3)), CORRUPT, "no power of two"),
    "alignment-of-zero": (built(general__alignment=uint(0)), CORRUPT, "no power of two"),
    "one-of-parts": (built(split__count=uint(4)), CORRUPT, "one of 4 parts.*--merge"),
    "unknown-architecture": (
        built(general__architecture=struct.pack("<I", STRING) + string("bert")),
        UnsupportedArchitectureError,
        "'bert'; these can be read from GGUF",
    ),
    "no-architecture": (built(general__architecture=None), UnsupportedArchitectureError, "'None'"),
    "no-embedding-length": (
        built(llama__embedding_length=None), CORRUPT, "llama.embedding_length is missing",
    ),
    "zero-heads": (built(llama__attention__head_count=uint(0)), CORRUPT, "head_count is 0"),
    "layers-are-text": (
        built(llama__block_count=struct.pack("<I", STRING) + string("7")), CORRUPT, "block_count is '7'",
    ),
    "heads-by-layer": (
        built(llama__attention__head_count=struct.pack("<IIQ2I", ARRAY, UINT32, 2, 2, 4)),
        UnhandledConfigError,
        "differs from layer to layer",
    ),
    "part-of-a-head-rotated": (
        built(llama__rope__dimension_count=uint(2)), UnhandledConfigError, "2 of a head's 4 dimensions",
    ),
    "unknown-scaling": (
        built(llama__rope__scaling__type=struct.pack("<I", STRING) + string("odd")),
        UnhandledConfigError,
        "'odd', which is not known",
    ),
    "yarn-with-a-factor-of-two-meanings": (
        built(llama__rope__scaling__type=struct.pack("<I", STRING) + string("yarn"),
              llama__rope__scaling__attn_factor=struct.pack("<If", FLOAT32, 1.5)),
        UnhandledConfigError,
        "llama.rope.scaling.attn_factor means",
    ),
    "yarn-with-an-extrapolation-of-its-own": (
        built(llama__rope__scaling__type=struct.pack("<I", STRING) + string("yarn"),
              llama__rope__scaling__yarn_ext_factor=struct.pack("<If", FLOAT32, 0.5)),
        UnhandledConfigError,
        "yarn_ext_factor is not 1",
    ),
    "divisors-for-short-alone": (
        built((("rope_factors_short.weight", (4,), 0, 0), ("token_embd.weight", (8, 3), 0, 32)), bytes(128)),
        CORRUPT,
        "rope_factors_short.weight alone",
    ),
    "divisors-in-float16": (
        built((("rope_freqs.weight", (4,), 1, 0), ("token_embd.weight", (8, 3), 0, 32)), bytes(128)),
        CORRUPT,
        "rope_freqs.weight is not in float32",
    ),
    "five-axes": (built(embed((8, 3, 1, 1, 1))), CORRUPT, "5 axes"),
    "axis-of-2-to-the-60": (built(embed((1 << 60, 1 << 60))), CORRUPT, "more than any machine holds"),
    "tensor-twice": (built((EMBED, EMBED)), CORRUPT, "'token_embd.weight' stands twice"),
    "unaligned": (built(embed(offset=4)), CORRUPT, "multiples of 32"),
    "cut-off": (built(data=bytes(50)), CORRUPT, r"of the \d+ that its header says \('token_embd.weight' .* is cut"),
    "offset-of-exabytes": (built(embed(offset=1 << 62)), CORRUPT, "belong to no tensor"),
    "overlap": (built((EMBED, LATER), bytes(400)), CORRUPT, "'blk.0.attn_q.weight' overlaps 'token_embd.weight'"),
    "unknown-packing": (built(embed(kind=200)), CORRUPT, "unknown way 200"),
    "packing-that-cannot-be-undone": (built(embed((256, 3), kind=27)), QuantizedTensorError, "I64.*cannot unpack"),
    "rows-of-half-a-block": (built(embed((33, 3), kind=8)), CORRUPT, "rows of 33 numbers; Q8_0 packs 32"),
    "no-embedding": (built((("output_norm.weight", (8,), 0, 0),), bytes(32)), CORRUPT, "no token_embd.weight"),
    "tensor-of-another-model": (
        built((EMBED, ("blk.0.ssm_a.weight", (8,), 0, 96)), bytes(128)), CORRUPT, "'blk.0.ssm_a.weight' has no place",
    ),
    "heads-that-do-not-divide": (
        built((EMBED, ("blk.0.attn_q.weight", (8, 7), 0, 96)), bytes(320)), CORRUPT, "2 heads cannot share",
    ),
}  # fmt: skip


@pytest.mark.parametrize("claimed", [0, 1, 2, 3, 6, 7, 8, 12, 14, 24, 26, 28, 30], ids=lambda kind: Packing(kind).name)
@pytest.mark.parametrize("written", [0, 1, 2, 8, 12, 30], ids=lambda kind: Packing(kind).name)
@pytest.mark.parametrize("last", [True, False])
def test_a_packing_that_does_not_fill_its_room_is_refused(tmp_path, written, claimed, last):
    """Whatever a tensor is said to be packed by, it takes as many bytes as there are."""

    def nbytes(kind):
        per_block, size = gguf.GGML_QUANT_SIZES[Packing(kind)]
        return 256 // per_block * size * 3

    room = nbytes(written) + -nbytes(written) % 32
    embedding, norm = ("token_embd.weight", (256, 3), claimed), ("output_norm.weight", (8,), 0)
    order = [(*norm, 0), (*embedding, 32)] if last else [(*embedding, 0), (*norm, room)]
    path = tmp_path / "m.gguf"
    path.write_bytes(built(order, bytes(32 + room), llama__embedding_length=uint(256)))
    if nbytes(claimed) + -nbytes(claimed) % 32 == room:
        read_gguf_header(path)
        return
    with pytest.raises(LoadingError, match="belong to no tensor|more than its header|overlaps|cut off|cannot unpack"):
        open_gguf(GGUFSource(path, "m"))
    with pytest.raises(LoadingError):
        tensors_of_gguf(path)


@given(st.lists(st.integers(0, 3), min_size=3, max_size=3), st.integers(0, 70), st.sampled_from([32, 64, 256]))
def test_tensors_follow_each_other_from_the_header_to_the_end(tmp_path_factory, gaps, trailing, alignment):
    offset, tensors = 0, []
    for gap, (name, rows) in zip(gaps, (("token_embd.weight", 3), ("output.weight", 5), ("output_norm.weight", 1))):
        offset += gap * alignment
        tensors.append((name, (8, rows) if rows > 1 else (8,), 0, offset))
        offset += 32 * rows + -32 * rows % alignment
    end = tensors[-1][3] + 32
    data = built(tensors, b"", general__alignment=uint(alignment))
    data += bytes(-len(data) % alignment + end + trailing)
    path = tmp_path_factory.mktemp("holes") / "m.gguf"
    path.write_bytes(data)
    if any(gaps) or trailing >= alignment:
        with pytest.raises(CorruptCheckpointError, match="belong to no tensor|more than its header"):
            open_gguf(GGUFSource(path, "m"))
    else:
        assert len(open_gguf(GGUFSource(path, "m")).weights) == 3


@pytest.mark.parametrize("name", ["llama-gqa", "gpt2"])
def test_more_layers_than_the_header_says_are_refused(tmp_path, name):
    path = as_gguf(make_model(VARIANTS[name]), tmp_path / "m.gguf")
    data, key = path.read_bytes(), f"{'gpt2' if name == 'gpt2' else 'llama'}.block_count".encode()
    count = VARIANTS[name].config().num_hidden_layers
    at = data.index(key) + len(key) + 4
    assert data[at : at + 4] == struct.pack("<I", count) and count > 1
    path.write_bytes(data[:at] + struct.pack("<I", count - 1) + data[at + 4 :])
    for asked in ({}, {"first_n_layers": 1}):
        with pytest.raises(UnexpectedTensorError, match=f"more layers than the {count - 1} of"):
            HookedTransformer.from_pretrained(str(path), device="cpu", tokenizer=None, **asked)
    path.write_bytes(data)
    assert HookedTransformer.from_pretrained(str(path), device="cpu", first_n_layers=1).cfg.n_layers == 1


COSTLY = {
    "arrays-that-are-kept": built(**{f"a{i}": struct.pack("<IIQ", ARRAY, 10, 4096) + bytes(32768) for i in range(300)}),
    "strings-that-are-kept": built(**{f"a{i}": struct.pack("<I", STRING) + string("a" * 4000) for i in range(300)}),
    "strings-that-are-walked": built(x=struct.pack("<IIQ", ARRAY, STRING, 1 << 22) + bytes(8 << 22)),
    "a-name-of-megabytes": built(((f"{'a' * (1 << 20)}", (8,), 0, 0),)),
    "a-field-without-name": built(**{"": uint(1)}),
    "divisors-of-gibibytes": built((("rope_freqs.weight", (1 << 17,), 0, 0),), bytes(1 << 19)),
}


@pytest.mark.parametrize("name", COSTLY)
def test_what_a_header_may_cost(tmp_path, name):
    path = tmp_path / "m.gguf"
    path.write_bytes(COSTLY[name])
    with pytest.raises(CorruptCheckpointError, match="hold more than|is empty, or longer|one for each pair") as error:
        open_gguf(GGUFSource(path, "m"))
    assert len(str(error.value)) < 1000


def test_the_file_made_by_hand_is_whole(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(built())
    assert open_gguf(GGUFSource(path, "m")).weights["model.embed_tokens.weight"].make().shape == (3, 8)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named(tmp_path, name):
    data, error_class, words = BROKEN[name]
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    with pytest.raises(error_class, match=f"(?s){words}") as error:
        open_gguf(GGUFSource(path, "m"))
    assert str(path) in str(error.value)


@given(st.data())
def test_no_byte_that_changes_does_more_than_an_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "m.gguf"
    content = bytearray(built((EMBED, ("blk.0.attn_q.weight", (8, 8), 0, 96)), bytes(352)))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        for promise in open_gguf(GGUFSource(path, "m")).weights.values():
            assert tuple(promise.make().shape) == promise.shape
    except LoadingError:
        pass


# -- the real file -----------------------------------------------------------------------------------------------------


def test_the_header_of_a_real_file_is_read_without_its_tokenizer(smollm2_gguf):
    header = read_gguf_header(smollm2_gguf)
    assert len(header.tensors) == 272 and header.fields["tokenizer.ggml.tokens"] is None
    assert header.fields["llama.embedding_length"] == 576


def test_a_real_file_equals_what_transformers_reads(smollm2_gguf, smollm2):
    """`smollm2` is the folder that transformers wrote after it had dequantized the same file."""
    from transformers import AutoConfig, AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(smollm2).state_dict()
    checkpoint = open_gguf(GGUFSource(smollm2_gguf, "SmolLM2"))
    assert set(checkpoint.weights) == set(theirs) - {"lm_head.weight"}
    for key, promise in checkpoint.weights.items():
        assert torch.equal(promise.make(), theirs[key]), key
    config = AutoConfig.from_pretrained(smollm2).to_dict()
    for field, value in checkpoint.config.items():
        if field in config and field not in ("architectures", "rope_scaling"):
            assert config[field] == value, field

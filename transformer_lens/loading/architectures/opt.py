"""OPT: positions begin two rows late; the 350M form has norms behind the sums and a narrower embedding."""

from typing import Any

from torch import Tensor

from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import Choose, Derived, Recipe, Take, When

_BIAS = When("enable_bias", True)
_AFFINE = When("layer_norm_elementwise_affine", True)
# The embedding is as wide as the model, which all but one of the files are.
_FULL_WIDTH = When("word_embed_proj_dim", None, same_as="hidden_size")
_NARROW = {"d_embed": "word_embed_proj_dim"}


def _read(config: ConfigView) -> dict[str, Any]:
    d_model = config.size("hidden_size", 768)
    n_heads = config.size("num_attention_heads", 12)
    config.flag("enable_bias", True)
    before = config.flag("do_layer_norm_before", True)
    removed = config.flag("_remove_final_layer_norm", False)
    config.size("word_embed_proj_dim", d_model)
    return {
        "d_model": d_model,
        "n_heads": n_heads,
        "d_head": config.parts("hidden_size", d_model, "num_attention_heads", n_heads),
        "d_mlp": config.size("ffn_dim", 3072),
        "n_layers": config.size("num_hidden_layers", 12, "layers"),
        "n_ctx": config.size("max_position_embeddings", 2048, "tokens"),
        "d_vocab": config.size("vocab_size", 50272),
        "act_fn": config.activation("activation_function", "relu"),
        # transformers fixes it, whatever config.json says.
        "eps": 1e-5,
        "normalization_type": "LN",
        "norm_weight": config.flag("layer_norm_elementwise_affine", True),
        "has_final_norm": before and not removed,
        **({} if before else {"norm_placement": "post"}),
        "positional_embedding_type": "standard",
    }


def _embedded(table: Tensor, projection: Tensor) -> Tensor:
    return table.float() @ projection.float().t()


def _unembedded(table: Tensor, projection: Tensor) -> Tensor:
    return projection.float().t() @ table.float().t()


def _projected(key: str | tuple[str, str], tied_to: str | None, layout: str, narrow: str, function: Any) -> Recipe:
    """Returns the recipe of an embedding that is multiplied by a projection where it is narrower than the model."""
    rows = layout.split()[0]
    table = Take(key, f"{rows} d_embed", sizes=_NARROW, tied_to=tied_to)
    side = {"in": "d_model d_embed", "out": "d_embed d_model"}[narrow]
    projection = Take(f"{{p}}project_{narrow}.weight", side, sizes=_NARROW)
    step = f"multiplied by project_{narrow}"
    return Choose(_FULL_WIDTH, Take(key, layout, tied_to=tied_to), Derived((table, projection), function, step))


def _norm(key: str) -> dict[str, Recipe]:
    return {leaf[0]: Take(f"{key}.{leaf}", "d_model", when=_AFFINE) for leaf in ("weight", "bias")}


_ATTENTION = "{p}layers.{i}.self_attn"
_NORM_1, _NORM_2 = _norm(f"{_ATTENTION}_layer_norm"), _norm("{p}layers.{i}.final_layer_norm")
_FINAL = _norm("{p}final_layer_norm")

OPT = Architecture(
    name="OPTForCausalLM",
    model_type="opt",
    prefix="model.decoder.",
    other_prefixes=("decoder.",),
    anchor="embed_tokens.weight",
    layer="{p}layers.{i}.",
    once={
        "embed.W_E": _projected("{p}embed_tokens.weight", None, "d_vocab d_model", "in", _embedded),
        # Rows count from two on.
        "pos_embed.W_pos": Take("{p}embed_positions.weight", "n_ctx d_model", first_row=2),
        "ln_final.w": _FINAL["w"],
        "ln_final.b": _FINAL["b"],
        "unembed.W_U": _projected(
            "lm_head.weight", "{p}embed_tokens.weight", "d_vocab_out d_model", "out", _unembedded
        ),
    },
    block={
        "ln1.w": _NORM_1["w"],
        "ln1.b": _NORM_1["b"],
        "attn.W_Q": Take(f"{_ATTENTION}.q_proj.weight", "(head d_head) d_model"),
        "attn.b_Q": Take(f"{_ATTENTION}.q_proj.bias", "(head d_head)", when=_BIAS),
        "attn.W_K": Take(f"{_ATTENTION}.k_proj.weight", "(kv_head d_head) d_model"),
        "attn.b_K": Take(f"{_ATTENTION}.k_proj.bias", "(kv_head d_head)", when=_BIAS),
        "attn.W_V": Take(f"{_ATTENTION}.v_proj.weight", "(kv_head d_head) d_model"),
        "attn.b_V": Take(f"{_ATTENTION}.v_proj.bias", "(kv_head d_head)", when=_BIAS),
        "attn.W_O": Take(f"{_ATTENTION}.out_proj.weight", "d_model (head d_head)"),
        "attn.b_O": Take(f"{_ATTENTION}.out_proj.bias", "d_model", when=_BIAS),
        "ln2.w": _NORM_2["w"],
        "ln2.b": _NORM_2["b"],
        "mlp.W_in": Take("{p}layers.{i}.fc1.weight", "d_mlp d_model"),
        "mlp.b_in": Take("{p}layers.{i}.fc1.bias", "d_mlp", when=_BIAS),
        "mlp.W_out": Take("{p}layers.{i}.fc2.weight", "d_model d_mlp"),
        "mlp.b_out": Take("{p}layers.{i}.fc2.bias", "d_model", when=_BIAS),
    },
    read_config=_read,
    ties_by_default=True,
)

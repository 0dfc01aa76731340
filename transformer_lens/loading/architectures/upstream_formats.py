"""Upstream's own formats: its field names in config.json, its parameter names in a file of torch.save.

Models by Neel Nanda and others ("neel"), his older SoLU models ("neel-solu-old"), and minGPT's names ("mingpt",
Othello-GPT). Any model that was saved as ``model.cfg`` and ``model.state_dict()`` has the first of these formats.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.loading.conversion.architecture import Architecture
from transformer_lens.loading.conversion.config_reader import ConfigView
from transformer_lens.loading.conversion.recipes import Choose, Key, Recipe, Take, When
from transformer_lens.utilities.activation_functions import SUPPORTED_ACTIVATIONS

_FIELDS = {field.name: field for field in dataclasses.fields(HookedTransformerConfig)}
_OPTIONAL_SIZES = ("d_mlp", "d_vocab_out", "n_key_value_heads", "window_size", "rotary_dim")
_FLAGS = (
    "attn_only final_rms use_attn_scale use_local_attn scale_attn_by_inverse_layer_idx parallel_attn_mlp gated_mlp "
    "post_embedding_ln rotary_adjacent_pairs default_prepend_bos"
).split()
_NUMBERS = ("eps", "attn_scale", "rotary_base", "attn_scores_soft_cap", "output_logits_soft_cap")
# How a model was made, where it is, and which hooks are on: nothing of what the weights mean.
_OF_THE_RUN = frozenset(
    """
    model_name original_architecture checkpoint_index checkpoint_label_type checkpoint_value from_checkpoint device
    n_devices seed init_mode init_weights initializer_range n_params dtype tokenizer_prepends_bos trust_remote_code
    use_attn_result use_split_qkv_input use_hook_mlp_in use_attn_in use_hook_tokens use_expert_hooks
    ungroup_grouped_query_attention decoder_start_token_id tie_word_embeddings
    """.split()
)
_KINDS = {
    "positional_embedding_type": ("standard", "rotary", "shortformer", "alibi", "none"),
    "attention_dir": ("causal", "bidirectional"),
}


def _read(config: ConfigView) -> dict[str, Any]:
    # What is no field of upstream's config says how the model was trained: no reader of upstream's knows it either.
    config.read.update(name for name in config.config if name not in _FIELDS or name in _OF_THE_RUN)
    fields: dict[str, Any] = {name: config.size(name) for name in ("d_model", "n_heads", "d_head", "d_vocab")}
    fields |= {"n_layers": config.size("n_layers", kind="layers"), "n_ctx": config.size("n_ctx", kind="tokens")}
    for name in _OPTIONAL_SIZES:
        if config.take(name) not in (None, -1):
            fields[name] = config.size(name)
    fields |= {name: config.flag(name, _default(name)) for name in _FLAGS}
    fields |= {name: config.number(name, _default(name)) for name in _NUMBERS}
    fields |= {name: _one_of(config, name, kinds) for name, kinds in _KINDS.items()}
    if config.flag("shortformer_pos", False):
        fields["positional_embedding_type"] = "shortformer"
    fields["normalization_type"] = _normalization(config)
    fields["act_fn"] = None if fields["attn_only"] else _one_of(config, "act_fn", tuple(SUPPORTED_ACTIVATIONS))
    config.read.add("act_fn")
    types = config.take("attn_types")
    if types is not None:
        if not isinstance(types, list) or len(types) != fields["n_layers"] or set(types) - {"global", "local"}:
            raise config.corrupt(f"attn_types = {types!r:.60} is no list of 'global' and 'local', one a layer")
        fields["attn_types"] = types
    name = config.take("tokenizer_name")
    if name is not None:
        fields["tokenizer_name"] = str(name)
    # A field that has upstream's own default is as if it were not there.
    config.read.update(name for name, value in config.config.items() if name in _FIELDS and value == _default(name))
    return fields


def _default(name: str) -> Any:
    return _FIELDS[name].default


def _one_of(config: ConfigView, name: str, kinds: tuple[str, ...]) -> Any:
    value = config.take(name, _default(name))
    if value not in kinds:
        config.problems.append(f"{name} = {value!r:.60}: not one of {', '.join(kinds)}")
    return value


def _normalization(config: ConfigView) -> str | None:
    """Returns the kind of norm: older configs call the field ``normalization``, and null means that there is none."""
    spelled = "normalization" if config.has("normalization") else "normalization_type"
    config.read.update(("normalization", "normalization_type"))
    value = config.config.get(spelled, "LN")
    if value not in ("LN", "LNPre", "RMS", "RMSPre", None):
        config.problems.append(f"{spelled} = {value!r:.60}: not one of LN, LNPre, RMS, RMSPre, null")
        return "LN"
    return None if value is None else str(value)


def _bias(key: Key, layout: str) -> Take:
    return Take(key, layout, optional=True)


_DROPPED = {
    "blocks.{i}.attn.mask": "a causal mask, computed here",
    "blocks.{i}.attn.IGNORE": "the number that stood for minus infinity",
    "blocks.{i}.attn.rotary_sin": "a rotary table, computed here",
    "blocks.{i}.attn.rotary_cos": "a rotary table, computed here",
}


def _kv(leaf: str) -> Key:
    return (f"blocks.{{i}}.attn.{leaf}", f"blocks.{{i}}.attn._{leaf}")


NEEL = Architecture(
    name="neel",
    model_type="neel",
    written_in="upstream_formats",
    prefix="",
    anchor="embed.W_E",
    layer="blocks.{i}.",
    once={
        "embed.W_E": Take("embed.W_E", "d_vocab d_model"),
        "embed.ln.w": Take("embed.ln.w", "d_model"),
        "embed.ln.b": Take("embed.ln.b", "d_model"),
        "pos_embed.W_pos": Take("pos_embed.W_pos", "n_ctx d_model"),
        "ln_final.w": Take("ln_final.w", "d_model"),
        "ln_final.b": Take("ln_final.b", "d_model"),
        "unembed.W_U": Take("unembed.W_U", "d_model d_vocab_out"),
        "unembed.b_U": _bias("unembed.b_U", "d_vocab_out"),
    },
    block={
        "ln1.w": Take("blocks.{i}.ln1.w", "d_model"),
        "ln1.b": Take("blocks.{i}.ln1.b", "d_model"),
        "attn.W_Q": Take("blocks.{i}.attn.W_Q", "head d_model d_head"),
        "attn.W_K": Take(_kv("W_K"), "kv_head d_model d_head"),
        "attn.W_V": Take(_kv("W_V"), "kv_head d_model d_head"),
        "attn.W_O": Take("blocks.{i}.attn.W_O", "head d_head d_model"),
        "attn.b_Q": _bias("blocks.{i}.attn.b_Q", "head d_head"),
        "attn.b_K": _bias(_kv("b_K"), "kv_head d_head"),
        "attn.b_V": _bias(_kv("b_V"), "kv_head d_head"),
        "attn.b_O": _bias("blocks.{i}.attn.b_O", "d_model"),
        "ln2.w": Take("blocks.{i}.ln2.w", "d_model"),
        "ln2.b": Take("blocks.{i}.ln2.b", "d_model"),
        "mlp.W_in": Take("blocks.{i}.mlp.W_in", "d_model d_mlp"),
        "mlp.b_in": _bias("blocks.{i}.mlp.b_in", "d_mlp"),
        "mlp.W_gate": Take("blocks.{i}.mlp.W_gate", "d_model d_mlp"),
        "mlp.b_gate": _bias("blocks.{i}.mlp.b_gate", "d_mlp"),
        "mlp.W_out": Take("blocks.{i}.mlp.W_out", "d_mlp d_model"),
        "mlp.b_out": _bias("blocks.{i}.mlp.b_out", "d_model"),
        "mlp.ln.w": Take("blocks.{i}.mlp.ln.w", "d_mlp"),
        "mlp.ln.b": Take("blocks.{i}.mlp.ln.b", "d_mlp"),
    },
    dropped=_DROPPED,
    read_config=_read,
)


def _old(key: str, layout: str) -> Recipe:
    """Returns the recipe of a matrix that models of up to six layers have with its last two axes swapped."""
    *head, one, two = layout.split()
    swapped = " ".join([*head, two, one])
    return Choose(When("n_layers", None, at_most=6), Take(key, swapped), Take(key, layout))


_OLD_ONCE: Mapping[str, Recipe] = {
    "embed.W_E": _old("embed.W_E", "d_vocab d_model"),
    "unembed.W_U": _old("unembed.W_U", "d_model d_vocab_out"),
    "pos_embed.W_pos": Choose(
        When("n_layers", None, at_most=8),
        Take("pos_embed.W_pos", "d_model n_ctx"),
        Take("pos_embed.W_pos", "n_ctx d_model"),
    ),
    **{f"ln_final.{leaf}": Take((f"norm.{leaf}", f"ln_final.{leaf}"), "d_model") for leaf in "wb"},
}
NEEL_SOLU_OLD = dataclasses.replace(
    NEEL,
    name="neel-solu-old",
    model_type="neel-solu-old",
    once={**NEEL.once, **_OLD_ONCE},
    block={
        **NEEL.block,
        **{
            f"{norm}.{leaf}": Take(
                (f"blocks.{{i}}.{norm.replace('ln', 'norm')}.{leaf}", f"blocks.{{i}}.{norm}.{leaf}"), axes
            )
            for norm, axes in (("ln1", "d_model"), ("ln2", "d_model"), ("mlp.ln", "d_mlp"))
            for leaf in "wb"
        },
        "attn.W_Q": _old("blocks.{i}.attn.W_Q", "head d_model d_head"),
        "attn.W_K": _old("blocks.{i}.attn.W_K", "kv_head d_model d_head"),
        "attn.W_V": _old("blocks.{i}.attn.W_V", "kv_head d_model d_head"),
        "attn.W_O": _old("blocks.{i}.attn.W_O", "head d_head d_model"),
        "mlp.W_in": _old("blocks.{i}.mlp.W_in", "d_model d_mlp"),
        "mlp.W_out": _old("blocks.{i}.mlp.W_out", "d_mlp d_model"),
    },
)


def _mingpt_heads(name: str, axis: str) -> dict[str, Recipe]:
    key, letter = f"blocks.{{i}}.attn.{name}", name[0].upper()
    return {
        f"attn.W_{letter}": Take(f"{key}.weight", f"({axis} d_head) d_model"),
        f"attn.b_{letter}": Take(f"{key}.bias", f"({axis} d_head)"),
    }


MINGPT = Architecture(
    name="mingpt",
    model_type="mingpt",
    written_in="upstream_formats",
    prefix="",
    anchor="tok_emb.weight",
    layer="blocks.{i}.",
    once={
        "embed.W_E": Take("tok_emb.weight", "d_vocab d_model"),
        "pos_embed.W_pos": Take("pos_emb", "one n_ctx d_model", pick={"one": 0}, sizes={"one": 1}),
        "ln_final.w": Take("ln_f.weight", "d_model"),
        "ln_final.b": Take("ln_f.bias", "d_model"),
        "unembed.W_U": Take("head.weight", "d_vocab_out d_model"),
    },
    block={
        "ln1.w": Take("blocks.{i}.ln1.weight", "d_model"),
        "ln1.b": Take("blocks.{i}.ln1.bias", "d_model"),
        **_mingpt_heads("query", "head"),
        **_mingpt_heads("key", "kv_head"),
        **_mingpt_heads("value", "kv_head"),
        "attn.W_O": Take("blocks.{i}.attn.proj.weight", "d_model (head d_head)"),
        "attn.b_O": Take("blocks.{i}.attn.proj.bias", "d_model"),
        "ln2.w": Take("blocks.{i}.ln2.weight", "d_model"),
        "ln2.b": Take("blocks.{i}.ln2.bias", "d_model"),
        "mlp.W_in": Take("blocks.{i}.mlp.0.weight", "d_mlp d_model"),
        "mlp.b_in": Take("blocks.{i}.mlp.0.bias", "d_mlp"),
        "mlp.W_out": Take("blocks.{i}.mlp.2.weight", "d_model d_mlp"),
        "mlp.b_out": Take("blocks.{i}.mlp.2.bias", "d_model"),
    },
    dropped={"blocks.{i}.attn.mask": "a causal mask, computed here"},
    read_config=_read,
)
UPSTREAM_FORMATS: Mapping[str, Architecture] = {one.name: one for one in (NEEL, NEEL_SOLU_OLD, MINGPT)}
_SAYS_SO = ("d_model", "n_layers", "n_heads", "d_head", "d_vocab")


def upstream_format(config: Mapping[str, Any], label: str) -> Architecture | None:
    """Returns the table of a config with upstream's field names; None where it has none of them.

    ``architecture`` names it. Configs of Neel Nanda's do not have that field: those of his older models are told by
    the "_old" at the end of the repository's name, as upstream does; a wrong guess does not fit the tensors' shapes.
    """
    if not all(name in config for name in _SAYS_SO):
        return None
    said = config.get("architecture")
    if isinstance(said, str) and said in UPSTREAM_FORMATS:
        return UPSTREAM_FORMATS[said]
    return NEEL_SOLU_OLD if label.rstrip("/").endswith("_old") and said is None else NEEL

"""Hook points: their names, shapes and meanings, as the records say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from transformer_lens.anatomy.attention import Attention
from transformer_lens.anatomy.layer import Branch, Layer
from transformer_lens.anatomy.mixture import Mixture
from transformer_lens.anatomy.mlp import Mlp
from transformer_lens.anatomy.model import Model
from transformer_lens.anatomy.norm import Norm


@dataclass(frozen=True)
class Hook:
    """A place where an activation has a name.

    Attributes:
        name: Inside the block, or inside the model: "attn.hook_z", "hook_embed".
        axes: Of the activation, space separated.
        meaning: What the activation is.
        switch: The field of the config without which nothing passes here; empty where something always does.
    """

    name: str
    axes: str
    meaning: str
    switch: str = ""

    def inside(self, prefix: str) -> Hook:
        """Returns the same by its name in the model, for a block's prefix such as "blocks.3."."""
        return Hook(prefix + self.name, self.axes, self.meaning, self.switch)


_STREAM = "batch pos d_model"


def hooks_of_model(model: Model) -> Iterator[Hook]:
    """Yields the hook points of a model by full name: before the blocks, of each block, behind them."""
    yield from hooks_before_blocks(model)
    for layer in model.layers:
        yield from (hook.inside(layer.prefix) for hook in hooks_of_layer(layer))
    if model.final_norm is not None:
        yield from hooks_of_norm(model.final_norm, "the stream that the unembedding reads")


def hooks_before_blocks(model: Model) -> Iterator[Hook]:
    """Yields the hook points of the embeddings."""
    yield Hook("hook_tokens", "batch pos", "the tokens", "use_hook_tokens")
    if model.embedding.norm is not None:
        yield from hooks_of_norm(model.embedding.norm, "the embedded tokens")
    yield Hook("hook_embed", _STREAM, "the embedded tokens, as they enter the stream")
    if model.embedding.has_positions:
        added = "added to them" if model.embedding.adds_positions else "not added to the stream in this model"
        yield Hook("hook_pos_embed", _STREAM, f"the embedded positions, {added}")


def hooks_of_layer(layer: Layer) -> Iterator[Hook]:
    """Yields the hook points of a block by name inside the block, in the order of the forward pass."""
    yield Hook("hook_resid_pre", _STREAM, "the residual stream before the block")
    yield from _hooks_of_branch(layer.attention, layer.attends, layer)
    if layer.mlp is None:
        yield Hook("hook_resid_post", _STREAM, "the residual stream behind the block")
        return
    if layer.has_middle:
        yield Hook("hook_resid_mid", _STREAM, "the residual stream between attention and MLP")
    assert layer.computes is not None
    yield from _hooks_of_branch(layer.mlp, layer.computes, layer)
    yield Hook("hook_resid_post", _STREAM, "the residual stream behind the block")


def hooks_of_norm(norm: Norm, what: str) -> Iterator[Hook]:
    """Yields the hook points of a norm.

    Args:
        norm: Its record.
        what: What it normalizes, in words.
    """
    one, whole = _axes_of_norm(norm)
    yield Hook(f"{norm.name}.hook_scale", one, f"what {what} is divided by")
    if norm.is_folded or not norm.has_weight:
        said = "divided by its scale"
    else:
        said = "before weight and bias" if norm.kind == "RMS" else "behind weight and bias"
        said = f"normalized, {said}"
    yield Hook(f"{norm.name}.hook_normalized", whole, f"{what}, {said}")


def hooks_of_attention(attention: Attention) -> Iterator[Hook]:
    """Yields the hook points inside an attention layer, by name inside the block."""
    values = "values, clipped" if attention.clip is not None else "values"
    yield Hook("attn.hook_q", "batch pos head d_head", "queries, before norm, clipping and rotation")
    yield Hook("attn.hook_k", "batch pos kv_head d_head", "keys, before norm, clipping and rotation")
    yield Hook("attn.hook_v", "batch pos kv_head d_head", values)
    for norm, what in ((attention.q_norm, "queries"), (attention.k_norm, "keys")):
        if norm is not None:
            yield from hooks_of_norm(norm, what)
    if attention.rotary is not None:
        yield Hook("attn.hook_rot_q", "batch pos head d_head", "queries as they meet the keys, rotated")
        yield Hook("attn.hook_rot_k", "batch pos kv_head d_head", "keys as they meet the queries, rotated")
    scores = "q · k / divisor" if not attention.softcap > 0 else "cap(q · k / divisor)"
    yield Hook("attn.hook_attn_scores", "batch head query_pos key_pos", f"{scores}; minus infinity where masked")
    rows = "rows sum to less than one: the sink takes the rest" if attention.has_sinks else "rows sum to one"
    yield Hook("attn.hook_pattern", "batch head query_pos key_pos", f"softmax of the scores; {rows}")
    yield Hook("attn.hook_z", "batch pos head d_head", "pattern · v, the output of each head before W_O")
    yield Hook("attn.hook_result", "batch pos head d_model", "z W_O of each head; their sum and b_O is the output",
               "use_attn_result")  # fmt: skip


def hooks_of_mlp(body: Mlp | Mixture) -> Iterator[Hook]:
    """Yields the hook points inside an MLP, or a mixture of experts, by name inside the block."""
    if isinstance(body, Mixture):
        yield Hook("mlp.hook_expert_weights", "batch pos expert", "the router's probabilities of all experts")
        yield Hook("mlp.hook_expert_indices", "batch pos chosen", "the experts that each token is sent to")
        for expert in dict.fromkeys(writer.partition(".W_out")[0] for writer in body.writers()):
            for leaf, said in (("gate", "x W_gate"), ("pre", "x W_in"), ("post", "act(gate) * pre")):
                yield Hook(f"{expert}.hook_{leaf}", "token d_expert", f"{said} of the tokens sent to this expert",
                           "use_expert_hooks")  # fmt: skip
        return
    width = "batch pos d_mlp"
    if body.is_gated:
        yield Hook("mlp.hook_pre", width, "x W_gate, before the activation")
        yield Hook("mlp.hook_pre_linear", width, "x W_in + b_in, the other factor")
    else:
        yield Hook("mlp.hook_pre", width, "x W_in + b_in, before the activation")
    if body.inner_norm is not None:
        yield Hook("mlp.hook_mid", width, "behind the activation, before its norm")
        yield from hooks_of_norm(body.inner_norm, "the activation")
    post = "act(pre) * pre_linear" if body.is_gated else "act(pre)"
    yield Hook("mlp.hook_post", width, f"{post}, the neurons' activations, which W_out reads")


def _hooks_of_branch(branch: Branch, body: Attention | Mlp | Mixture, layer: Layer) -> Iterator[Hook]:
    what = "attention" if branch.name == "attn" else "the MLP"
    if isinstance(body, Attention):
        yield Hook("hook_attn_in", "batch pos head d_model", "the stream that each head reads, before the norm",
                   "use_attn_in")  # fmt: skip
        for leaf, head in (("q", "head"), ("k", "kv_head"), ("v", "kv_head")):
            yield Hook(f"hook_{leaf}_input", f"batch pos {head} d_model",
                       f"the stream that each head's {leaf} reads, before the norm", "use_split_qkv_input")  # fmt: skip
    else:
        yield Hook("hook_mlp_in", _STREAM, "the stream that the MLP reads, before the norm", "use_hook_mlp_in")
    if branch.reads is not None:
        yield from hooks_of_norm(branch.reads, f"the stream that {what} reads")
    yield from hooks_of_attention(body) if isinstance(body, Attention) else hooks_of_mlp(body)
    if branch.writes is not None:
        yield from hooks_of_norm(branch.writes, f"what {what} writes")
    said = "what attention adds to the stream" if branch.name == "attn" else "what the MLP adds to the stream"
    yield Hook(f"hook_{branch.name}_out", _STREAM, said)
    if branch.closes is not None:
        yield from hooks_of_norm(branch.closes, f"the stream behind the sum with {what}")


def _axes_of_norm(norm: Norm) -> tuple[str, str]:
    """Returns the axes of a norm's scale, and of what it normalizes."""
    if not norm.name.startswith("attn."):
        width = norm.axes.split()[-1]
        return "batch pos one", f"batch pos {width}"
    last = norm.axes.split()[-1]
    if last != "d_head":
        return "batch pos one", f"batch pos {last}"
    head = "head" if norm.name == "attn.q_norm" else "kv_head"
    return f"batch pos {head} one", f"batch pos {head} d_head"

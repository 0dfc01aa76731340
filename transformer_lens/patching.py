"""Activation patching: what a metric becomes when one activation of a run is replaced by that of another run.

Introduced as causal mediation and causal tracing (Vig et al. 2020; Meng et al. 2022). Each function below runs the
corrupted tokens once for every place: it puts the clean activation of this place in, and measures the logits.
"""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from transformer_lens import utilities as utils
from transformer_lens.ActivationCache import ActivationCache
from transformer_lens.hook_points import HookPoint
from transformer_lens.HookedTransformer import HookedTransformer
from transformer_lens.utilities.indices import as_layer

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "ActivationCache",
    "AxisNames",
    "CorruptedActivation",
    "HookedTransformer",
    "Logits",
    "PatchedActivation",
    "generic_activation_patch",
    "get_act_patch_attn_head_all_pos_every",
    "get_act_patch_attn_head_by_pos_every",
    "get_act_patch_attn_head_k_all_pos",
    "get_act_patch_attn_head_k_by_pos",
    "get_act_patch_attn_head_out_all_pos",
    "get_act_patch_attn_head_out_by_pos",
    "get_act_patch_attn_head_pattern_all_pos",
    "get_act_patch_attn_head_pattern_by_pos",
    "get_act_patch_attn_head_pattern_dest_src_pos",
    "get_act_patch_attn_head_q_all_pos",
    "get_act_patch_attn_head_q_by_pos",
    "get_act_patch_attn_head_v_all_pos",
    "get_act_patch_attn_head_v_by_pos",
    "get_act_patch_attn_out",
    "get_act_patch_block_every",
    "get_act_patch_mlp_out",
    "get_act_patch_resid_mid",
    "get_act_patch_resid_pre",
    "layer_head_dest_src_pos_pattern_patch_setter",
    "layer_head_pattern_patch_setter",
    "layer_head_pos_pattern_patch_setter",
    "layer_head_vector_patch_setter",
    "layer_pos_head_vector_patch_setter",
    "layer_pos_patch_setter",
    "make_df_from_ranges",
    "utils",
]

Logits = Tensor
CorruptedActivation = Tensor
PatchedActivation = Tensor
AxisNames = Literal["layer", "pos", "head_index", "head", "src_pos", "dest_pos"]
Metric = Callable[[Tensor], Any]
PatchSetter = Callable[[Tensor, Sequence[int], Tensor], Tensor]


def make_df_from_ranges(column_max_ranges: Sequence[int], column_names: Sequence[str]) -> "pd.DataFrame":
    """Lists every combination of indices, the last column running fastest.

    Args:
        column_max_ranges: How many indices each column has, from 0 on.
        column_names: The columns' names.
    """
    import pandas as pd

    rows = list(itertools.product(*map(range, column_max_ranges)))
    return pd.DataFrame(rows, columns=list(column_names))


def generic_activation_patch(
    model: HookedTransformer,
    corrupted_tokens: Int[Tensor, "batch pos"],
    clean_cache: ActivationCache,
    patching_metric: Metric,
    patch_setter: PatchSetter,
    activation_name: str,
    index_axis_names: Sequence[AxisNames] | None = None,
    index_df: Any = None,
    return_index_df: bool = False,
) -> Any:
    """Measures, for every place in turn, a corrupted run into which the clean activation of this place is put.

    No gradients are recorded, and hooks that the model has stay in force.

    Args:
        model: The model.
        corrupted_tokens: What it runs on.
        clean_cache: Activations of the clean run, of the same shapes, on any device.
        patching_metric: Called with the logits ``[batch pos d_vocab]``; returns a number.
        patch_setter: Called with the corrupted activation, the indices of the place, and the clean activation;
            returns the patched one. It may write into the first.
        activation_name: Short name of the activation, such as ``"resid_pre"``; the first index is its layer.
        index_axis_names: The axes to run over, each in whole: "layer", "pos", "src_pos", "dest_pos", "head" or
            "head_index". Under grouped-query attention keys and values have only as many heads as they have groups.
        index_df: The places instead, one a row, the layer in the first column.
        return_index_df: Return the places too, as a ``DataFrame``.

    Returns:
        The metric, in float32 on ``cfg.device``: with an axis for each of `index_axis_names`, or one for the rows of
        `index_df`; or a pair of it and the places.

    Raises:
        ValueError: Not exactly one of `index_axis_names` and `index_df` is given.
    """
    if (index_axis_names is None) == (index_df is None):
        raise ValueError("give either index_axis_names or index_df, and not both")
    if index_axis_names is not None:
        lengths = [
            _axis_length(axis, model, corrupted_tokens, clean_cache, activation_name) for axis in index_axis_names
        ]
        places = [list(place) for place in itertools.product(*map(range, lengths))]
    else:
        lengths = [len(index_df)]
        places = [list(map(int, place)) for place in index_df.to_numpy()]
    results = torch.zeros(len(places), device=model.cfg.device)

    def patch(activation: Tensor, hook: HookPoint, place: list[int]) -> Tensor:
        return patch_setter(activation, place, clean_cache[activation_name, place[0]])

    with torch.no_grad():
        for row, place in enumerate(tqdm(places)):
            name = utils.get_act_name(activation_name, as_layer(place[0], model.cfg.n_layers))
            logits = model.run_with_hooks(corrupted_tokens, fwd_hooks=[(name, partial(patch, place=place))])
            results[row] = patching_metric(logits)
    results = results.view(lengths)
    if not return_index_df:
        return results
    if index_axis_names is not None:
        index_df = make_df_from_ranges(lengths, index_axis_names)
    return results, index_df


def _axis_length(
    axis: str, model: HookedTransformer, tokens: Tensor, clean_cache: ActivationCache, activation_name: str
) -> int:
    if axis == "layer":
        return model.cfg.n_layers
    if axis in ("pos", "src_pos", "dest_pos"):
        return tokens.shape[-1]
    if axis in ("head", "head_index"):
        return clean_cache[activation_name, 0].shape[-3 if activation_name == "pattern" else -2]
    raise ValueError(f"there is no axis {axis!r}; known are layer, pos, src_pos, dest_pos, head and head_index")


def layer_pos_patch_setter(
    corrupted_activation: Float[Tensor, "batch pos ..."],
    index: Sequence[int],
    clean_activation: Float[Tensor, "_ pos ..."],
) -> Float[Tensor, "batch pos ..."]:
    """Puts the clean activation in at one position; `index` is ``(layer, pos)``."""
    _, pos = index
    corrupted_activation[:, pos, ...] = clean_activation[:, pos, ...]
    return corrupted_activation


def layer_pos_head_vector_patch_setter(
    corrupted_activation: Float[Tensor, "batch pos head d_head"],
    index: Sequence[int],
    clean_activation: Float[Tensor, "_ pos head d_head"],
) -> Float[Tensor, "batch pos head d_head"]:
    """Puts one head's clean vector in at one position; `index` is ``(layer, pos, head)``."""
    _, pos, head = index
    corrupted_activation[:, pos, head] = clean_activation[:, pos, head]
    return corrupted_activation


def layer_head_vector_patch_setter(
    corrupted_activation: Float[Tensor, "batch pos head d_head"],
    index: Sequence[int],
    clean_activation: Float[Tensor, "_ pos head d_head"],
) -> Float[Tensor, "batch pos head d_head"]:
    """Puts one head's clean vectors in at all positions; `index` is ``(layer, head)``."""
    _, head = index
    corrupted_activation[:, :, head] = clean_activation[:, :, head]
    return corrupted_activation


def layer_head_pattern_patch_setter(
    corrupted_activation: Float[Tensor, "batch head dest_pos src_pos"],
    index: Sequence[int],
    clean_activation: Float[Tensor, "_ head dest_pos src_pos"],
) -> Float[Tensor, "batch head dest_pos src_pos"]:
    """Puts one head's clean attention pattern in; `index` is ``(layer, head)``."""
    _, head = index
    corrupted_activation[:, head] = clean_activation[:, head]
    return corrupted_activation


def layer_head_pos_pattern_patch_setter(
    corrupted_activation: Float[Tensor, "batch head dest_pos src_pos"],
    index: Sequence[int],
    clean_activation: Float[Tensor, "_ head dest_pos src_pos"],
) -> Float[Tensor, "batch head dest_pos src_pos"]:
    """Puts the clean attention of one head from one position in; `index` is ``(layer, head, dest_pos)``."""
    _, head, dest_pos = index
    corrupted_activation[:, head, dest_pos] = clean_activation[:, head, dest_pos]
    return corrupted_activation


def layer_head_dest_src_pos_pattern_patch_setter(
    corrupted_activation: Float[Tensor, "batch head dest_pos src_pos"],
    index: Sequence[int],
    clean_activation: Float[Tensor, "_ head dest_pos src_pos"],
) -> Float[Tensor, "batch head dest_pos src_pos"]:
    """Puts one entry of one head's clean pattern in; `index` is ``(layer, head, dest_pos, src_pos)``.

    The row then need not sum to one.
    """
    _, head, dest_pos, src_pos = index
    corrupted_activation[:, head, dest_pos, src_pos] = clean_activation[:, head, dest_pos, src_pos]
    return corrupted_activation


# Each is called as f(model, corrupted_tokens, clean_cache, metric), and returns the axes that it names.
_by_layer_and_pos = partial(
    generic_activation_patch, patch_setter=layer_pos_patch_setter, index_axis_names=("layer", "pos")
)
get_act_patch_resid_pre = partial(_by_layer_and_pos, activation_name="resid_pre")
get_act_patch_resid_mid = partial(_by_layer_and_pos, activation_name="resid_mid")
get_act_patch_attn_out = partial(_by_layer_and_pos, activation_name="attn_out")
get_act_patch_mlp_out = partial(_by_layer_and_pos, activation_name="mlp_out")

_by_head_and_pos = partial(
    generic_activation_patch,
    patch_setter=layer_pos_head_vector_patch_setter,
    index_axis_names=("layer", "pos", "head"),
)
get_act_patch_attn_head_out_by_pos = partial(_by_head_and_pos, activation_name="z")
get_act_patch_attn_head_q_by_pos = partial(_by_head_and_pos, activation_name="q")
get_act_patch_attn_head_k_by_pos = partial(_by_head_and_pos, activation_name="k")
get_act_patch_attn_head_v_by_pos = partial(_by_head_and_pos, activation_name="v")
get_act_patch_attn_head_pattern_by_pos = partial(
    generic_activation_patch,
    patch_setter=layer_head_pos_pattern_patch_setter,
    activation_name="pattern",
    index_axis_names=("layer", "head_index", "dest_pos"),
)
get_act_patch_attn_head_pattern_dest_src_pos = partial(
    generic_activation_patch,
    patch_setter=layer_head_dest_src_pos_pattern_patch_setter,
    activation_name="pattern",
    index_axis_names=("layer", "head_index", "dest_pos", "src_pos"),
)

_by_head = partial(
    generic_activation_patch, patch_setter=layer_head_vector_patch_setter, index_axis_names=("layer", "head")
)
get_act_patch_attn_head_out_all_pos = partial(_by_head, activation_name="z")
get_act_patch_attn_head_q_all_pos = partial(_by_head, activation_name="q")
get_act_patch_attn_head_k_all_pos = partial(_by_head, activation_name="k")
get_act_patch_attn_head_v_all_pos = partial(_by_head, activation_name="v")
get_act_patch_attn_head_pattern_all_pos = partial(
    generic_activation_patch,
    patch_setter=layer_head_pattern_patch_setter,
    activation_name="pattern",
    index_axis_names=("layer", "head_index"),
)


def _stacked_over_heads(results: Sequence[Tensor]) -> Tensor:
    """Stacks results ``[... head]``; those of groups of heads count for each head of the group."""
    n_heads = max(result.shape[-1] for result in results)
    return torch.stack([result.repeat_interleave(n_heads // result.shape[-1], dim=-1) for result in results])


def get_act_patch_attn_head_all_pos_every(
    model: HookedTransformer, corrupted_tokens: Int[Tensor, "batch pos"], clean_cache: ActivationCache, metric: Metric
) -> Float[Tensor, "patch_type layer head"]:
    """Patches each head at all positions, in each of five ways: output, query, key, value, pattern.

    Under grouped-query attention the keys and values of a group count for each of its heads.

    Args:
        model: The model.
        corrupted_tokens: What it runs on.
        clean_cache: Activations of the clean run.
        metric: Called with the logits; returns a number.
    """
    ways = (
        get_act_patch_attn_head_out_all_pos,
        get_act_patch_attn_head_q_all_pos,
        get_act_patch_attn_head_k_all_pos,
        get_act_patch_attn_head_v_all_pos,
        get_act_patch_attn_head_pattern_all_pos,
    )
    return _stacked_over_heads([way(model, corrupted_tokens, clean_cache, metric) for way in ways])


def get_act_patch_attn_head_by_pos_every(
    model: HookedTransformer, corrupted_tokens: Int[Tensor, "batch pos"], clean_cache: ActivationCache, metric: Metric
) -> Float[Tensor, "patch_type layer pos head"]:
    """Patches each head at each position, in each of five ways: output, query, key, value, pattern.

    The position of a pattern is the one that attends. Under grouped-query attention the keys and values of a group
    count for each of its heads.

    Args:
        model: The model.
        corrupted_tokens: What it runs on.
        clean_cache: Activations of the clean run.
        metric: Called with the logits; returns a number.
    """
    ways = (
        get_act_patch_attn_head_out_by_pos,
        get_act_patch_attn_head_q_by_pos,
        get_act_patch_attn_head_k_by_pos,
        get_act_patch_attn_head_v_by_pos,
    )
    results = [way(model, corrupted_tokens, clean_cache, metric) for way in ways]
    by_pattern = get_act_patch_attn_head_pattern_by_pos(model, corrupted_tokens, clean_cache, metric)
    return _stacked_over_heads([*results, by_pattern.transpose(1, 2)])


def get_act_patch_block_every(
    model: HookedTransformer, corrupted_tokens: Int[Tensor, "batch pos"], clean_cache: ActivationCache, metric: Metric
) -> Float[Tensor, "patch_type layer pos"]:
    """Patches each layer at each position, in each of three ways: residual stream before it, attention's output, MLP's.

    Args:
        model: The model.
        corrupted_tokens: What it runs on.
        clean_cache: Activations of the clean run.
        metric: Called with the logits; returns a number.
    """
    ways = (get_act_patch_resid_pre, get_act_patch_attn_out, get_act_patch_mlp_out)
    return torch.stack([way(model, corrupted_tokens, clean_cache, metric) for way in ways])

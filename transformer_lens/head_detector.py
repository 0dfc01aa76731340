"""Attention heads of a known kind, found by what they attend to."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, SupportsIndex

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transformer_lens.ActivationCache import ActivationCache
from transformer_lens.HookedTransformer import HookedTransformer
from transformer_lens.utilities.indices import as_index, as_layer
from transformer_lens.utilities.tensors import is_lower_triangular, is_square

__all__ = [
    "ActivationCache",
    "CACHE_WITH_SEQ_LIST_ERR",
    "DET_PAT_NOT_SQUARE_ERR",
    "ErrorMeasure",
    "HEAD_NAMES",
    "HeadName",
    "HookedTransformer",
    "INVALID_HEAD_NAME_ERR",
    "LayerHeadTuple",
    "LayerToHead",
    "SEQ_LEN_ERR",
    "compute_head_attention_similarity_score",
    "detect_head",
    "get_duplicate_token_head_detection_pattern",
    "get_induction_head_detection_pattern",
    "get_previous_token_head_detection_pattern",
    "get_supported_heads",
    "is_lower_triangular",
    "is_square",
]

HeadName = Literal["previous_token_head", "duplicate_token_head", "induction_head"]
HEAD_NAMES: tuple[HeadName, ...] = ("previous_token_head", "duplicate_token_head", "induction_head")
ErrorMeasure = Literal["abs", "mul"]
LayerHeadTuple = tuple[SupportsIndex, SupportsIndex]
LayerToHead = Mapping[Any, Sequence[SupportsIndex]]

INVALID_HEAD_NAME_ERR = f"detection_pattern must be a tensor or one of {', '.join(HEAD_NAMES)}; it is %s"
SEQ_LEN_ERR = "The sequence must have two tokens or more, and fit into the model's context."
DET_PAT_NOT_SQUARE_ERR = (
    "detection_pattern must be lower triangular, with a row and a column for each of the %d tokens; its shape is %s"
)
CACHE_WITH_SEQ_LIST_ERR = "A cache is of one sequence: give one sequence with it, or leave it out."


def detect_head(
    model: HookedTransformer,
    seq: str | list[str],
    detection_pattern: Tensor | HeadName,
    heads: Sequence[LayerHeadTuple] | LayerToHead | None = None,
    cache: ActivationCache | None = None,
    *,
    exclude_bos: bool = False,
    exclude_current_token: bool = False,
    error_measure: ErrorMeasure = "mul",
) -> Float[Tensor, "n_layers n_heads"]:
    """Scores how much each head attends as a pattern says.

    Args:
        model: The model, with a tokenizer.
        seq: The text to look at; of several, scores are averaged.
        detection_pattern: What such a head would attend to, ``[pos pos]`` and lower triangular, or the name of a kind:
            one of `HEAD_NAMES`.
        heads: The heads to look at, as pairs of layer and head, or as lists of heads by layer; None means all.
        cache: Activations of the model on `seq`, without batch axis; None runs the model.
        exclude_bos: Leave attention to the first token out.
        exclude_current_token: Leave attention of tokens to themselves out.
        error_measure: See `compute_head_attention_similarity_score`.

    Returns:
        The scores; those of heads not looked at are -1.

    Raises:
        AssertionError: The sequence, the pattern or its name does not fit.
    """
    if isinstance(seq, list):
        assert cache is None, CACHE_WITH_SEQ_LIST_ERR
        of_each = [
            detect_head(
                model,
                text,
                detection_pattern,
                heads,
                exclude_bos=exclude_bos,
                exclude_current_token=exclude_current_token,
                error_measure=error_measure,
            )
            for text in seq
        ]
        return torch.stack(of_each).mean(0)
    tokens = model.to_tokens(seq)
    length = tokens.shape[-1]
    assert 1 < length <= model.cfg.n_ctx, SEQ_LEN_ERR
    pattern = _pattern_of(detection_pattern, tokens)
    assert tuple(pattern.shape) == (length, length) and is_lower_triangular(pattern), DET_PAT_NOT_SQUARE_ERR % (
        length,
        tuple(pattern.shape),
    )
    chosen = _chosen(heads, model.cfg.n_layers, model.cfg.n_heads)
    if cache is None:
        names = [f"blocks.{layer}.attn.hook_pattern" for layer in chosen]
        with torch.no_grad():
            _, run = model.run_with_cache(tokens, names_filter=names, return_type=None, remove_batch_dim=True)
        assert isinstance(run, ActivationCache)
        cache = run
    scores = torch.full((model.cfg.n_layers, model.cfg.n_heads), -1.0)
    for layer, indices in chosen.items():
        attention = cache["pattern", layer, "attn"]
        for head in indices:
            scores[layer, head] = compute_head_attention_similarity_score(
                attention[head],
                pattern.to(attention.device),
                exclude_bos=exclude_bos,
                exclude_current_token=exclude_current_token,
                error_measure=error_measure,
            )
    return scores


def _pattern_of(detection_pattern: Tensor | str, tokens: Tensor) -> Tensor:
    if isinstance(detection_pattern, Tensor):
        return detection_pattern
    makers = {
        "previous_token_head": get_previous_token_head_detection_pattern,
        "duplicate_token_head": get_duplicate_token_head_detection_pattern,
        "induction_head": get_induction_head_detection_pattern,
    }
    assert detection_pattern in makers, INVALID_HEAD_NAME_ERR % detection_pattern
    return makers[detection_pattern](tokens.cpu())


def _chosen(heads: Sequence[LayerHeadTuple] | LayerToHead | None, n_layers: int, n_heads: int) -> dict[int, list[int]]:
    if heads is None:
        return {layer: list(range(n_heads)) for layer in range(n_layers)}
    pairs = heads
    if isinstance(heads, Mapping):
        pairs = [(layer, head) for layer, of_layer in heads.items() for head in of_layer]
    by_layer: dict[int, list[int]] = {}
    for layer, head in pairs:
        by_layer.setdefault(as_layer(layer, n_layers), []).append(as_index(head, "head"))
    return by_layer


def get_previous_token_head_detection_pattern(tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "pos pos"]:
    """Marks, for each token, the one before it."""
    return torch.eye(tokens.shape[-1]).roll(1, dims=0).tril(-1)


def get_duplicate_token_head_detection_pattern(tokens: Int[Tensor, "1 pos"]) -> Float[Tensor, "pos pos"]:
    """Marks, for each token, the same token where it occurred before."""
    return (tokens[0][:, None] == tokens[0]).float().tril(-1)


def get_induction_head_detection_pattern(tokens: Int[Tensor, "1 pos"]) -> Float[Tensor, "pos pos"]:
    """Marks, for each token, those that followed the same token where it occurred before (Olsson et al. 2022)."""
    duplicates = get_duplicate_token_head_detection_pattern(tokens)
    return torch.nn.functional.pad(duplicates[:, :-1], (1, 0)).tril()


def get_supported_heads() -> None:
    """Prints the names that `detect_head` knows."""
    print(f"Supported heads: {HEAD_NAMES}")


def compute_head_attention_similarity_score(
    attention_pattern: Float[Tensor, "pos pos"],
    detection_pattern: Float[Tensor, "pos pos"],
    *,
    exclude_bos: bool,
    exclude_current_token: bool,
    error_measure: ErrorMeasure,
) -> float:
    """Scores how much an attention pattern is like another.

    "mul" is the share of the attention that falls on the detection pattern, ``sum(a * d) / sum(a)``, from 0 to 1 for
    patterns of zeros and ones; attention that is left out counts in neither sum, and of none at all the score is NaN.
    "abs" is ``1 - sum|a - d| / pos``, rounded to three digits, from -1 to 1.

    Args:
        attention_pattern: What a head attends to; left as it is.
        detection_pattern: What it is compared with.
        exclude_bos: Leave attention to the first token out.
        exclude_current_token: Leave attention of tokens to themselves out.
        error_measure: "mul" or "abs".
    """
    assert is_square(attention_pattern), f"an attention pattern is square, not {tuple(attention_pattern.shape)}"
    assert error_measure in ("mul", "abs"), f"error_measure must be 'mul' or 'abs', not {error_measure!r}"
    counts = torch.ones_like(attention_pattern)
    if exclude_bos:
        counts[:, 0] = 0
    if exclude_current_token:
        counts.fill_diagonal_(0)
    if error_measure == "mul":
        attention = attention_pattern * counts
        return float((attention * detection_pattern).sum() / attention.sum())
    difference = (attention_pattern - detection_pattern).abs() * counts
    return 1 - round(float(difference.mean() * len(difference)), 3)

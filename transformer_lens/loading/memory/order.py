"""In which order promises are kept: that of the files, so that each is read once from its beginning to its end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from transformer_lens.loading.weights import LazyTensor, Span


def in_file_order(weights: Mapping[str, LazyTensor]) -> list[str]:
    """Returns the names of weights in the order of the largest piece of a file that each is made of; others first."""
    return sorted(weights, key=lambda name: place_of(weights[name]))


def place_of(promise: LazyTensor) -> Span:
    """Returns the largest piece of a file that a promise is made of; one before all others where there is none."""
    return max(sorted(spans_of(promise)), key=lambda span: span.nbytes, default=Span(Path(), 0, 0))


def spans_of(promise: LazyTensor) -> frozenset[Span]:
    """Returns the pieces of files that a promise is made of."""
    if promise.sources:
        return frozenset().union(*(spans_of(source) for source in promise.sources))
    return frozenset(() if promise.origin.span is None else (promise.origin.span,))

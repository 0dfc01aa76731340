"""A whole model: embedding, layers, final norm, unembedding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from transformer_lens.anatomy.layer import Layer
from transformer_lens.anatomy.norm import Norm
from transformer_lens.anatomy.reader import Reader


@dataclass(frozen=True)
class Embedding:
    """``norm(multiplier * W_E[token])``, to which positions may be added.

    Attributes:
        norm: Of the embedded tokens, or None.
        multiplier: Of the rows of ``W_E``, rounded to the model's dtype.
        has_positions: There is a table ``pos_embed.W_pos``.
        adds_positions: Its rows are added to the stream.
        adds_positions_to_queries: Its rows are added to the inputs of queries and keys instead ("shortformer").
    """

    norm: Norm | None
    multiplier: float
    has_positions: bool
    adds_positions: bool
    adds_positions_to_queries: bool


@dataclass(frozen=True)
class Unembedding:
    """``cap(multiplier * (stream W_U + b_U))``.

    Attributes:
        multiplier: Of the logits.
        softcap: Logits x become ``softcap * tanh(x / softcap)``; off where not above zero.
    """

    multiplier: float
    softcap: float

    @property
    def is_linear(self) -> bool:
        """Whether logits are a linear function of the stream before the unembedding."""
        return not self.softcap > 0


NormState = Literal["none", "whole", "folded"]


@dataclass(frozen=True)
class Model:
    """What a model is made of.

    Attributes:
        embedding: Where the residual stream begins.
        layers: The blocks, in order.
        final_norm: Before the unembedding, or None.
        unembedding: Where it ends.
        norm_state: Whether norms that matrices read are there, have been folded, or never were.
    """

    embedding: Embedding
    layers: tuple[Layer, ...]
    final_norm: Norm | None
    unembedding: Unembedding
    norm_state: NormState

    def parameters(self) -> dict[str, str]:
        """Returns the axes of every parameter, by name in the model."""
        out = {"embed.W_E": "d_vocab d_model"}
        if self.embedding.norm is not None:
            out |= self.embedding.norm.parameters()
        if self.embedding.has_positions:
            out["pos_embed.W_pos"] = "n_ctx d_model"
        for layer in self.layers:
            out |= {f"{layer.prefix}{name}": axes for name, axes in layer.parameters().items()}
        if self.final_norm is not None:
            out |= self.final_norm.parameters()
        return out | {"unembed.W_U": "d_model d_vocab_out", "unembed.b_U": "d_vocab_out"}

    def readers(self) -> Iterator[tuple[str, Norm, tuple[Reader, ...]]]:
        """Yields each norm whose output only matrices read: its name in the model, itself, and those matrices."""
        for layer in self.layers:
            for norm, readers in layer.readers().items():
                yield layer.prefix + norm.name, norm, tuple(reader.inside(layer.prefix) for reader in readers)
        if self.final_norm is not None:
            yield self.final_norm.name, self.final_norm, (Reader("unembed.W_U", "unembed.b_U"),)

    def writers(self) -> tuple[str, ...]:
        """Returns the parameters that make what is written to the residual stream, by name in the model."""
        positions = ("pos_embed.W_pos",) if self.embedding.has_positions else ()
        written = (
            layer.prefix + name for layer in self.layers for branch in layer.branches for name in branch.body.writers()
        )
        return ("embed.W_E", *positions, *written)

    def stream_norms(self) -> Iterator[Norm | None]:
        """Yields every norm that the residual stream is read through; None where it is read as it is."""
        for layer in self.layers:
            yield from (branch.reads for branch in layer.branches)
        yield self.final_norm

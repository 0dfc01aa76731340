"""A layer: its branches, and how they stand around the residual stream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from transformer_lens.anatomy.attention import Attention
from transformer_lens.anatomy.mixture import Mixture
from transformer_lens.anatomy.mlp import Mlp
from transformer_lens.anatomy.norm import Norm
from transformer_lens.anatomy.reader import Reader


@dataclass(frozen=True)
class Branch:
    """``out = multiplier * writes(body(reads(stream)))``; the stream becomes ``closes(stream + out)``.

    A norm that is None is the identity.

    Attributes:
        name: "attn" or "mlp": the body's attribute, and what its hook is named after.
        body: What it computes.
        reads: Norm of the stream that the body reads.
        writes: Norm of the body's output.
        closes: Norm of the stream after the output has been added.
        multiplier: Of the output.
    """

    name: Literal["attn", "mlp"]
    body: Attention | Mlp | Mixture
    reads: Norm | None = None
    writes: Norm | None = None
    closes: Norm | None = None
    multiplier: float = 1.0

    @property
    def writes_by_one_matrix(self) -> bool:
        """Whether its output is one product of a hidden activation: a mixture's is a sum of several."""
        return not isinstance(self.body, Mixture)

    @property
    def writes_plainly(self) -> bool:
        """Whether the body's output is added to the stream as it is."""
        return self.writes is None and self.multiplier == 1.0

    def norms(self) -> Iterator[Norm]:
        """Yields the norms of the stream and of the output."""
        yield from (norm for norm in (self.reads, self.writes, self.closes) if norm is not None)


@dataclass(frozen=True)
class Layer:
    """The branches of a block, one after the other or side by side.

    Attributes:
        index: Place in the model, counted from zero.
        attention: The branch that moves information between positions.
        mlp: The other branch, or None.
        is_parallel: Both branches read the stream before the block.
    """

    index: int
    attention: Branch
    mlp: Branch | None
    is_parallel: bool = False

    @property
    def prefix(self) -> str:
        """What the names of its parameters and hooks begin with."""
        return f"blocks.{self.index}."

    @property
    def branches(self) -> tuple[Branch, ...]:
        """The branches in order."""
        return (self.attention,) if self.mlp is None else (self.attention, self.mlp)

    @property
    def has_middle(self) -> bool:
        """Whether there is a stream between its branches, ``hook_resid_mid``."""
        return self.mlp is not None and not self.is_parallel

    @property
    def adds_up(self) -> bool:
        """Whether ``resid_pre`` and what the branches write sum to ``resid_post``: no norm closes a sum."""
        return all(branch.closes is None for branch in self.branches)

    @property
    def attends(self) -> Attention:
        """What its attention computes."""
        assert isinstance(self.attention.body, Attention)
        return self.attention.body

    @property
    def computes(self) -> Mlp | Mixture | None:
        """What its MLP computes."""
        assert self.mlp is None or not isinstance(self.mlp.body, Attention)
        return None if self.mlp is None else self.mlp.body

    def branch(self, name: str) -> Branch:
        """Returns the branch "attn" or "mlp"."""
        return next(branch for branch in self.branches if branch.name == name)

    def parameters(self) -> dict[str, str]:
        """Returns the axes of each parameter of the block, by name inside the block."""
        out: dict[str, str] = {}
        for branch in self.branches:
            for norm in branch.norms():
                out |= norm.parameters()
        for branch in self.branches:
            out |= branch.body.parameters()
        return out

    def has(self, name: str) -> bool:
        """Says whether the block has a parameter, or one that goes by the name of all heads' ("attn.W_K")."""
        owner, _, leaf = name.rpartition(".")
        return not {name, f"{owner}._{leaf}"}.isdisjoint(self.parameters())

    def ours(self) -> frozenset[str]:
        """Returns the parameters that no checkpoint has, by name inside the block: zero until processing needs them."""
        return frozenset() if self.computes is None else self.computes.ours()

    def readers(self) -> dict[Norm, tuple[Reader, ...]]:
        """Returns the norms whose outputs only matrices read, each with those matrices."""
        out: dict[Norm, tuple[Reader, ...]] = {}
        for branch in self.branches:
            if branch.reads is not None:
                out[branch.reads] = branch.body.readers()
        if self.computes is not None and self.computes.inner_norm is not None:
            out[self.computes.inner_norm] = (Reader("mlp.W_out", "mlp.b_out", "d_mlp"),)
        return out

"""What an attention layer computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from transformer_lens.anatomy.norm import Norm
from transformer_lens.anatomy.reader import Reader, Writer
from transformer_lens.anatomy.rotary import Rotary


@dataclass(frozen=True)
class Attention:
    """``z[h] = softmax(mask(cap(q[h] k[h]^T / divisor))) v[h]``; it writes ``sum_h z[h] W_O[h] + b_O``.

    Attributes:
        n_heads: Heads of queries.
        n_kv_heads: Heads of keys and values.
        d_head: Width of a head.
        is_grouped: The parameters of keys and values are ``_W_K``, ``_W_V``, ``_b_K``, ``_b_V``.
        is_causal: A query sees no key behind its own position.
        window: Keys that a query sees at most, its own included; None means all.
        rotary: How queries and keys turn; None on a layer without.
        alibi: Slopes are added to the scores: "exact", or "bfloat16" where their product with the position is
            rounded (Falcon RW); None without.
        divisor: Of the scores.
        softcap: Scores s become ``softcap * tanh(s / softcap)``; off where not above zero.
        q_norm: Norm of queries, or None.
        k_norm: Norm of keys, or None.
        norms_after_rotary: Those norms see rotated queries and keys.
        clip: Queries, keys and values are clamped to plus or minus this; None means not.
        has_sinks: Each head has an extra score that takes probability and gives no value.
    """

    n_heads: int
    n_kv_heads: int
    d_head: int
    is_grouped: bool = False
    is_causal: bool = True
    window: int | None = None
    rotary: Rotary | None = None
    alibi: Literal["exact", "bfloat16"] | None = None
    divisor: float = 1.0
    softcap: float = -1.0
    q_norm: Norm | None = None
    k_norm: Norm | None = None
    norms_after_rotary: bool = False
    clip: float | None = None
    has_sinks: bool = False

    @property
    def shares_keys(self) -> bool:
        """Whether several heads have the same keys and values."""
        return self.n_kv_heads != self.n_heads

    def key_value(self, leaf: str) -> str:
        """Returns the name of a parameter of keys or values: "W_K" is "_W_K" where heads are grouped."""
        return f"_{leaf}" if self.is_grouped else leaf

    def parameters(self) -> dict[str, str]:
        """Returns the axes of each parameter, by name inside the block, in the order of registration."""
        out = {
            "attn.W_Q": "head d_model d_head",
            "attn.W_O": "head d_head d_model",
            "attn.b_Q": "head d_head",
            "attn.b_O": "d_model",
            f"attn.{self.key_value('W_K')}": "kv_head d_model d_head",
            f"attn.{self.key_value('W_V')}": "kv_head d_model d_head",
            f"attn.{self.key_value('b_K')}": "kv_head d_head",
            f"attn.{self.key_value('b_V')}": "kv_head d_head",
        }
        if self.has_sinks:
            out["attn.sinks"] = "head"
        for norm in (self.q_norm, self.k_norm):
            out |= {} if norm is None else norm.parameters()
        return out

    def readers(self) -> tuple[Reader, ...]:
        """Returns the matrices that read the layer's input, with the biases behind them."""
        names = ("W_Q", "b_Q"), *((self.key_value(f"W_{x}"), self.key_value(f"b_{x}")) for x in "KV")
        return tuple(Reader(f"attn.{matrix}", f"attn.{bias}") for matrix, bias in names)

    def writer(self) -> Writer:
        """Returns the matrix that makes the layer's output, and the bias behind it."""
        return Writer("attn.W_O", "attn.b_O")

    def writers(self) -> tuple[str, ...]:
        """Returns the parameters that make the output, by name inside the block."""
        return ("attn.W_O", "attn.b_O")

"""What every kind of attention shares."""

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transformer_lens import anatomy
from transformer_lens.cache.key_value_cache_entry import TransformerLensKeyValueCacheEntry
from transformer_lens.components.attention import masks, rotary
from transformer_lens.components.attention.fused import fused_attention
from transformer_lens.components.attention.position_tables import PositionTables
from transformer_lens.components.linear import (
    each_into_its_head,
    each_out_of_its_head,
    into_heads,
    out_of_heads,
)
from transformer_lens.components.matrix_owner import MatrixOwner
from transformer_lens.components.norms import norm_module
from transformer_lens.components.parameter import new_parameter
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.hook_points import HookPoint, is_plain
from transformer_lens.utilities.activation_functions import apply_softcap, softcap_enabled
from transformer_lens.utilities.tensors import get_offset_position_ids

Input = Float[Tensor, "batch pos d_model"] | Float[Tensor, "batch pos _ d_model"]
Queries = Float[Tensor, "batch query_pos head d_head"]
Keys = Float[Tensor, "batch key_pos any_kv_head d_head"]
Scores = Float[Tensor, "batch head query_pos key_pos"]


class AbstractAttention(PositionTables, MatrixOwner, ABC):
    """Attention up to how keys and values are shared between heads.

    ``z[h] = softmax(mask(q[h] k[h]^T / divisor)) v[h]``; the output is ``sum_h z[h] W_O[h] + b_O``.
    """

    W_K: Any
    W_V: Any
    b_K: Any
    b_V: Any
    mask: Tensor
    IGNORE: Tensor
    q_norm: Any
    k_norm: Any

    def __init__(
        self, cfg: dict | HookedTransformerConfig, attn_type: str = "global", layer_id: int | None = None
    ) -> None:
        super().__init__()
        self.cfg = HookedTransformerConfig.unwrap(cfg)
        cfg = self.cfg
        self.layer_id = layer_id
        self.attn_type = attn_type
        if attn_type not in ("global", "local"):
            raise ValueError(f"attn_type = {attn_type!r} is not 'global' or 'local'.")
        self.anatomy = anatomy.attention_of(cfg, attn_type, layer_id)
        self.W_Q = new_parameter(cfg.n_heads, cfg.d_model, cfg.d_head, dtype=cfg.dtype, order=(0, 2, 1))
        self.W_O = new_parameter(cfg.n_heads, cfg.d_head, cfg.d_model, dtype=cfg.dtype, order=(2, 0, 1))
        self.b_Q = new_parameter(cfg.n_heads, cfg.d_head, dtype=cfg.dtype, fill=0.0)
        self.b_O = new_parameter(cfg.d_model, dtype=cfg.dtype, fill=0.0)
        self.make_key_value_parameters()
        if self.anatomy.has_sinks:
            self.sinks = new_parameter(cfg.n_heads, dtype=cfg.dtype, fill=0.0)
        if self.anatomy.q_norm is not None:
            self.q_norm = norm_module(cfg, self.anatomy.q_norm)
            self.k_norm = norm_module(cfg, self.anatomy.k_norm)
        self.register_buffer("mask", torch.zeros(0, 0, dtype=torch.bool), persistent=False)
        self.register_buffer("IGNORE", torch.tensor(-torch.inf, dtype=torch.float32), persistent=False)
        self.hook_k = HookPoint("batch pos kv_head d_head")
        self.hook_q = HookPoint("batch pos head d_head")
        self.hook_v = HookPoint("batch pos kv_head d_head")
        self.hook_z = HookPoint("batch pos head d_head")
        self.hook_attn_scores = HookPoint("batch head query_pos key_pos")
        self.hook_pattern = HookPoint("batch head query_pos key_pos")
        self.hook_result = HookPoint("batch pos head d_model")
        if self.anatomy.rotary is not None:
            self.hook_rot_k = HookPoint("batch pos kv_head d_head")
            self.hook_rot_q = HookPoint("batch pos head d_head")

    @abstractmethod
    def make_key_value_parameters(self) -> None:
        """Registers the parameters of keys and values."""

    @abstractmethod
    def key_value_names(self) -> tuple[str, str, str, str]:
        """Returns the names of the weights and biases that keys and values are made with."""

    @property
    def attn_scale(self) -> float:
        """What scores are divided by."""
        return self.anatomy.divisor

    @property
    def OV(self) -> Any:
        """The heads' ``W_V W_O`` as a ``FactoredMatrix`` [head d_model d_model]."""
        from transformer_lens.FactoredMatrix import FactoredMatrix

        return FactoredMatrix(self.numbers("W_V"), self.numbers("W_O"))

    @property
    def QK(self) -> Any:
        """The heads' ``W_Q W_K^T`` as a ``FactoredMatrix`` [head d_model d_model]."""
        from transformer_lens.FactoredMatrix import FactoredMatrix

        return FactoredMatrix(self.numbers("W_Q"), self.numbers("W_K").transpose(-2, -1))

    def forward(
        self,
        query_input: Input,
        key_input: Input,
        value_input: Input,
        past_kv_cache_entry: TransformerLensKeyValueCacheEntry | None = None,
        additive_attention_mask: Float[Tensor, "#batch #head #query_pos key_pos"] | None = None,
        attention_mask: Int[Tensor, "batch offset_pos"] | None = None,
        position_bias: Float[Tensor, "#batch head query_pos key_pos"] | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """Returns what the layer writes to the residual stream.

        Args:
            query_input: What queries are made of: one residual stream, or one for every head.
            key_input: What keys are made of.
            value_input: What values are made of.
            past_kv_cache_entry: Keys and values of earlier positions; takes the new ones in.
            additive_attention_mask: Added to the scores.
            attention_mask: 1 for real tokens, 0 for padding, over cached and new positions.
            position_bias: Added to the scores.
        """
        q, k, v = self.calculate_qkv_matrices(query_input, key_input, value_input)
        q, k, v = self._with_past(q, k, v, past_kv_cache_entry, attention_mask)
        added = [bias for bias in (additive_attention_mask, position_bias) if bias is not None]
        if self._is_observed() or added or self._needs_scores():
            pattern = self._pattern(q, k, added, attention_mask)
            z = self.calculate_z_scores(v, pattern)
        else:
            z = self.hook_z(self._fused(q, k, v, attention_mask))
        if not self.cfg.use_attn_result:
            return out_of_heads(z, self.W_O, self.b_O, self.packing.get("W_O"))
        return self.hook_result(each_out_of_its_head(z, self.numbers("W_O"))).sum(-2) + self.b_O

    def calculate_qkv_matrices(
        self, query_input: Input, key_input: Input, value_input: Input
    ) -> tuple[Queries, Keys, Keys]:
        """Returns queries, keys and values, before rotation.

        Where values are clipped, `hook_v` sees them clipped: ``pattern @ v == z`` in every model.
        """
        W_K, W_V, b_K, b_V = self.key_value_names()
        q = self.hook_q(self._project(query_input, "W_Q", "b_Q"))
        k = self.hook_k(self._project(key_input, W_K, b_K))
        v = self.hook_v(self._clipped(self._project(value_input, W_V, b_V)))
        if self.anatomy.q_norm is not None and not self.anatomy.norms_after_rotary:
            q, k = self.q_norm(q), self.k_norm(k)
        return self._clipped(q), self._clipped(k), v

    def _clipped(self, x: Tensor) -> Tensor:
        """Returns queries, keys or values within the model's bounds, if it has any."""
        clip = self.anatomy.clip
        return x if clip is None else x.clamp(-clip, clip)

    def _project(self, x: Input, weight: str, bias: str) -> Tensor:
        """Returns queries, keys or values, by the names of the weight and the bias that make them."""
        b = getattr(self, bias)
        if x.ndim == 3:
            return into_heads(x, getattr(self, weight), b, self.packing.get(weight))
        if x.shape[2] != b.shape[0]:
            raise ValueError(
                f"The input holds {x.shape[2]} residual streams for {b.shape[0]} heads: grouped keys and values "
                "take one input a group; use_split_qkv_input gives that, use_attn_in does not."
            )
        return each_into_its_head(x, self.numbers(weight), b)

    def _with_past(
        self,
        q: Queries,
        k: Keys,
        v: Keys,
        entry: TransformerLensKeyValueCacheEntry | None,
        attention_mask: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns rotated queries, and rotated keys and values with those of earlier positions.

        Keys are cached rotated; where the angle depends on the length they are cached as they are, so that decoding
        token by token equals one pass.
        """
        offset = 0 if entry is None else entry.past_keys.shape[1]
        rotates = self.anatomy.rotary is not None
        late = self.anatomy.rotary is not None and self.anatomy.rotary.depends_on_length
        length = offset + q.shape[1]
        if rotates:
            q = self.apply_rotary(q, offset, attention_mask, length)
            if not late:
                k = self.apply_rotary(k, offset, attention_mask, length)
        norms_late = self.anatomy.q_norm is not None and self.anatomy.norms_after_rotary
        if norms_late:
            q, k = self.q_norm(q), k if late else self.k_norm(k)
        if rotates:
            q = self.hook_rot_q(q)
        if entry is not None:
            k, v = entry.append(k, v)
        if rotates:
            if late:
                k = self.apply_rotary(k, 0, attention_mask, length)
                k = self.k_norm(k) if norms_late else k
            elif entry is not None and not is_plain(self.hook_rot_k):
                k = k.clone()
            k = self.hook_rot_k(k)
        return q, k, v

    def apply_rotary(
        self,
        x: Float[Tensor, "batch pos head d_head"],
        past_kv_pos_offset: int = 0,
        attention_mask: Int[Tensor, "batch offset_pos"] | None = None,
        length: int | None = None,
    ) -> Float[Tensor, "batch pos head d_head"]:
        """Rotates queries or keys to their positions.

        Args:
            x: Queries or keys.
            past_kv_pos_offset: Position of the first one.
            attention_mask: Padding; positions count real tokens only.
            length: Tokens of the whole sequence.
        """
        turn = self.anatomy.rotary
        assert turn is not None
        end = past_kv_pos_offset + x.shape[1]
        cos, sin = rotary.rotary_table(turn, length or end, x.device, x.dtype)
        if attention_mask is None:
            cos, sin = cos[past_kv_pos_offset:end], sin[past_kv_pos_offset:end]
        else:
            positions = get_offset_position_ids(past_kv_pos_offset, attention_mask[:, :end]).to(x.device)
            cos, sin = cos[positions], sin[positions]
        return rotary.rotate(x, cos, sin, turn.adjacent_pairs)

    def _is_observed(self) -> bool:
        return not (is_plain(self.hook_attn_scores) and is_plain(self.hook_pattern))

    def _needs_scores(self) -> bool:
        return softcap_enabled(self.anatomy.softcap)

    def _fused(self, q: Tensor, k: Tensor, v: Tensor, attention_mask: Tensor | None) -> Tensor:
        query_length, key_length = q.shape[1], k.shape[1]
        window, causal = self.anatomy.window, self.anatomy.is_causal
        whole = attention_mask is None and (window is None or window >= key_length)
        is_causal = causal and whole and query_length == key_length and query_length > 1
        visible = None
        if not is_causal:
            visible = masks.visible_keys(query_length, key_length, window, causal, attention_mask, q.device)
        return fused_attention(
            q, k, v, visible, is_causal, self.attn_scale, bias=self._alibi(query_length, key_length, q.device),
            sinks=self.sinks if self.anatomy.has_sinks else None,
        )  # fmt: skip

    def _alibi(self, query_length: int, key_length: int, device: torch.device) -> Tensor | None:
        """Returns what ALiBi adds to the scores [head query_pos key_pos], or None."""
        if self.anatomy.alibi is None:
            return None
        rounded = self.anatomy.alibi == "bfloat16"
        bias = masks.alibi_bias(self.anatomy.n_heads, query_length, key_length, device, rounded)
        return bias / self.attn_scale if rounded else bias

    def _pattern(self, q: Tensor, k: Tensor, added: list[Tensor], attention_mask: Tensor | None) -> Scores:
        """Returns the attention pattern, through its hooks."""
        if self.cfg.dtype not in (torch.float32, torch.float64):
            q, k = q.to(torch.float32), k.to(torch.float32)
        scores = self.calculate_attention_scores(q, k)
        alibi = self._alibi(scores.shape[2], scores.shape[3], scores.device)
        scores = scores if alibi is None else scores + alibi
        for bias in added:
            scores = scores + bias.to(scores.device)
        scores = self.apply_causal_mask(scores, attention_mask=attention_mask)
        scores = self.hook_attn_scores(scores)
        unseeing = torch.isneginf(scores).all(-1, keepdim=True)
        pattern = self._softmax(scores.masked_fill(unseeing, 0.0)).masked_fill(unseeing, 0.0)
        return self.hook_pattern(pattern).to(self.cfg.dtype)

    def _softmax(self, scores: Scores) -> Scores:
        """Returns probabilities of keys; a sink takes a part of them, so that a row sums to less than one."""
        if not self.anatomy.has_sinks:
            return scores.softmax(-1)
        sinks = self.sinks.to(scores.dtype)[:, None, None].expand(*scores.shape[:-1], 1)
        return torch.cat([scores, sinks], dim=-1).softmax(-1)[..., :-1]

    def calculate_attention_scores(self, q: Queries, k: Keys) -> Scores:
        """Returns ``q k^T / divisor``, capped if the config says so."""
        group = q.shape[2] // k.shape[2]
        by_group = q.unflatten(2, (k.shape[2], group))
        scores = torch.einsum("bqkgd,bpkd->bkgqp", by_group, k).flatten(1, 2) / self.attn_scale
        return apply_softcap(scores, self.anatomy.softcap)

    def calculate_z_scores(self, v: Keys, pattern: Scores) -> Queries:
        """Returns ``pattern v``, through its hook."""
        group = pattern.shape[1] // v.shape[2]
        by_group = pattern.to(v.dtype).unflatten(1, (v.shape[2], group))
        return self.hook_z(torch.einsum("bkgqp,bpkd->bqkgd", by_group, v).flatten(2, 3))

    def apply_causal_mask(
        self,
        attn_scores: Scores,
        past_kv_pos_offset: int = 0,
        attention_mask: Int[Tensor, "batch offset_pos"] | None = None,
    ) -> Scores:
        """Puts minus infinity where a query must not see a key. Queries are the last positions of the keys.

        `past_kv_pos_offset` is upstream's argument; the offset follows from the shape of the scores.
        """
        visible = masks.visible_keys(
            attn_scores.shape[2],
            attn_scores.shape[3],
            self.anatomy.window,
            self.anatomy.is_causal,
            attention_mask,
            attn_scores.device,
        )
        if visible is None:
            return attn_scores
        if visible.ndim == 3:
            visible = visible.unsqueeze(1)
        return attn_scores.masked_fill(~visible, -math.inf)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Tensor],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        # State dicts of upstream hold masks and rotary tables: computed here, so neither wanted nor wrong.
        parameters = {name: value for name, value in state_dict.items() if name not in _computed_names(prefix)}
        super()._load_from_state_dict(
            parameters, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


def _computed_names(prefix: str) -> frozenset[str]:
    return frozenset(prefix + name for name in ("mask", "IGNORE", "rotary_sin", "rotary_cos"))

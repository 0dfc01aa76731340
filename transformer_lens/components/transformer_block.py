"""A block: attention and MLP around a residual stream."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from transformer_lens.cache.key_value_cache_entry import TransformerLensKeyValueCacheEntry
from transformer_lens.components.attention import Attention
from transformer_lens.components.attention.grouped_query import GroupedQueryAttention
from transformer_lens.components.normalization import block_norm, is_unobserved, output_norm
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.factories.mlp_factory import MLPFactory
from transformer_lens.hook_points import HookPoint
from transformer_lens.utilities.tensors import repeat_along_head_dimension

Residual = Float[Tensor, "batch pos d_model"]
BranchInput = Residual | Float[Tensor, "batch pos _ d_model"]


class TransformerBlock(nn.Module):
    """One layer.

    Serial: ``mid = pre + attn(ln1 pre)``, ``post = mid + mlp(ln2 mid)``.
    Parallel: ``post = pre + attn(ln1 pre) + mlp(ln2 pre)``.
    """

    def __init__(self, cfg: dict | HookedTransformerConfig, block_index: int) -> None:
        super().__init__()
        self.cfg = HookedTransformerConfig.unwrap(cfg)
        cfg = self.cfg
        refuse_absent_traits(cfg)
        self.ln1 = block_norm(cfg)
        if cfg.use_normalization_before_and_after:
            self.ln1_post = output_norm(cfg)
        if not cfg.attn_only:
            self.ln2 = block_norm(cfg)
            if cfg.use_normalization_before_and_after:
                self.ln2_post = output_norm(cfg)
        attention = Attention if cfg.n_key_value_heads is None else GroupedQueryAttention
        self.attn = attention(cfg, cfg.attention_type(block_index), block_index)
        if not cfg.attn_only:
            # Of any type: clients put modules of their own in its place.
            self.mlp: Any = MLPFactory.create_mlp(cfg)
        self.hook_attn_in = HookPoint()
        self.hook_q_input = HookPoint()
        self.hook_k_input = HookPoint()
        self.hook_v_input = HookPoint()
        self.hook_mlp_in = HookPoint()
        self.hook_attn_out = HookPoint()
        self.hook_mlp_out = HookPoint()
        self.hook_resid_pre = HookPoint()
        if not cfg.attn_only and not cfg.parallel_attn_mlp:
            self.hook_resid_mid = HookPoint()
        self.hook_resid_post = HookPoint()

    def forward(
        self,
        resid_pre: Residual,
        shortformer_pos_embed: Residual | None = None,
        past_kv_cache_entry: TransformerLensKeyValueCacheEntry | None = None,
        attention_mask: Int[Tensor, "batch offset_pos"] | None = None,
    ) -> Residual:
        """Returns the residual stream behind the block.

        Args:
            resid_pre: The residual stream before it.
            shortformer_pos_embed: Positions, added to the inputs of queries and keys only.
            past_kv_cache_entry: Keys and values of earlier positions.
            attention_mask: 1 for real tokens, 0 for padding, over cached and new positions.
        """
        resid_pre = self.hook_resid_pre(resid_pre)
        query_input, key_input, value_input = self._attention_inputs(resid_pre, shortformer_pos_embed)
        attn_out = self.attn(
            query_input=query_input,
            key_input=key_input,
            value_input=value_input,
            past_kv_cache_entry=past_kv_cache_entry,
            attention_mask=attention_mask,
        )
        if self.cfg.use_normalization_before_and_after:
            attn_out = self.ln1_post(attn_out)
        attn_out = self.hook_attn_out(attn_out)
        if resid_pre.device != attn_out.device:
            resid_pre = resid_pre.to(attn_out.device)
        if self.cfg.attn_only:
            return self.hook_resid_post(resid_pre + attn_out)
        if self.cfg.parallel_attn_mlp:
            return self.hook_resid_post(resid_pre + attn_out + self._mlp_out(resid_pre))
        resid_mid = self.hook_resid_mid(resid_pre + attn_out)
        return self.hook_resid_post(resid_mid + self._mlp_out(resid_mid))

    def _attention_inputs(
        self, resid_pre: Residual, shortformer_pos_embed: Residual | None
    ) -> tuple[BranchInput, BranchInput, BranchInput]:
        """Returns the normalised inputs of queries, keys and values."""
        cfg = self.cfg
        query_input: BranchInput
        if cfg.use_split_qkv_input:
            kv_heads = cfg.n_heads if cfg.ungroup_grouped_query_attention else cfg.n_kv_heads
            query_input = self.hook_q_input(repeat_along_head_dimension(resid_pre, cfg.n_heads))
            key_input = self.hook_k_input(repeat_along_head_dimension(resid_pre, kv_heads))
            value_input = self.hook_v_input(repeat_along_head_dimension(resid_pre, kv_heads))
        elif cfg.use_attn_in:
            query_input = self.hook_attn_in(repeat_along_head_dimension(resid_pre, cfg.n_heads))
            key_input = value_input = query_input
        else:
            query_input = key_input = value_input = resid_pre
        if query_input is key_input and key_input is value_input and is_unobserved(self.ln1):
            normalized = self.ln1(query_input)
            queries, keys, values = normalized, normalized, normalized
        else:
            queries, keys, values = self.ln1(query_input), self.ln1(key_input), self.ln1(value_input)
        if shortformer_pos_embed is not None:
            positions = shortformer_pos_embed
            queries = queries + (positions if queries.ndim == 3 else positions.unsqueeze(2))
            keys = keys + (positions if keys.ndim == 3 else positions.unsqueeze(2))
        return queries, keys, values

    def _mlp_out(self, residual: Residual) -> Residual:
        """Returns what the MLP writes, through its hooks."""
        mlp_in = self.hook_mlp_in(residual.clone()) if self.cfg.use_hook_mlp_in else residual
        return self.apply_mlp(self.ln2(mlp_in))

    def apply_mlp(self, normalized_resid: Residual) -> Residual:
        """Returns what the MLP writes for a normalised residual stream, through `hook_mlp_out`."""
        mlp_out = self.mlp(normalized_resid)
        if self.cfg.use_normalization_before_and_after:
            mlp_out = self.ln2_post(mlp_out)
        return self.hook_mlp_out(mlp_out)


def refuse_absent_traits(cfg: HookedTransformerConfig) -> None:
    """Raises for a config that asks for what these blocks do not do, rather than build something else.

    Raises:
        NotImplementedError: It does.
    """
    asked = {
        "num_experts": cfg.num_experts is not None,
        "clip_qkv": cfg.clip_qkv is not None,
        "use_attention_sinks": cfg.use_attention_sinks,
        "use_logn_attn": cfg.use_logn_attn,
        "use_dynamic_ntk_rope": cfg.use_dynamic_ntk_rope,
        "rotary_base_local": cfg.rotary_base_local is not None,
        "yarn_global_attn_only": cfg.yarn_global_attn_only,
        "load_in_4bit": cfg.load_in_4bit,
    }
    named = [name for name, is_asked in asked.items() if is_asked]
    if named:
        raise NotImplementedError(f"cfg sets {', '.join(named)}: this release has no model that does that.")

"""A block: attention and MLP around a residual stream."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from transformer_lens import anatomy
from transformer_lens.cache.key_value_cache_entry import TransformerLensKeyValueCacheEntry
from transformer_lens.components.attention import Attention
from transformer_lens.components.attention.grouped_query import GroupedQueryAttention
from transformer_lens.components.mlps.can_be_used_as_mlp import CanBeUsedAsMLP  # noqa: F401  upstream has it here
from transformer_lens.components.norms import LayerNorm, LayerNormPre, RMSNorm, RMSNormPre, is_unobserved, norm_module  # noqa: F401  upstream has it here
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.factories.mlp_factory import MLPFactory
from transformer_lens.hook_points import HookPoint
from transformer_lens.utilities.architectures import POST_NORM_ARCHITECTURES  # noqa: F401  upstream has it here
from transformer_lens.utilities.tensors import repeat_along_head_dimension

HookedTransformerKeyValueCacheEntry = TransformerLensKeyValueCacheEntry
Residual = Float[Tensor, "batch pos d_model"]
BranchInput = Residual | Float[Tensor, "batch pos _ d_model"]


class TransformerBlock(nn.Module):
    """One layer, as its record ``anatomy`` says.

    A branch writes ``out = multiplier * writes(body(reads(stream)))``, where a norm may be missing. Serial:
    ``mid = closes(pre + attn_out)``, ``post = closes(mid + mlp_out)``. Parallel: ``post = pre + attn_out + mlp_out``,
    both of `pre`.
    """

    ln1: nn.Module
    ln2: nn.Module
    mlp: Any

    def __init__(self, cfg: dict | HookedTransformerConfig, block_index: int) -> None:
        super().__init__()
        self.cfg = HookedTransformerConfig.unwrap(cfg)
        cfg = self.cfg
        refuse_absent_traits(cfg)
        self.anatomy = anatomy.layer_of(cfg, block_index)
        for name, norm in _norms_by_attribute(self.anatomy).items():
            self.add_module(name, norm_module(cfg, norm))
        attention = GroupedQueryAttention if self.anatomy.attends.is_grouped else Attention
        self.attn = attention(cfg, cfg.attention_type(block_index), block_index)
        if self.anatomy.mlp is not None:
            # Of any type: clients put modules of their own in its place.
            self.mlp = MLPFactory.create_mlp(cfg, block_index)
        self.hook_attn_in = HookPoint("batch pos head d_model")
        self.hook_q_input = HookPoint("batch pos head d_model")
        self.hook_k_input = HookPoint("batch pos kv_head d_model")
        self.hook_v_input = HookPoint("batch pos kv_head d_model")
        self.hook_mlp_in = HookPoint("batch pos d_model")
        self.hook_attn_out = HookPoint("batch pos d_model")
        self.hook_mlp_out = HookPoint("batch pos d_model")
        self.hook_resid_pre = HookPoint("batch pos d_model")
        if self.anatomy.has_middle:
            self.hook_resid_mid = HookPoint("batch pos d_model")
        self.hook_resid_post = HookPoint("batch pos d_model")

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
        attn_out = self.hook_attn_out(self._written(attn_out, self.anatomy.attention))
        if resid_pre.device != attn_out.device:
            resid_pre = resid_pre.to(attn_out.device)
        stream = self._closed(resid_pre + attn_out, self.anatomy.attention)
        if self.anatomy.mlp is None:
            return self.hook_resid_post(stream)
        if self.anatomy.is_parallel:
            return self.hook_resid_post(stream + self._mlp_out(resid_pre))
        resid_mid = self.hook_resid_mid(stream)
        return self.hook_resid_post(self._closed(resid_mid + self._mlp_out(resid_mid), self.anatomy.mlp))

    def _read(self, stream: BranchInput, branch: anatomy.Branch) -> BranchInput:
        """Returns a stream behind the norm that a branch reads it through."""
        name = _reading_norm(branch)
        return stream if name is None else getattr(self, name)(stream)

    def _written(self, out: Residual, branch: anatomy.Branch) -> Residual:
        """Returns what a branch adds to the stream, of what its body has computed."""
        if branch.writes is not None:
            out = getattr(self, branch.writes.name)(out)
        return out if branch.multiplier == 1.0 else out * branch.multiplier

    def _closed(self, stream: Residual, branch: anatomy.Branch) -> Residual:
        """Returns the stream behind the norm of the sum, where a branch has one."""
        return stream if branch.closes is None else getattr(self, branch.closes.name)(stream)

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
        branch = self.anatomy.attention
        name = _reading_norm(branch)
        is_shared = query_input is key_input and key_input is value_input
        if is_shared and (name is None or is_unobserved(getattr(self, name))):
            queries = keys = values = self._read(query_input, branch)
        else:
            queries, keys, values = (self._read(stream, branch) for stream in (query_input, key_input, value_input))
        if shortformer_pos_embed is not None:
            positions = shortformer_pos_embed
            queries = queries + (positions if queries.ndim == 3 else positions.unsqueeze(2))
            keys = keys + (positions if keys.ndim == 3 else positions.unsqueeze(2))
        return queries, keys, values

    def _mlp_out(self, residual: Residual) -> Residual:
        """Returns what the MLP writes, through its hooks."""
        assert self.anatomy.mlp is not None
        mlp_in = self.hook_mlp_in(residual.clone()) if self.cfg.use_hook_mlp_in else residual
        return self.apply_mlp(self._read(mlp_in, self.anatomy.mlp))

    def apply_mlp(self, normalized_resid: Residual) -> Residual:
        """Returns what the MLP writes for a normalised residual stream, through `hook_mlp_out`."""
        assert self.anatomy.mlp is not None
        return self.hook_mlp_out(self._written(self.mlp(normalized_resid), self.anatomy.mlp))


def _reading_norm(branch: anatomy.Branch) -> str | None:
    """Returns the attribute of what stands before a branch; in a model without norms it is an identity."""
    if branch.reads is not None:
        return branch.reads.name
    return None if any(branch.norms()) else {"attn": "ln1", "mlp": "ln2"}[branch.name]


def _norms_by_attribute(layer: anatomy.Layer) -> dict[str, anatomy.Norm | None]:
    """Returns the norms of a block by the attribute they stand at; ln1 and ln2 are there in every model."""
    places = ("ln1", "ln1_post", "ln2", "ln2_post") if layer.mlp is not None else ("ln1", "ln1_post")
    norms = {norm.name: norm for branch in layer.branches for norm in branch.norms()}
    return {name: norms.get(name) for name in places if name in norms or not name.endswith("_post")}


def refuse_absent_traits(cfg: HookedTransformerConfig) -> None:
    """Raises for a config that asks for what these blocks do not do, rather than build something else.

    Raises:
        NotImplementedError: It does.
    """
    named = anatomy.absent_traits(cfg)
    if named:
        raise NotImplementedError(f"cfg sets {', '.join(named)}: this release has no model that does that.")

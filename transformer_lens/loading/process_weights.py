"""Steps of processing as functions of a state dict, under upstream 3's names."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.loading.processing import (
    Flags,
    center_unembed,
    center_writing_weights,
    fold_layer_norm,
    fold_value_biases,
    refactor_attention,
)
from transformer_lens.loading.state_dicts import one_step, process

StateDict = Mapping[str, Tensor]


def _refuse_adapter(adapter: Any) -> None:
    if adapter is not None:
        raise ValueError(
            "adapter belongs to upstream's bridge, which does not exist here: give a state dict in the names of "
            "HookedTransformer, such as pretrained.weight_conversions make of a transformers model."
        )


class ProcessWeights:
    """Steps of processing as functions of a state dict; none writes into what it is given.

    Weights of attention are ``[head d_model d_head]``, biases ``[head d_head]``; a matrix without heads is
    ``[d_model d_out]``. Every step keeps the function of the model that reads its result.
    """

    @staticmethod
    def fold_layer_norm_bias_single(w_tensor: Tensor, b_tensor: Tensor, ln_bias: Tensor) -> Tensor:
        """Returns the bias of a linear map that reads a norm without its bias: ``b + ln_b @ W``."""
        return b_tensor + (w_tensor * ln_bias.unsqueeze(-1)).sum(-2)

    @staticmethod
    def fold_layer_norm_weight_single(w_tensor: Tensor, ln_weight: Tensor) -> Tensor:
        """Returns the matrix of a linear map that reads a norm without its weight: ``ln_w[:, None] * W``."""
        return w_tensor * ln_weight.unsqueeze(-1)

    @staticmethod
    def center_weight_single(w_tensor: Tensor) -> Tensor:
        """Returns a matrix without its mean over d_model, which a layer norm takes out of its input anyway."""
        return w_tensor - w_tensor.mean(-2, keepdim=True)

    @staticmethod
    def fold_layer_norm_biases(
        wq_tensor: Tensor,
        wk_tensor: Tensor,
        wv_tensor: Tensor,
        bq_tensor: Tensor,
        bk_tensor: Tensor,
        bv_tensor: Tensor,
        ln_bias: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the biases of queries, keys and values with the norm's bias in them."""
        fold = ProcessWeights.fold_layer_norm_bias_single
        return (
            fold(wq_tensor, bq_tensor, ln_bias),
            fold(wk_tensor, bk_tensor, ln_bias),
            fold(wv_tensor, bv_tensor, ln_bias),
        )

    @staticmethod
    def fold_layer_norm_weights(
        wq_tensor: Tensor, wk_tensor: Tensor, wv_tensor: Tensor, ln_weight: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the matrices of queries, keys and values with the norm's weight in them."""
        fold = ProcessWeights.fold_layer_norm_weight_single
        return fold(wq_tensor, ln_weight), fold(wk_tensor, ln_weight), fold(wv_tensor, ln_weight)

    @staticmethod
    def center_attention_weights(
        wq_tensor: Tensor, wk_tensor: Tensor, wv_tensor: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the matrices of queries, keys and values without their means over d_model."""
        center = ProcessWeights.center_weight_single
        return center(wq_tensor), center(wk_tensor), center(wv_tensor)

    @staticmethod
    def fold_layer_norm(
        state_dict: StateDict,
        cfg: HookedTransformerConfig,
        fold_biases: bool = True,
        center_weights: bool = True,
        adapter: Any = None,
    ) -> dict[str, Tensor]:
        """Returns a state dict with norms folded into what reads them.

        Args:
            state_dict: In our names.
            cfg: Of the model it belongs to.
            fold_biases: Whether the norms' biases are folded too.
            center_weights: Whether readers of layer norms lose their means over d_model.
            adapter: None; of upstream's bridge.

        Raises:
            ValueError: There is an adapter.
            LoadingError: The state dict is not of this model.
        """
        _refuse_adapter(adapter)
        return one_step(state_dict, cfg, fold_layer_norm, fold_biases=fold_biases, center_weights=center_weights)

    @staticmethod
    def center_writing_weights(
        state_dict: StateDict, cfg: HookedTransformerConfig, adapter: Any = None
    ) -> dict[str, Tensor]:
        """Returns a state dict with what writes to the residual stream centred."""
        _refuse_adapter(adapter)
        return one_step(state_dict, cfg, center_writing_weights)

    @staticmethod
    def center_unembed(
        state_dict: StateDict, cfg: HookedTransformerConfig | None = None, adapter: Any = None
    ) -> dict[str, Tensor]:
        """Returns a state dict with the unembedding centred; without a config, shapes are not checked."""
        _refuse_adapter(adapter)
        if cfg is not None:
            return one_step(state_dict, cfg, center_unembed)
        names = [name for name in ("unembed.W_U", "unembed.b_U") if name in state_dict]
        centred = {name: state_dict[name] - state_dict[name].mean(-1, keepdim=True) for name in names}
        return {**state_dict, **centred}

    @staticmethod
    def fold_value_biases(
        state_dict: StateDict, cfg: HookedTransformerConfig, adapter: Any = None
    ) -> dict[str, Tensor]:
        """Returns a state dict with value biases in the output biases."""
        _refuse_adapter(adapter)
        return one_step(state_dict, cfg, fold_value_biases)

    @staticmethod
    def refactor_factored_attn_matrices(
        state_dict: StateDict, cfg: HookedTransformerConfig, adapter: Any = None
    ) -> dict[str, Tensor]:
        """Returns a state dict with the factors of attention circuits orthogonal."""
        _refuse_adapter(adapter)
        return one_step(state_dict, cfg, refactor_attention)

    @staticmethod
    def process_weights(
        state_dict: StateDict,
        cfg: HookedTransformerConfig,
        fold_ln: bool = True,
        center_writing_weights: bool = True,
        center_unembed: bool = True,
        fold_value_biases: bool = True,
        refactor_factored_attn_matrices: bool = False,
        adapter: Any = None,
    ) -> dict[str, Tensor]:
        """Returns a processed state dict. A step that is not legal for the model is left out, as in a load.

        The result is of a model whose norms are folded where they could be: `cfg` is left as it is.
        """
        _refuse_adapter(adapter)
        flags = Flags(
            fold_ln=fold_ln,
            center_writing_weights=center_writing_weights,
            center_unembed=center_unembed,
            fold_value_biases=fold_value_biases,
            refactor_factored_attn_matrices=refactor_factored_attn_matrices,
        )
        with torch.no_grad():
            return process(state_dict, cfg, flags)[0].state_dict()

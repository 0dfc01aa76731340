"""The numbers and switches that say which transformer a `HookedTransformer` is."""

import difflib
import logging
import math
import pprint
import random
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
import torch

from transformer_lens.config.counting import count_weights
from transformer_lens.config.rope_scaling import InvalidConfigError, check_rope_scaling, upstream_rope_scaling
from transformer_lens.utilities.activation_functions import SOFTCAP_DISABLED, SUPPORTED_ACTIVATIONS
from transformer_lens.utilities.devices import device_from, get_device
from transformer_lens.utilities.dtypes import dtype_from

Number = float | int
Config = TypeVar("Config", bound="HookedTransformerConfig")


@dataclass
class HookedTransformerConfig:
    """The architecture of a model, its numerics, and where it came from.

    Shape:
        n_layers: Number of transformer blocks.
        d_model: Width of the residual stream.
        n_ctx: Longest sequence, in tokens.
        d_head: Width of one attention head.
        n_heads: Heads per layer; -1 means ``d_model // d_head``.
        n_key_value_heads: Key and value heads per layer under grouped-query attention; None means plain multi-head.
        d_mlp: Hidden width of the MLP; None means ``4 * d_model`` unless `attn_only`.
        d_vocab: Size of the input vocabulary; -1 until a tokenizer or a checkpoint says.
        d_vocab_out: Size of the output vocabulary; -1 means `d_vocab`.
        n_params: Parameters of attention and MLP weights, without biases and embeddings; derived, never read.

    Blocks:
        attn_only: The blocks have no MLP.
        parallel_attn_mlp: Attention and MLP both read ``resid_pre``, and their outputs are added together.
        normalization_type: "LN", "LNPre", "RMS", "RMSPre" or None; "Pre" has no weights, they were folded.
        use_normalization_before_and_after: Each sublayer's output is normalized too, before it is added.
        final_rms: With a layer-norm model, the last normalization is RMS.
        post_embedding_ln: A normalization follows the embedding.
        eps: Added to the variance inside each normalization.
        norm_placement: "pre", "sandwich" (before and after each sublayer), "output" (after it, before the sum) or
            "post" (after the sum); None means "sandwich" or "pre", by `use_normalization_before_and_after`.
        norm_weight: The normalizations have weights.
        norm_bias: Layer norms have biases.
        norm_weight_offset: Added to each normalization's weight in the forward pass; 1.0 for Gemma.
        norm_casts_late: RMS norms are rounded to `dtype` behind their weight, and not before it.
        has_final_norm: A normalization stands before the unembedding.
        residual_multiplier: Of what each sublayer adds to the residual stream.
        uses_rms_norm: The checkpoint's normalizations are RMS; upstream 3's name for it.
        layer_norm_folding: The normalizations' weights were folded; upstream 3's name for it.

    MLP:
        act_fn: Name of the activation function, a key of ``SUPPORTED_ACTIVATIONS``.
        gated_mlp: The MLP multiplies the activation by a second projection, ``W_gate``.
        gated_mlp_bias: That gate has a bias, ``b_gate``.
        num_experts: Experts of each mixture-of-experts layer; None means a dense MLP.
        experts_per_token: Experts that each token is sent to.
        norm_topk_prob: The chosen experts' weights are divided by their sum.
        expert_layers: Whether a layer's MLP is a mixture, for each layer; None means all, where there are experts.
        d_expert: Hidden width of an expert; None means `d_mlp`.
        router_bias: The router has a bias.
        router_scores: "softmax", "sigmoid" or "sparsemixer".
        router_correction: The router has a bias that is used for choosing experts only.
        router_groups, router_groups_chosen: Groups of experts, and how many of them a token's experts are of.
        router_multiplier: Of the chosen experts' weights.
        router_epsilon, router_floor: Added to the sum that those are divided by; the least they are divided by.
        router_jitter: Half of the relative distance of logits at which sparsemixer's experts do not share.
        router_is_precise: Scores are computed of float32 numbers, and weights are not rounded to `dtype`.
        expert_bias: Experts have biases.
        expert_clamp: Bound of both factors of an expert's product (gpt-oss); None means a plain product.
        d_shared_expert: Hidden width of an expert that sees every token; None means there is none.
        gates_shared_expert: That expert's output is multiplied by a learned number between 0 and 1.

    Attention:
        attention_dir: "causal" or "bidirectional".
        use_attn_scale: Scores are divided by `attn_scale`.
        attn_scale: The divisor of the scores; -1.0 means ``sqrt(d_head)``.
        scale_attn_by_inverse_layer_idx: Scores are further divided by the layer's number, counted from one.
        attn_scores_soft_cap: Scores s become ``cap * tanh(s / cap)``; off where not above zero.
        use_qk_norm: Queries and keys are normalized before the scores.
        qk_norm_kind: "RMS" or "LN" of each head; "LN by head", with weights of each head's own; "RMS over heads", of
            all of them at once.
        qk_norm_after_rotary: Queries and keys are rotated first, and then normalized.
        clip_qkv: Queries, keys and values are clamped to plus or minus this; None means not.
        use_logn_attn: Queries past `train_seq_length` are scaled by the logarithm of their position.
        train_seq_length: Length of the training sequences, in tokens.
        use_attention_sinks: Each head has a learned extra score that takes probability and gives no value.
        use_local_attn: Layers marked "local" in `attn_types` see a window only.
        window_size: Width of that window, in tokens, the query's own position included.
        attn_types: "global" or "local" for each layer.
        relative_attention_max_distance: Distance, in tokens, beyond which T5's position biases are equal.
        relative_attention_num_buckets: Number of T5's position biases.

    Positions:
        positional_embedding_type: "standard", "rotary", "shortformer", "alibi", "relative_positional_bias" or "none".
        rotary_dim: Rotated dimensions of each head; None means `d_head` for a rotary model.
        rotary_base: The wavelengths are ``2 pi base^(2 i / rotary_dim)`` tokens.
        rotary_base_local: The base in local layers, whose positions are then not scaled; None means `rotary_base`.
        rotary_layers: Whether queries and keys turn, for each layer; None means in all.
        rotary_adjacent_pairs: Dimensions ``(2i, 2i+1)`` turn together, rather than ``(i, i + rotary_dim / 2)``.
        rotary_scaling_factor: Positions are divided by this in global layers.
        rope_scaling: None, or ``{"rope_type": ..., ...}`` with the numbers listed in `ROPE_NUMBERS`.
        alibi_in_bfloat16: The product of slope and position is rounded to bfloat16 (Falcon RW).
        embedding_multiplier: Of the embedded tokens, rounded to `dtype`.
        use_dynamic_ntk_rope: The base grows with the sequence beyond `train_seq_length` (Qwen 1).
        use_NTK_by_parts_rope, NTK_by_parts_low_freq_factor, NTK_by_parts_high_freq_factor, NTK_by_parts_factor,
            NTK_original_ctx_len: Llama 3's scaling under upstream's names; `rope_scaling` is derived from them.
        use_yarn_rope, yarn_factor, yarn_attention_factor, yarn_beta_fast, yarn_beta_slow,
            yarn_original_max_position_embeddings, yarn_truncate: YaRN's under upstream's names, likewise.
        yarn_global_attn_only: Local layers are not scaled.

    Output:
        logit_multiplier: Of the logits, before their cap.
        output_logits_soft_cap: Logits x become ``cap * tanh(x / cap)``; off where not above zero.
        tie_word_embeddings: The checkpoint has one matrix for ``W_E`` and ``W_U``.

    Which activations are computed:
        use_attn_result: Each head's output, ``hook_result``, is computed; large.
        use_split_qkv_input: Queries, keys and values each have their own copy of the input.
        use_attn_in: Each head has its own copy of the input.
        use_hook_mlp_in: The MLP's input has a hook before its normalization.
        use_hook_tokens: The token numbers have a hook.
        use_expert_hooks: Each expert of a mixture has hook points.
        ungroup_grouped_query_attention: Keys and values are repeated to `n_heads` before their hooks.

    Numerics and placement:
        dtype: Of the parameters.
        device: Where the model lives; None means the default device.
        n_devices: GPUs that the blocks are spread over.
        load_in_4bit: The linear weights are packed in 4 bits.
        quantization_method: Name of the checkpoint's quantization; None means not quantized.

    Initialization of a model that is not loaded:
        init_weights: Parameters are initialized.
        init_mode: "gpt2", "xavier_uniform", "xavier_normal", "kaiming_uniform" or "kaiming_normal".
        initializer_range: Standard deviation, or gain; -1.0 means ``0.8 / sqrt(d_model)`` for "gpt2", else 1.0.
        seed: Seeds torch, numpy and random when the config is made; None means not.

    Origin and tokens:
        model_name: Short name of the model.
        original_architecture: Class name in the checkpoint's config.
        from_checkpoint: The weights are of one step of a training run.
        checkpoint_index: Which of the run's published steps, counted from zero.
        checkpoint_label_type: "step" or "token".
        checkpoint_value: That step's number of steps or tokens.
        tokenizer_name: Name to load the tokenizer by.
        tokenizer_prepends_bos: The tokenizer itself puts a BOS token in front; derived from the tokenizer.
        default_prepend_bos: Text gets a BOS token in front unless a call says otherwise.
        decoder_start_token_id: First token of an encoder-decoder's output.
        trust_remote_code: Code that comes with the checkpoint may run.
    """

    n_layers: int
    d_model: int
    n_ctx: int
    d_head: int
    model_name: str = "custom"
    n_heads: int = -1
    d_mlp: int | None = None
    act_fn: str | None = None
    d_vocab: int = -1
    eps: Number = 1e-5
    use_attn_result: bool = False
    use_attn_scale: bool = True
    attn_scale: Number = -1.0
    use_split_qkv_input: bool = False
    use_hook_mlp_in: bool = False
    use_attn_in: bool = False
    use_qk_norm: bool = False
    use_local_attn: bool = False
    ungroup_grouped_query_attention: bool = False
    original_architecture: str | None = None
    from_checkpoint: bool = False
    checkpoint_index: int | None = None
    checkpoint_label_type: str | None = None
    checkpoint_value: int | None = None
    tokenizer_name: str | None = None
    window_size: int | None = None
    attn_types: list[str] | None = None
    init_mode: str = "gpt2"
    normalization_type: str | None = "LN"
    device: str | torch.device | None = None
    n_devices: int = 1
    attention_dir: str = "causal"
    attn_only: bool = False
    seed: int | None = None
    initializer_range: Number = -1.0
    init_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    positional_embedding_type: str = "standard"
    final_rms: bool = False
    d_vocab_out: int = -1
    parallel_attn_mlp: bool = False
    rotary_dim: int | None = None
    n_params: int | None = None
    use_hook_tokens: bool = False
    gated_mlp: bool = False
    default_prepend_bos: bool = True
    dtype: torch.dtype = torch.float32
    tokenizer_prepends_bos: bool | None = None
    n_key_value_heads: int | None = None
    post_embedding_ln: bool = False
    rotary_base: Number = 10000
    trust_remote_code: bool = False
    rotary_adjacent_pairs: bool = False
    load_in_4bit: bool = False
    num_experts: int | None = None
    experts_per_token: int | None = None
    relative_attention_max_distance: int | None = None
    relative_attention_num_buckets: int | None = None
    decoder_start_token_id: int | None = None
    tie_word_embeddings: bool = False
    use_normalization_before_and_after: bool = False
    attn_scores_soft_cap: Number = SOFTCAP_DISABLED
    output_logits_soft_cap: Number = SOFTCAP_DISABLED
    use_NTK_by_parts_rope: bool = False
    NTK_by_parts_low_freq_factor: Number = 1.0
    NTK_by_parts_high_freq_factor: Number = 4.0
    NTK_by_parts_factor: Number = 8.0
    NTK_original_ctx_len: int = 8192
    # upstream 3's
    uses_rms_norm: bool = False
    layer_norm_folding: bool = False
    clip_qkv: Number | None = None
    use_logn_attn: bool = False
    train_seq_length: int | None = None
    use_dynamic_ntk_rope: bool = False
    rotary_base_local: Number | None = None
    rotary_scaling_factor: Number = 1.0
    quantization_method: str | None = None
    use_yarn_rope: bool = False
    yarn_factor: Number = 1.0
    yarn_attention_factor: Number = 1.0
    yarn_beta_fast: Number = 32.0
    yarn_beta_slow: Number = 1.0
    yarn_original_max_position_embeddings: int = 4096
    yarn_truncate: bool = True
    yarn_global_attn_only: bool = False
    use_attention_sinks: bool = False
    norm_topk_prob: bool = False
    # ours
    rope_scaling: dict[str, Any] | None = None
    gated_mlp_bias: bool = False
    norm_placement: str | None = None
    norm_weight: bool = True
    norm_bias: bool = True
    norm_weight_offset: Number = 0.0
    norm_casts_late: bool = False
    has_final_norm: bool = True
    qk_norm_kind: str = "RMS"
    qk_norm_after_rotary: bool = False
    rotary_layers: list[bool] | None = None
    alibi_in_bfloat16: bool = False
    expert_layers: list[bool] | None = None
    d_expert: int | None = None
    router_bias: bool = False
    router_scores: str = "softmax"
    router_correction: bool = False
    router_groups: int = 1
    router_groups_chosen: int = 1
    router_multiplier: Number = 1.0
    router_epsilon: Number = 0.0
    router_floor: Number = 0.0
    router_jitter: Number = 0.0
    router_is_precise: bool = False
    expert_bias: bool = False
    expert_clamp: Number | None = None
    d_shared_expert: int | None = None
    gates_shared_expert: bool = False
    use_expert_hooks: bool = False
    embedding_multiplier: Number = 1.0
    residual_multiplier: Number = 1.0
    logit_multiplier: Number = 1.0

    def __post_init__(self) -> None:
        """Derives what was left open, and refuses what contradicts itself.

        Raises:
            InvalidConfigError: A field that others need is missing, or has a value that nothing here knows.
        """
        if self.seed is not None:
            self.set_seed_everywhere(self.seed)
        self._derive_sizes()
        self._check_local_attention()
        self._check_mlp()
        if self.initializer_range < 0:
            self.initializer_range = 0.8 / math.sqrt(self.d_model) if self.init_mode == "gpt2" else 1.0
        if self.use_attn_scale and self.attn_scale == -1.0:
            self.attn_scale = math.sqrt(self.d_head)
        if self.rope_scaling is None:
            self.rope_scaling = upstream_rope_scaling(self.__dict__)
        check_rope_scaling(self.rope_scaling)
        self.n_params = count_weights(self)
        self.dtype = dtype_from(self.dtype)
        if self.device is None:
            self.device = get_device()
        else:
            device_from(self.device)
        if self.n_devices > 1 and torch.cuda.device_count() < self.n_devices:
            raise InvalidConfigError(
                f"n_devices is {self.n_devices}, but there are {torch.cuda.device_count()} CUDA devices"
            )
        if self.default_prepend_bos not in (True, False):
            raise InvalidConfigError(f"default_prepend_bos must be True or False, not {self.default_prepend_bos!r}")

    def _derive_sizes(self) -> None:
        if self.n_heads == -1:
            self.n_heads = self.d_model // self.d_head
            if self.d_model % self.d_head:
                logging.getLogger(__name__).warning(
                    "d_model %d is no multiple of d_head %d; n_heads was rounded down to %d",
                    *(self.d_model, self.d_head, self.n_heads),
                )
        if self.d_mlp is None and not self.attn_only:
            self.d_mlp = 4 * self.d_model
        if self.d_vocab_out == -1:
            self.d_vocab_out = self.d_vocab
        if self.positional_embedding_type == "rotary" and self.rotary_dim is None:
            self.rotary_dim = self.d_head

    def _check_local_attention(self) -> None:
        if self.use_local_attn and self.window_size is None:
            raise InvalidConfigError("window_size must be given when use_local_attn is True")
        if self.use_local_attn and self.attn_types is None:
            raise InvalidConfigError("attn_types must be given when use_local_attn is True")

    def _check_mlp(self) -> None:
        if not self.attn_only and self.act_fn is None:
            raise InvalidConfigError("act_fn must be given unless attn_only is True")
        if not self.attn_only and self.act_fn not in SUPPORTED_ACTIVATIONS:
            raise InvalidConfigError(f"act_fn is {self.act_fn!r}; known are {', '.join(SUPPORTED_ACTIVATIONS)}")
        if self.num_experts is not None and self.experts_per_token is None:
            raise InvalidConfigError("experts_per_token must be given when num_experts is")
        if self.experts_per_token is not None and self.num_experts is None:
            raise InvalidConfigError("num_experts must be given when experts_per_token is")

    @classmethod
    def unwrap(cls: type[Config], config: dict[str, Any] | Config) -> Config:
        """Makes a config of a dict; a config is returned as it is."""
        return cls.from_dict(config) if isinstance(config, dict) else config

    @classmethod
    def from_dict(cls: type[Config], config_dict: dict[str, Any]) -> Config:
        """Makes a config of its fields by name.

        Raises:
            TypeError: A name is no field.
        """
        known = [field.name for field in fields(cls)]
        for name in config_dict:
            if name not in known:
                nearest = difflib.get_close_matches(str(name), known, n=1)
                hint = f": did you mean {nearest[0]}?" if nearest else ""
                raise TypeError(f"{cls.__name__} has no field {name!r}{hint}")
        return cls(**config_dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields by name, in a new dict that holds the same values."""
        return dict(self.__dict__)

    def __repr__(self) -> str:
        return f"{type(self).__name__}:\n{pprint.pformat(self.to_dict())}"

    def set_seed_everywhere(self, seed: int) -> None:
        """Seeds the global generators of torch, random and numpy."""
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)

    @property
    def n_kv_heads(self) -> int:
        """Number of heads that keys and values have, shared or not."""
        return self.n_heads if self.n_key_value_heads is None else self.n_key_value_heads

    def attention_type(self, layer: int) -> str:
        """Returns "global" or "local" for a layer."""
        if not self.use_local_attn or self.attn_types is None:
            return "global"
        return str(self.attn_types[layer])

    def is_layer_norm_activation(self) -> bool:
        """Says whether the activation function is followed by a layer norm of its own, as in "solu_ln"."""
        return self.act_fn is not None and self.act_fn.endswith("_ln")


TransformerLensConfig = HookedTransformerConfig

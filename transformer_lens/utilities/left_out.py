"""Names of upstream that do not exist here on purpose: why, and what to use.

One table serves the errors, the test of the public surface, and the page of differences
(``python -m transformer_lens.utilities.left_out`` prints its part of it).
"""

from collections.abc import Callable

_BRIDGE = "it is part of upstream's bridge; use HookedTransformer.from_pretrained, which loads any folder or hub name"
_ENCODER = "encoders (BERT) are not part of this release; upstream transformer-lens 3.9 has them"
_T5 = "encoder-decoders (T5) are not part of this release; upstream transformer-lens 3.9 has them"
_AUDIO = "audio encoders are not part of this release; upstream transformer-lens 3.9 has them"
_SSM = "state-space models are not part of this release, whose models are transformers"
_PLUMBING = "it changes how transformers itself loads a model for the bridge; loading here does without"
_CLASSES = "it sorts models for the bridge; loading.inspect_checkpoint says what a checkpoint is, without its weights"
_PACKED = "use model.load_report and cfg.quantization_method, which say what is packed; W_Q and others read as numbers"
_SPREAD = "devices are chosen by from_pretrained(device=, n_devices=), and planned by loading.plan_load"
_TRACR = "it makes a config of the bridge; build a HookedTransformerConfig and load_state_dict what tracr compiled"
_PER_LAYER = "it reads configs for the bridge; anatomy.layer_of describes a layer of any model"
_TABLES = "tables of positions are not kept; create_alibi_bias and calculate_sin_cos_rotary make them"
_BELOW = "utilities import nothing that lies above them; it is in"

LEFT_OUT: dict[str, str] = {
    "BertNextSentencePrediction": _ENCODER,
    "HookedAudioEncoder": _AUDIO,
    "HookedEncoder": _ENCODER,
    "HookedEncoderDecoder": _T5,
    "TransformerBridge": "this project keeps HookedTransformer: use HookedTransformer.from_pretrained(...)",
    "TransformerBridgeConfig": _BRIDGE,
    "benchmarks": "it compares the bridge with transformers; use transformer_lens.verification.verify",
    "conversion_utils": _BRIDGE,
    "lit": "the Language Interpretability Tool is not wrapped here; HookedTransformer gives it logits and gradients",
    "model_bridge": "use transformer_lens.HookedTransformer.from_pretrained(...), "
    "which loads any checkpoint folder or hub name",
    "remote_module_loading": "no code that comes with a checkpoint is run here",
    "tools": "its analyses and registry belong to the bridge; "
    "use transformer_lens.patching and ActivationCache, and loading.inspect_checkpoint",
    "ActivationCache.ActivationCache.compute_ssm_effective_attention": _SSM,
    "ActivationCache.ActivationCache.compute_ssm_state": _SSM,
    "ActivationCache.ActivationCache.ssm_layers": _SSM,
    "components.BertBlock": _ENCODER,
    "components.BertEmbed": _ENCODER,
    "components.BertMLMHead": _ENCODER,
    "components.BertNSPHead": _ENCODER,
    "components.BertPooler": _ENCODER,
    "components.T5Attention": _T5,
    "components.T5Block": _T5,
    "components.TokenTypeEmbed": _ENCODER,
    "components.bert_block": _ENCODER,
    "components.bert_embed": _ENCODER,
    "components.bert_mlm_head": _ENCODER,
    "components.bert_nsp_head": _ENCODER,
    "components.bert_pooler": _ENCODER,
    "components.t5_attention": _T5,
    "components.t5_block": _T5,
    "components.token_typed_embed": _ENCODER,
    "components.abstract_attention.AbstractAttention.alibi": _TABLES,
    "components.abstract_attention.AbstractAttention.rotary_cos": _TABLES,
    "components.abstract_attention.AbstractAttention.rotary_sin": _TABLES,
    "factories.mlp_factory.GatedMLP4Bit": "GatedMLP holds packed matrices as well as plain ones",
    "factories.mlp_factory.GptOssMoE": "MoE is every mixture of experts, gpt-oss's too",
    "utilities.cache.TransformerLensKeyValueCache": f"{_BELOW} transformer_lens.cache.key_value_cache",
    "utilities.devices.transformer_lens": f"{_BELOW} transformer_lens",
    "utilities.download_file_from_hf": f"{_BELOW} transformer_lens.utils",
    "utilities.hf_utils.download_file_from_hf": f"{_BELOW} transformer_lens.utils",
    "utilities.matrix.FactoredMatrix": f"{_BELOW} transformer_lens.FactoredMatrix",
    "utils.slice": "it would hide Python's own; import transformer_lens.utilities.slice",
    "utilities.aliases": "it finds the bridge's hooks under other names; hook points here have one name each",
    "utilities.heterogeneous_config": _PER_LAYER,
    "utilities.quantization": _PACKED,
    "utilities.tracr": _TRACR,
    "weight_processing.ProcessWeights.convert_tensor_to_hf_format": _BRIDGE,
    "weight_processing.ProcessWeights.convert_tensor_to_tl_format": _BRIDGE,
    "weight_processing.ProcessWeights.distribute_weights_to_components": _BRIDGE,
    "weight_processing.ProcessWeights.extract_attention_tensors_for_folding": _BRIDGE,
}
for _module, _names, _why in (
    (
        "utilities.architectures",
        "AUDIO_ARCHITECTURES AUDIO_CLASSIFICATION_ARCHITECTURES AUDIO_TEXT_ARCHITECTURES BASE_AUTOMODEL_ARCHITECTURES "
        "MASKED_LM_ARCHITECTURES MULTIMODAL_ARCHITECTURES NO_HT_COMPARISON_ARCHITECTURES SEQ2SEQ_ARCHITECTURES "
        "VISION_ARCHITECTURES VISION_CLASSIFICATION_ARCHITECTURES VISION_MODEL_ARCHITECTURES classify_architecture "
        "classify_model_config classify_model_name get_architectures_for_config is_audio_model "
        "is_encoder_decoder_model is_masked_lm_model is_multimodal_model",
        _CLASSES,
    ),
    (
        "utilities.hf_utils",
        "autoconfig_with_remote_post_init_compat autotokenizer_with_special_token_compat call_hf_with_retry "
        "enable_hf_numeric_tower enable_hf_retry make_post_init_kwarg_tolerant",
        _PLUMBING,
    ),
    (
        "utilities.multi_gpu",
        "MIXED_CPU_GPU_ERROR MaxMemory cast_floating_params_to_dtype count_unique_devices find_embedding_device "
        "find_misplaced_modules is_mixed_cpu_gpu maybe_cast_floating_params resolve_device_map",
        _SPREAD,
    ),
    ("utilities", "count_unique_devices find_embedding_device resolve_device_map", _SPREAD),
    ("utils", "count_unique_devices find_embedding_device resolve_device_map", _SPREAD),
    ("utils", "aliases heterogeneous_config quantization tracr", _BRIDGE),
    ("loading_from_pretrained", "het_safe_view", _PER_LAYER),
    ("loading_from_pretrained", "quantization_method unreadable_weight_reason", _PACKED),
    ("pretrained.weight_conversions.mixtral", "require_readable_weight", _PACKED),
    ("pretrained.weight_conversions.olmoe", "require_readable_weight", _PACKED),
    ("pretrained.weight_conversions.openai", "require_readable_weight", _PACKED),
):
    LEFT_OUT.update({f"{_module}.{_name}": _why for _name in _names.split()})


def why_left_out(path: str) -> str | None:
    """Returns why a name of upstream is left out, by its path without ``transformer_lens.``; None where it is not.

    What lies below a path that is left out is left out with it.
    """
    parts = path.split(".")
    return next((LEFT_OUT[p] for n in range(len(parts), 0, -1) if (p := ".".join(parts[:n])) in LEFT_OUT), None)


def refusing(module: str) -> Callable[[str], object]:
    """Returns a module's ``__getattr__``: what is left out is an ImportError that says what to use.

    An AttributeError would be swallowed by ``from module import name``, and its words lost.

    Args:
        module: The module's full name.
    """
    parent = module.partition(".")[2]

    def __getattr__(name: str) -> object:
        why = why_left_out(f"{parent}.{name}" if parent else name)
        if why is not None:
            raise ImportError(f"{module}.{name} does not exist in this version: {why}.")
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return __getattr__


def refusal(module: str) -> ImportError:
    """Returns what importing a module that is left out raises, by the module's full name."""
    return ImportError(f"{module} does not exist in this version: {why_left_out(module.partition('.')[2])}.")


def table() -> str:
    """Returns the table of ``docs/differences.md``: names of one reason in one row."""
    by_reason: dict[str, list[str]] = {}
    for path, why in sorted(LEFT_OUT.items()):
        by_reason.setdefault(why, []).append(path)
    rows = [f"| {', '.join(f'`{path}`' for path in paths)} | {why} |" for why, paths in by_reason.items()]
    return "\n".join(["| left out | why, and what to use |", "|---|---|", *rows])


if __name__ == "__main__":
    print(table())

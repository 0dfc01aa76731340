"""Loading: from a checkpoint to the parameters of a module.

The verbs that most callers need are here; upstream's names of ``loading_from_pretrained`` are here too.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from transformer_lens.loading.compatibility import (
    convert_hf_model_config,
    convert_neel_model_config,
    fill_missing_keys,
    get_checkpoint_labels,
    get_num_params_of_pretrained,
    get_pretrained_model_config,
    get_pretrained_state_dict,
)
from transformer_lens.loading.compatibility import load_tokenizer_of as load_tokenizer
from transformer_lens.loading.errors import (
    CorruptCheckpointError,
    DeviceError,
    InsufficientMemoryError,
    LayoutMismatchError,
    LoadingError,
    LoadModeFallbackWarning,
    MissingTensorError,
    ProcessedCacheWarning,
    QuantizedTensorError,
    UnexpectedTensorError,
    UnhandledConfigError,
    UnknownModelError,
    UnsupportedArchitectureError,
)
from transformer_lens.loading.inspection import Inspection, inspect_checkpoint
from transformer_lens.loading.load_plan import LoadPlan, ModePlan, Option
from transformer_lens.loading.memory.arithmetic import DeviceCost
from transformer_lens.loading.memory.sizes import Memory
from transformer_lens.loading.own_weights import StateDict, prepare_state_dict
from transformer_lens.loading.plan_load import admit, plan_load
from transformer_lens.loading.pretrained import Prepared, prepare
from transformer_lens.loading.processing import Flags
from transformer_lens.loading.quantization.settings import requested as requested_quantization
from transformer_lens.loading.report import LoadReport
from transformer_lens.loading.request import Request, one_of, refuse_unknown_arguments, requested_dtype
from transformer_lens.loading.saving import save_model
from transformer_lens.loading.sources.hub import upload
from transformer_lens.loading.sources.model_names import MODEL_ALIASES, OFFICIAL_MODEL_NAMES
from transformer_lens.loading.sources.names import (
    DEFAULT_MODEL_ALIASES,
    NEED_REMOTE_CODE_MODELS,
    NON_HF_HOSTED_MODEL_NAMES,
    get_official_model_name,
    make_model_alias_map,
)
from transformer_lens.loading.supported import SupportedArchitecture, supported_architectures

if TYPE_CHECKING:
    from transformer_lens.verification.verify import verify
else:

    def verify(model_or_path: Any, **options: Any) -> Any:
        """Compares our model with transformers on the same weights: ``transformer_lens.verification.verify``."""
        # That module is above this one, since it runs models: it is looked up when it is asked for.
        return import_module("transformer_lens.verification").verify(model_or_path, **options)


__all__ = [
    "DEFAULT_MODEL_ALIASES",
    "MODEL_ALIASES",
    "NEED_REMOTE_CODE_MODELS",
    "NON_HF_HOSTED_MODEL_NAMES",
    "OFFICIAL_MODEL_NAMES",
    "CorruptCheckpointError",
    "DeviceCost",
    "DeviceError",
    "Flags",
    "Inspection",
    "InsufficientMemoryError",
    "LayoutMismatchError",
    "LoadModeFallbackWarning",
    "LoadPlan",
    "LoadReport",
    "LoadingError",
    "Memory",
    "MissingTensorError",
    "ModePlan",
    "Option",
    "Prepared",
    "ProcessedCacheWarning",
    "QuantizedTensorError",
    "Request",
    "StateDict",
    "SupportedArchitecture",
    "UnexpectedTensorError",
    "UnhandledConfigError",
    "UnknownModelError",
    "UnsupportedArchitectureError",
    "admit",
    "convert_hf_model_config",
    "convert_neel_model_config",
    "fill_missing_keys",
    "get_checkpoint_labels",
    "get_num_params_of_pretrained",
    "get_official_model_name",
    "get_pretrained_model_config",
    "get_pretrained_state_dict",
    "inspect_checkpoint",
    "load_tokenizer",
    "make_model_alias_map",
    "one_of",
    "plan_load",
    "prepare",
    "prepare_state_dict",
    "refuse_unknown_arguments",
    "requested_dtype",
    "requested_quantization",
    "save_model",
    "supported_architectures",
    "upload",
    "verify",
]

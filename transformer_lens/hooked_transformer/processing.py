"""Processing of a model that exists, and of state dicts for one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from transformer_lens import anatomy
from transformer_lens.components.matrix_owner import MatrixOwner
from transformer_lens.components.norms import folded
from transformer_lens.hooked_transformer.parts import ModelParts
from transformer_lens.hooked_transformer.rollback import rolled_back_on_error
from transformer_lens.loading import Flags
from transformer_lens.loading.compatibility import fill_missing_keys
from transformer_lens.loading.conversion.convert import collapse
from transformer_lens.loading.errors import QuantizedTensorError
from transformer_lens.loading.loaders import replace_parameters
from transformer_lens.loading.memory.ambient import plain_thread, plain_torch
from transformer_lens.loading.memory.threads import one_thread_each
from transformer_lens.loading.processing import (
    center_unembed,
    center_writing_weights,
    fold_layer_norm,
    fold_value_biases,
    refactor_attention,
)
from transformer_lens.loading.state_dicts import one_step, process
from transformer_lens.loading.weights import Held, Weights

StateDict = Mapping[str, Tensor]


class ProcessingMixin(ModelParts):
    """Changes weights and keeps the function.

    Old storage, which may be a file's or another model's, is never written to: results are new tensors in the model's
    own ``Parameter`` objects. An operation that raises, or that an interrupt ends, leaves the model as it was.
    """

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Loads a state dict, as ``nn.Module`` does, but whole or not at all.

        The parameters stay the objects that they are and get new memory: their old one, which may be a file's or
        another model's, is not written to, and is kept until everything is there.

        Args:
            state_dict: Left as it is.
            strict: Whether the names must be those of the model.
            assign: Whether the tensors themselves become the parameters (torch 2.1 and later).

        Returns:
            What ``nn.Module.load_state_dict`` returns: the names that are missing, and those that are unexpected.

        Raises:
            RuntimeError: Names or shapes do not fit.
        """
        with plain_thread(), rolled_back_on_error(self):
            if assign:
                return super().load_state_dict(state_dict, strict=strict, assign=True)
            for name, tensor in (*self.named_parameters(), *self.named_buffers()):
                if name in state_dict and type(tensor) in (nn.Parameter, Tensor):
                    tensor.data = tensor.data.clone()
            return super().load_state_dict(state_dict, strict=strict)

    def load_and_process_state_dict(
        self,
        state_dict: StateDict,
        fold_ln: bool = True,
        center_writing_weights: bool = True,
        center_unembed: bool = True,
        fold_value_biases: bool = True,
        refactor_factored_attn_matrices: bool = False,
        load_mode: str = "copy",
    ) -> None:
        """Loads a state dict in our names into the model, processed.

        Args:
            state_dict: Left as it is. What it lacks keeps the model's own value.
            fold_ln: As in ``from_pretrained``.
            center_writing_weights: As in ``from_pretrained``.
            center_unembed: As in ``from_pretrained``.
            fold_value_biases: As in ``from_pretrained``.
            refactor_factored_attn_matrices: As in ``from_pretrained``.
            load_mode: "copy": the model shares nothing with `state_dict`; "assign": what needs no change is shared.

        Raises:
            ValueError: There is no such mode.
        """
        if load_mode not in ("copy", "assign"):
            raise ValueError(f"load_mode = {load_mode!r} is not 'copy' or 'assign'.")
        flags = Flags(
            fold_ln, center_writing_weights, center_unembed, fold_value_biases, refactor_factored_attn_matrices
        )
        self._process(fill_missing_keys(self, state_dict), flags, shares=load_mode == "assign")

    def process_weights_(
        self,
        fold_ln: bool = True,
        center_writing_weights: bool = True,
        center_unembed: bool = True,
        refactor_factored_attn_matrices: bool = False,
        fold_value_biases: bool = True,
    ) -> None:
        """Processes the model's own weights, after loading or training. Optimizers keep the parameters they have."""
        flags = Flags(
            fold_ln, center_writing_weights, center_unembed, fold_value_biases, refactor_factored_attn_matrices
        )
        own = {name: parameter.detach() for name, parameter in self.named_parameters()}
        self._process(own, flags, shares=True)

    def _process(self, state_dict: StateDict, flags: Flags, shares: bool) -> None:
        packed = [name for name, module in self.named_modules() if isinstance(module, MatrixOwner) and module.packing]
        if packed:
            raise QuantizedTensorError(
                f"The weights of {', '.join(collapse(packed))} are packed: their bytes are not numbers to process.\n"
                "  Process while loading: from_pretrained(..., load_in_4bit=True) processes the model and packs it, "
                "and dequantize=True loads packed weights as numbers."
            )
        with plain_torch(), one_thread_each(), rolled_back_on_error(self, self.cfg):
            weights, cfg, _ = process(state_dict, self.cfg, flags)
            parameters = dict(self.named_parameters())
            ready: dict[str, Tensor] = {}
            for name, promise in weights.items():
                result = promise.make()
                old = parameters[name]
                if promise.held is not Held.FRESH and not shares:
                    result = result.clone()
                ready[name] = result.to(old.device, old.dtype)
            if anatomy.norm_state(cfg) != anatomy.norm_state(self.cfg):
                anatomy.mark_norms_folded(self.cfg)
                self._fold_norm_modules()
            replace_parameters(self, ready)

    def _fold_norm_modules(self) -> None:
        """Puts norms without parameters in the place of those that were folded; their hook points stay."""
        for name, _norm, _readers in anatomy.model_of(self.cfg).readers():
            owner, _, attribute = name.rpartition(".")
            self.get_submodule(owner).register_module(attribute, folded(self.get_submodule(name)))
        self.setup()

    def fill_missing_keys(self, state_dict: StateDict) -> dict[str, Tensor]:
        """Returns a state dict with the model's own values for what it lacks."""
        return fill_missing_keys(self, state_dict)

    def fold_layer_norm(
        self, state_dict: StateDict, fold_biases: bool = True, center_weights: bool = True
    ) -> dict[str, Tensor]:
        """Returns a state dict with norms folded into what reads them; `state_dict` is left as it is."""
        return self._step(state_dict, fold_layer_norm, fold_biases=fold_biases, center_weights=center_weights)

    def center_writing_weights(self, state_dict: StateDict) -> dict[str, Tensor]:
        """Returns a state dict with what writes to the residual stream centred; `state_dict` is left as it is."""
        return self._step(state_dict, center_writing_weights)

    def center_unembed(self, state_dict: StateDict) -> dict[str, Tensor]:
        """Returns a state dict with the unembedding centred; `state_dict` is left as it is."""
        return self._step(state_dict, center_unembed)

    def fold_value_biases(self, state_dict: StateDict) -> dict[str, Tensor]:
        """Returns a state dict with value biases in the output biases; `state_dict` is left as it is."""
        return self._step(state_dict, fold_value_biases)

    def refactor_factored_attn_matrices(self, state_dict: StateDict) -> dict[str, Tensor]:
        """Returns a state dict with the factors of attention circuits orthogonal; `state_dict` is left as it is."""
        return self._step(state_dict, refactor_attention)

    def _step(self, state_dict: StateDict, function: Callable[..., Weights], **options: Any) -> dict[str, Tensor]:
        return one_step(state_dict, self.cfg, function, **options)

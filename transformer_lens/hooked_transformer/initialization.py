"""Random weights for a model that is not loaded."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from transformer_lens.hooked_transformer.input_error import InputError
from transformer_lens.hooked_transformer.parts import ModelParts
from transformer_lens.utilities.initialization_utils import (
    calc_fan_in_and_fan_out,
    init_kaiming_normal_,
    init_kaiming_uniform_,
    init_xavier_normal_,
    init_xavier_uniform_,
)

_INIT_WITH_GAIN: dict[str, Callable[..., Tensor]] = {
    "xavier_uniform": init_xavier_uniform_,
    "xavier_normal": init_xavier_normal_,
    "kaiming_uniform": partial(init_kaiming_uniform_, nonlinearity="relu", mode="fan_in"),
    "kaiming_normal": partial(init_kaiming_normal_, nonlinearity="relu", mode="fan_in"),
}


class InitializationMixin(ModelParts):
    """Draws the weights of a new model."""

    @torch.no_grad()
    def init_weights(self) -> None:
        """Draws every weight matrix (every parameter with ``W_`` in its name) anew; norms and biases stay as they are.

        With g = ``cfg.initializer_range`` and f_in, f_out the numbers of inputs and outputs of a matrix,
        ``cfg.init_mode`` is one of

        * "gpt2": normal, of standard deviation g;
        * "xavier_uniform", "xavier_normal": of variance ``g² · 2 / (f_in + f_out)``;
        * "kaiming_uniform", "kaiming_normal": of variance ``g² · 2 / f_in``;
        * "muP": normal, of standard deviation ``1 / sqrt(f_in)``, and 1 for all three embeddings.

        ``cfg.seed``, if not None, seeds torch first. The same seed draws the same numbers however a parameter lies in
        memory.

        Raises:
            InputError: If the mode is none of these.
        """
        draw = self._drawing()
        if self.cfg.seed is not None:
            torch.manual_seed(self.cfg.seed)
        for name, parameter in self.named_parameters():
            if "W_" in name:
                drawn = torch.empty(parameter.shape, dtype=parameter.dtype, device=parameter.device)
                draw(name, drawn)
                parameter.copy_(drawn)

    def _drawing(self) -> Callable[[str, Tensor], object]:
        mode, gain = self.cfg.init_mode, self.cfg.initializer_range
        if mode == "gpt2":
            return lambda name, weight: nn.init.normal_(weight, std=gain)
        if mode in _INIT_WITH_GAIN:
            return lambda name, weight: _INIT_WITH_GAIN[mode](weight, gain=gain)
        if mode == "muP":
            return lambda name, weight: nn.init.normal_(
                weight, std=1.0 if "embed" in name else calc_fan_in_and_fan_out(weight)[0] ** -0.5
            )
        raise InputError(f"init_mode is {mode!r}; it can be 'gpt2', 'muP', {', '.join(map(repr, _INIT_WITH_GAIN))}.")

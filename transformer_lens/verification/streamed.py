"""A model whose weights are there one part at a time: filled before the part runs, let go behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from transformer_lens.loading.memory.fresh import give_back
from transformer_lens.loading.weights import Weights


class Streamed:
    """Fills the parts of a model while they run.

    Parts are the blocks, each as a whole, and outside the blocks every module that has parameters of its own. What is
    mapped costs nothing; what has another dtype in the file is made for the part and goes with it. A model that is
    there as a whole is streamed with no weights: then nothing is done.

    Attributes:
        model: The model; a parameter that has a promise is on the meta device while it is not needed.
    """

    def __init__(self, model: nn.Module, blocks: Sequence[nn.Module] = (), weights: Weights | None = None) -> None:
        """Notes which parameters belong to which part, and lets go of those that have a promise.

        Args:
            model: What is run.
            blocks: Modules that are filled as a whole.
            weights: By the names of the model's parameters.
        """
        self.model = model
        self._weights = Weights() if weights is None else weights
        part_of = {module: block for block in blocks for module in block.modules()}
        self._slots: dict[nn.Module, list[tuple[nn.Module, str, str]]] = {}
        self._holders: dict[nn.Module, int] = {}
        for prefix, owner in model.named_modules():
            for leaf in owner._parameters:
                name = f"{prefix}.{leaf}" if prefix else leaf
                if name in self._weights:
                    self._slots.setdefault(part_of.get(owner, owner), []).append((owner, leaf, name))
        for part in self._slots:
            self._empty(part)

    @contextmanager
    def holding(self, part: nn.Module) -> Iterator[None]:
        """Has the weights of a part in memory inside the block."""
        self._fill(part)
        try:
            yield
        finally:
            self._let_go(part)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Fills each part whenever it is called inside the block."""
        with ExitStack() as hooks:
            for part in self._slots:
                before = part.register_forward_pre_hook(lambda module, args: self._fill(module))
                hooks.callback(before.remove)
                after = part.register_forward_hook(lambda module, args, output: self._let_go(module))
                hooks.callback(after.remove)
            yield

    def _fill(self, part: nn.Module) -> None:
        self._holders[part] = self._holders.get(part, 0) + 1
        if self._holders[part] == 1:
            for owner, leaf, name in self._slots.get(part, ()):
                owner._parameters[leaf] = nn.Parameter(self._weights[name].make().detach(), requires_grad=False)

    def _let_go(self, part: nn.Module) -> None:
        self._holders[part] -= 1
        if self._holders[part] == 0 and part in self._slots:
            self._empty(part)
            give_back()

    def _empty(self, part: nn.Module) -> None:
        for owner, leaf, name in self._slots[part]:
            promise = self._weights[name]
            meta = torch.empty(promise.shape, dtype=promise.dtype, device="meta")
            owner._parameters[leaf] = nn.Parameter(meta, requires_grad=False)

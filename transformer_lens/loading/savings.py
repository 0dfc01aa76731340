"""What other arguments would have saved."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from transformer_lens.loading.loaders.choose import can_assign
from transformer_lens.loading.report import gib
from transformer_lens.loading.weights import Held, LazyTensor, Weights, element_size

_WORTH_SAYING = 1 << 20
_UNPROCESSED = "from_pretrained_no_processing with dtype='auto'"


@dataclass(frozen=True)
class Savings:
    """The memory that a load allocates, and that the same load with other arguments would.

    Compared are the same tensors: those that are numbers in both loads. A matrix that is packed on load is packed under
    any other argument here, and so saves nothing.

    Attributes:
        loaded: The promises that are kept.
        found: What the checkpoint has for them.
        steps: Steps of processing that are done.
        mode: "assign" or "copy".
        is_state_dict: Whether the weights are the caller's own, which no `from_pretrained` loads.
    """

    loaded: Weights
    found: Weights
    steps: tuple[str, ...]
    mode: str
    is_state_dict: bool = False

    def sentences(self) -> tuple[str, ...]:
        """Returns what each change would save, a sentence each; changes that save next to nothing are left out."""
        dtype, file_dtype = self.loaded["embed.W_E"].dtype, self.found["embed.W_E"].dtype
        assigns, converts = self.mode == "assign", dtype != file_dtype
        now = self.allocated()
        unprocessed = "no step with dtype='auto'" if self.is_state_dict else _UNPROCESSED
        out: list[tuple[int, str]] = []
        if converts:
            what = "keeps the checkpoint's" if self.steps or not assigns else f"would {self._verb()}"
            why = str(dtype).removeprefix("torch.")
            out.append((now - self.allocated(file_dtype=file_dtype), f"because {why}: dtype='auto' {what}"))
        if self.steps and assigns:
            saved = now - self.allocated(file_dtype=file_dtype, processed=False)
            why = f"because weights are processed ({', '.join(self.steps)})"
            out.append((saved, f"{why}: {unprocessed} would {self._verb()}"))
        if not assigns and can_assign():
            saved = now - self.allocated(mode="assign")
            out.append((saved, f"because load_mode='copy': load_mode='assign' would {self._verb()}"))
            if self.steps or converts:
                saved = now - self.allocated(file_dtype=file_dtype, processed=False, mode="assign")
                changed = unprocessed if self.steps else "dtype='auto'"
                out.append((saved, f"in all: {changed}, load_mode='assign' would {self._verb()}"))
        return tuple(f"{gib(saved)} {sentence}" for saved, sentence in out if saved >= _WORTH_SAYING)

    def allocated(self, file_dtype: torch.dtype | None = None, processed: bool = True, mode: str | None = None) -> int:
        """Returns the bytes that parameters which are numbers allocate.

        Args:
            file_dtype: The dtype to load in, that of the checkpoint; None for the one that was asked for.
            processed: Whether the steps are done. What a step might have changed counts as changed.
            mode: "assign" or "copy"; None for the one that is taken.
        """
        total = 0
        for name, tensor in {**(self.found if not processed else {}), **self.loaded}.items():
            if tensor.packed is None and self.found[name].packed is None:
                dtype = file_dtype if file_dtype is not None and tensor.dtype.is_floating_point else tensor.dtype
                if not self._is_free(tensor, self.found[name], dtype, processed, mode or self.mode):
                    total += tensor.numel * element_size(dtype)
        return total

    def _is_free(self, now: LazyTensor, found: LazyTensor, dtype: torch.dtype, processed: bool, mode: str) -> bool:
        if mode == "copy":
            return False
        as_it_is = found.held is not Held.FRESH and found.dtype == dtype
        if processed and self.steps and now.held is Held.FRESH:
            return False
        return as_it_is and now.device == found.device

    def _verb(self) -> str:
        kinds = {tensor.held for tensor in self.found.values() if tensor.held is not Held.FRESH}
        if kinds == {Held.BORROWED}:
            return "share its tensors" if self.is_state_dict else "share the model's tensors"
        packs = any(new.packed is not None and self.found[name].packed is None for name, new in self.loaded.items())
        return "map what is not packed" if packs else "map the file"

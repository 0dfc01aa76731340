"""Where the model lies, and in which dtype."""

from typing import TypeVar

import torch

from transformer_lens.hooked_transformer.parts import ModelParts
from transformer_lens.hooked_transformer.rollback import rolled_back_on_error
from transformer_lens.utilities import devices

T = TypeVar("T", bound="PlacementMixin")

DTYPE_FROM_STRING: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "float16": torch.float16,
    "fp16": torch.float16,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
}


class PlacementMixin(ModelParts):
    """Moves and casts the model, and keeps ``cfg.device`` and ``cfg.dtype`` true."""

    def to(self: T, device_or_dtype: torch.device | str | torch.dtype, print_details: bool = True) -> T:  # type: ignore[override]
        """Moves or casts every parameter, and writes the new device or dtype to ``cfg``.

        Where that fails, or an interrupt ends it, the model is as it was: old memory is kept until all of the new is
        there.

        Args:
            device_or_dtype: A device, its name, or a dtype.
            print_details: Whether the move is printed.

        Returns:
            The model itself.
        """
        with rolled_back_on_error(self, self.cfg):
            devices.move_to_and_update_config(self, device_or_dtype, print_details)
        return self

    def cuda(self: T, device: int | str | torch.device | None = None) -> T:
        """Moves the model to a CUDA device; None is the current one."""
        if device is None:
            return self.to("cuda")
        return self.to(f"cuda:{device}" if isinstance(device, int) else device)

    def cpu(self: T) -> T:
        """Moves the model to the CPU."""
        return self.to(torch.device("cpu"))

    def mps(self: T) -> T:
        """Moves the model to the Apple GPU."""
        return self.to(torch.device("mps"))

    def float(self: T) -> T:
        """Casts the model to float32."""
        return self.to(torch.float32, print_details=False)

    def double(self: T) -> T:
        """Casts the model to float64."""
        return self.to(torch.float64, print_details=False)

    def half(self: T) -> T:
        """Casts the model to float16."""
        return self.to(torch.float16, print_details=False)

    def bfloat16(self: T) -> T:
        """Casts the model to bfloat16."""
        return self.to(torch.bfloat16, print_details=False)

    def move_model_modules_to_device(self) -> None:
        """Puts each module where ``cfg.device`` and ``cfg.n_devices`` say.

        The embeddings lie with the first block, the final norm and the unembedding with the last. Parameters that are
        there already are not touched.
        """
        modules = dict(self.named_children())
        blocks = modules.pop("blocks")
        last = {"ln_final", "unembed"}
        for name, module in modules.items():
            module.to(self.device_of_block(self.cfg.n_layers - 1 if name in last else 0))
        for index, block in enumerate(blocks.children()):
            block.to(self.device_of_block(index))

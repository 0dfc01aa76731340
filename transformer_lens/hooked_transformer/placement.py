"""Where the model lies, and in which dtype."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from transformer_lens.hooked_transformer.input_error import InputError
from transformer_lens.hooked_transformer.parts import ModelParts
from transformer_lens.hooked_transformer.rollback import rolled_back_on_error
from transformer_lens.utilities.devices import device_from, same_device, warn_if_mps, why_not_here
from transformer_lens.utilities.dtypes import DTYPE_FROM_STRING, dtype_from

__all__ = ["DTYPE_FROM_STRING", "PlacementMixin"]

T = TypeVar("T", bound="PlacementMixin")


class PlacementMixin(ModelParts):
    """Moves and casts the model. ``cfg.device`` and ``cfg.dtype`` follow, whoever moves or casts it, and by what."""

    def to(  # type: ignore[override]
        self: T,
        *args: Any,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | str | None = None,
        non_blocking: bool = False,
        memory_format: torch.memory_format | None = None,
        tensor: Tensor | None = None,
        device_or_dtype: torch.device | str | int | torch.dtype | Tensor | None = None,
        print_details: bool = True,
    ) -> T:
        """Moves and casts every parameter, as ``nn.Module.to`` does, and says so.

        Where that fails, or an interrupt ends it, the model is as it was: old memory is kept until all of the new is
        there.

        Args:
            *args: What ``nn.Module.to`` takes: a device, or a device and a dtype; a dtype; or a tensor whose device and
                dtype to take; then `non_blocking`. A bool behind a device is `print_details`, as in earlier releases.
            device: Where to.
            dtype: What to cast to, or its name.
            non_blocking: The copy from pinned memory need not be waited for.
            memory_format: Of four- and five-dimensional parameters; a language model has none.
            tensor: Has the device and the dtype to take.
            device_or_dtype: The first argument by its name in earlier releases.
            print_details: Whether the move is printed.

        Returns:
            The model itself.

        Raises:
            InputError: The device is not here, or models do not compute in the dtype; nothing has changed.
            TypeError: The arguments are not such.
        """
        rest = list(args) if device_or_dtype is None else [device_or_dtype, *args]
        if rest and isinstance(rest[-1], bool):
            flag = rest.pop()
            print_details = print_details and flag
            non_blocking = non_blocking or (flag and not (len(rest) == 1 and _is_device(rest[0])))
        for given in rest:
            if isinstance(given, Tensor) and tensor is None and len(rest) == 1:
                tensor = given
            elif isinstance(given, torch.dtype) and dtype is None:
                dtype = given
            elif (_is_device(given) or given is None) and device is None and given is rest[0]:
                device = given
            else:
                raise TypeError(f"to() takes a device and a dtype, a dtype or a tensor, not {args!r}.")
        if tensor is not None:
            if device is not None or dtype is not None:
                raise TypeError("to() takes a tensor, or a device and a dtype, not both.")
            device, dtype = tensor.device, tensor.dtype
        where = None if device is None else _usable(device)
        what = None if dtype is None else _computed_in(dtype)
        if where is not None:
            warn_if_mps(where)
        with rolled_back_on_error(self, self.cfg):
            torch.nn.Module.to(self, where, what, non_blocking, **_format(memory_format))
            if where is not None:
                # In the caller's spelling: "cuda" is the current GPU, whichever that is.
                self.cfg.device = str(device) if isinstance(device, str) else str(where)
        if print_details and where is not None:
            print(f"Moving model to device:  {self.cfg.device}")
        if print_details and what is not None:
            print(f"Changing model dtype to {what}")
        return self

    def _apply(self: T, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> T:
        """Moves or casts: everything that does, a parent module's ``to`` included, comes through here."""
        dtypes: dict[torch.dtype, torch.dtype] = {}
        devices: dict[torch.device, torch.device] = {}

        def noting(tensor: Tensor) -> Any:
            out = fn(tensor)
            if tensor.is_floating_point() and isinstance(out, Tensor):
                dtypes[tensor.dtype] = out.dtype
                devices[tensor.device] = out.device
            return out

        super()._apply(noting, *args, **kwargs)
        self._refresh(dtypes, devices)
        return self

    def _refresh(self, dtypes: dict[torch.dtype, torch.dtype], devices: dict[torch.device, torch.device]) -> None:
        """Makes the config say what the parameters have become."""
        cast_to = {new for old, new in dtypes.items() if new != old}
        if len(cast_to) == 1:
            self.cfg.dtype = cast_to.pop()
        moved_to = set(devices.values())
        if len(moved_to) == 1 and any(new != old for old, new in devices.items()):
            # All of it lies in one place now.
            self.cfg.n_devices = 1
            found = moved_to.pop()
            if self.cfg.device is None or not same_device(self.cfg.device, found):
                self.cfg.device = str(found)

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


def _is_device(value: object) -> bool:
    return isinstance(value, (torch.device, str, int)) and not isinstance(value, bool)


def _format(memory_format: torch.memory_format | None) -> dict[str, torch.memory_format]:
    return {} if memory_format is None else {"memory_format": memory_format}


def _usable(device: torch.device | str | int) -> torch.device:
    """Returns a device that is here.

    Raises:
        InputError: It is not, or is none.
    """
    try:
        found = device_from(device)
    except ValueError as fact:
        raise InputError(str(fact)) from None
    refuse_absent_device(found)
    return found


def refuse_absent_device(device: torch.device | str | None) -> None:
    """Raises for a device that is not here.

    Raises:
        InputError: It is not.
    """
    reason = None if device is None else why_not_here(torch.device(device))
    if reason is not None:
        raise InputError(reason)


def _computed_in(dtype: torch.dtype | str) -> torch.dtype:
    """Returns a dtype that models compute in.

    Raises:
        InputError: It is none.
    """
    try:
        return dtype_from(dtype)
    except ValueError as fact:
        raise InputError(str(fact)) from None

"""The plan of a load, and the refusal of one that cannot fit; nothing is read but headers and configs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from transformer_lens.loading.errors import InsufficientMemoryError
from transformer_lens.loading.load_plan import LoadPlan, ModePlan, Option, describe
from transformer_lens.loading.loaders import can_assign
from transformer_lens.loading.memory.arithmetic import MAIN_MEMORY, cost_of
from transformer_lens.loading.memory.sizes import Memory, memory_of
from transformer_lens.loading.placement.devices import require_devices
from transformer_lens.loading.pretrained import Prepared, prepare
from transformer_lens.loading.quantization import bitsandbytes
from transformer_lens.loading.quantization.settings import requested
from transformer_lens.loading.report import gib
from transformer_lens.loading.request import Request, refuse_absent_device

# Arguments as from_pretrained names them.
Arguments = Mapping[str, Any]
_NO_PROCESSING: Arguments = dict.fromkeys(
    (
        "fold_ln",
        "center_writing_weights",
        "center_unembed",
        "fold_value_biases",
        "refactor_factored_attn_matrices",
    ),
    False,
)


def plan_load(request: Request, memory: Memory | None = None) -> LoadPlan:
    """Plans a load: what it takes in every mode, on every device, and what other arguments would take.

    Args:
        request: The load. Its devices need not be here.
        memory: What can be had: a size of main memory ("16GiB"), or sizes by device; None asks this machine.

    Raises:
        LoadingError: What the load itself would raise before it reads a number.
        ValueError: `memory` is no size.
    """
    told = memory_of(memory)
    return plan_of(prepare(replace(request, fetch="none")), told)


def admit(request: Request) -> Prepared:
    """Returns a load that is decided and that fits; `check_memory` says whether the second is asked.

    Files that are not here are not fetched for a load that cannot fit, where their headers can be had without them.

    Raises:
        InsufficientMemoryError: The load cannot fit.
        DeviceError: The device is not here.
        InvalidConfigError: There are fewer devices than were asked for.
        LoadingError: Of the kind that ``docs/errors.md`` lists.
    """
    refuse_absent_device(request)
    require_devices(request.n_devices)
    if not request.check_memory:
        return prepare(request)
    prepared = prepare(replace(request, fetch="rest"))
    refuse_what_does_not_fit(prepared)
    return prepare(request) if prepared.checkpoint.remote else prepared


def plan_of(prepared: Prepared, memory: Mapping[str, int] | None = None) -> LoadPlan:
    """Returns the plan of a load that is decided; `memory` as :func:`cost_of` takes it."""
    modes = ("assign", "copy") if can_assign() else ("copy",)
    plans = {mode: _mode_plan(prepared, mode, memory) for mode in modes}
    options = options_of(prepared, plans[prepared.choice.mode], memory)
    return LoadPlan(prepared.report(), plans, options, prepared.checkpoint.remote)


def refuse_what_does_not_fit(prepared: Prepared, with_options: bool = True) -> None:
    """Raises before anything is read for a load that cannot fit.

    Args:
        prepared: The load.
        with_options: Whether other arguments are planned, and named with what they would take.

    Raises:
        InsufficientMemoryError: The peak is more than can be had, of main memory or of a GPU.
    """
    plan = _mode_plan(prepared, prepared.choice.mode)
    if plan.fits:
        return
    lines = [f"{prepared.checkpoint.label} does not fit, and nothing was read:"]
    for cost in plan.devices:
        if not cost.fits and cost.available is not None:
            lines.append(
                f"  needs {gib(cost.peak)} of {cost.place} at its peak ({gib(cost.allocated)} of it for good), and "
                f"{gib(cost.available)} can be had."
            )
    if with_options:
        lines += [f"  {describe(option)}" for option in options_of(prepared, plan)]
    raise InsufficientMemoryError("\n".join(lines) + "\n  check_memory=False loads all the same.")


def options_of(prepared: Prepared, taken: ModePlan, memory: Mapping[str, int] | None = None) -> tuple[Option, ...]:
    """Returns what other arguments would take, each planned in full; those that fit first, then by what they take.

    An option that takes no less is left out, unless it fits where the load as asked for does not.
    """
    out: list[Option] = []
    for arguments in _candidates(prepared):
        other = prepared.instead(_with(prepared.request, arguments))
        plan = _mode_plan(other, other.choice.mode, memory)
        option = Option(arguments, plan, taken.peak - plan.peak)
        if option.saves > taken.peak // 100 or (plan.fits and not taken.fits):
            out.append(option)
    return tuple(sorted(out, key=lambda option: (not option.fits, option.plan.peak)))


def _mode_plan(prepared: Prepared, mode: str, memory: Mapping[str, int] | None = None) -> ModePlan:
    return ModePlan(mode, cost_of(prepared.weights, mode, prepared.tied(), memory))


def _candidates(prepared: Prepared) -> Iterator[Arguments]:
    """Yields each single change that may save, and all of those that keep the model where it is together."""
    together: dict[str, Any] = {}
    for change in _CHANGES:
        found = change(prepared)
        if found is not None:
            together.update(found)
            yield found
            if len(together) > len(found):
                yield dict(together)
    yield from _elsewhere(prepared)


def _assigned(prepared: Prepared) -> Arguments | None:
    return {"load_mode": "assign"} if prepared.choice.mode == "copy" and can_assign() else None


def _in_the_dtype_of_the_file(prepared: Prepared) -> Arguments | None:
    found = prepared.converted.weights
    differs = any(found[name].dtype != promise.dtype for name, promise in prepared.weights.items())
    return {"dtype": "auto"} if prepared.request.dtype is not None and differs else None


def _unprocessed(prepared: Prepared) -> Arguments | None:
    asked = prepared.request.flags
    names = [name for name in _NO_PROCESSING if name in vars(asked) and vars(asked)[name]]
    return {name: _NO_PROCESSING[name] for name in names} if prepared.plan.steps else None


def _packed_in_4_bits(prepared: Prepared) -> Arguments | None:
    is_packed = any(tensor.packed is not None for tensor in prepared.weights.values())
    can = bitsandbytes.multiplies_on(torch.device(prepared.cfg.device or MAIN_MEMORY))
    return {"load_in_4bit": True} if can and not is_packed and not prepared.request.dequantize else None


# What may save: each looks at a load and returns other arguments for it, or None where they mean nothing.
_CHANGES: tuple[Callable[[Prepared], Arguments | None], ...] = (
    _assigned,
    _in_the_dtype_of_the_file,
    _unprocessed,
    _packed_in_4_bits,
)


def _elsewhere(prepared: Prepared) -> Iterator[Arguments]:
    """Yields other devices."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    kind = torch.device(prepared.cfg.device or MAIN_MEMORY).type
    if kind == "cuda":
        for n_devices in range(prepared.request.n_devices + 1, min(count, prepared.cfg.n_layers) + 1):
            yield {"n_devices": n_devices}
        yield {"device": "cpu", **({"n_devices": 1} if prepared.request.n_devices > 1 else {})}
    elif kind == MAIN_MEMORY and count:
        yield {"device": "cuda"}
        for n_devices in range(2, min(count, prepared.cfg.n_layers) + 1):
            yield {"device": "cuda", "n_devices": n_devices}
    elif kind not in (MAIN_MEMORY, "meta"):
        yield {"device": "cpu"}


def _with(request: Request, arguments: Arguments) -> Request:
    """Returns a request with other arguments of ``from_pretrained``."""
    changes = {name: value for name, value in arguments.items() if name not in _NO_PROCESSING}
    flags = {name: value for name, value in arguments.items() if name in _NO_PROCESSING}
    if changes.pop("load_in_4bit", False):
        changes["quantize"] = requested(None, load_in_4bit=True, load_in_8bit=None)
    if "dtype" in changes:
        changes["dtype"] = None
    return replace(request, **changes, flags=replace(request.flags, **flags))

"""``LoadPlan``: what a load would take, for every load mode and device, and what other arguments would take."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from transformer_lens.loading.conversion.convert import collapse
from transformer_lens.loading.memory.arithmetic import DeviceCost
from transformer_lens.loading.report import LoadReport, as_html, gib, shortened


@dataclass(frozen=True)
class ModePlan:
    """What one load mode takes.

    Attributes:
        mode: "assign" or "copy".
        devices: What it takes of each device, main memory first.
    """

    mode: str
    devices: tuple[DeviceCost, ...]

    @property
    def fits(self) -> bool:
        """Whether it fits on every device."""
        return all(cost.fits for cost in self.devices)

    @property
    def is_known(self) -> bool:
        """Whether it is known what can be had of every device of which something is taken."""
        return all(cost.available is not None or not cost.peak for cost in self.devices)

    @property
    def main(self) -> DeviceCost:
        """What it takes of main memory."""
        return self.devices[0]

    @property
    def peak(self) -> int:
        """Bytes that are taken at most, all devices together."""
        return sum(cost.peak for cost in self.devices)


@dataclass(frozen=True)
class Option:
    """The same load with other arguments, planned like the first.

    Attributes:
        arguments: What is changed, by the names that ``from_pretrained`` has for it.
        plan: What it takes, in the mode it would be done in.
        saves: Bytes of the peak, all devices together, that it takes less; negative where it only takes them elsewhere.
    """

    arguments: Mapping[str, Any]
    plan: ModePlan
    saves: int

    @property
    def fits(self) -> bool:
        """Whether it fits on every device."""
        return self.plan.fits

    @property
    def call(self) -> str:
        """The changed arguments as they are written in a call."""
        flags = [name for name, value in self.arguments.items() if value is False]
        words = ["from_pretrained_no_processing"] if flags else []
        return ", ".join(
            [*words, *(f"{name}={value!r}" for name, value in self.arguments.items() if name not in flags)]
        )


@dataclass(frozen=True, repr=False)
class LoadPlan:
    """What a load would take, before a number is read. ``print(plan)`` shows it; its repr is a line.

    Attributes:
        report: The facts that the load's report would have; its seconds are those of planning.
        modes: By load mode; without "assign" where this torch cannot.
        options: Other arguments that would take less, those that fit first.
        remote: Files that are not here: their headers were read where they are.
    """

    report: LoadReport
    modes: Mapping[str, ModePlan]
    options: tuple[Option, ...]
    remote: tuple[str, ...] = ()

    @property
    def taken(self) -> ModePlan:
        """The plan of the mode that the load would be done in."""
        return self.modes[self.report.load_mode]

    @property
    def fits(self) -> bool:
        """Whether the load would fit."""
        return self.taken.fits

    def as_dict(self) -> dict[str, Any]:
        """Returns everything as data that JSON can hold."""
        return {
            "label": self.report.label,
            "load_mode": self.report.load_mode,
            "fits": self.fits,
            "modes": {mode: _mode_as_dict(plan) for mode, plan in self.modes.items()},
            "options": [
                {
                    "arguments": dict(option.arguments),
                    "saves": option.saves,
                    **_mode_as_dict(option.plan),
                }
                for option in self.options
            ],
            "remote": list(self.remote),
            "report": self.report.to_dict(),
        }

    def to_json(self, indent: int | None = None) -> str:
        """Returns everything as JSON."""
        return json.dumps(self.as_dict(), indent=indent)

    def __repr__(self) -> str:
        report, taken = self.report, self.taken
        fits = "does not fit" if not self.fits else "fits" if taken.is_known else "may fit"
        peaks = ", ".join(f"{gib(cost.peak)} of {cost.place}" for cost in taken.devices if cost.peak)
        return (
            f"<LoadPlan of {shortened(report.label)} ({report.architecture}, {report.source}): {fits}: {taken.mode}, "
            f"{report.dtype} on {report.device}, {shortened(peaks) or 'next to nothing'} at the peak, "
            f"{len(self.options)} other ways; print it for more>"
        )

    def _repr_html_(self) -> str:
        return as_html(repr(self), str(self))

    def __str__(self) -> str:
        report = self.report
        revision = f", revision {report.revision}" if report.revision else ""
        lines = [
            f"{report.label} ({report.architecture}, {report.source}{revision})",
            f"  {report.dtype} on {report.device}, checkpoint in {report.source_dtype}",
        ]
        if report.io:
            lines.append(f"  files: {report.io}")
        if self.remote:
            lines.append(f"  not here, only their headers were read: {', '.join(collapse(self.remote))}")
        for mode, plan in self.modes.items():
            taken = f"  <- {report.reason}" if plan is self.taken else ""
            lines.append(f"  {mode}:{taken}")
            lines += [f"    {_line(cost)}" for cost in plan.devices if any((cost.peak, cost.mapped, cost.borrowed))]
        if report.steps:
            lines.append(f"  to be done: {', '.join(report.steps)}")
        lines += [f"  left out: {step}: {reason}" for step, reason in report.skipped]
        if self.options:
            lines.append("  would take less:" if self.fits else "  other ways:")
            lines += [f"    {describe(option)}" for option in self.options]
        return "\n".join(lines)


def describe(option: Option) -> str:
    """Returns an option in a line."""
    places = ", ".join(
        f"{gib(cost.peak)} of {cost.place}"
        for cost in option.plan.devices
        if cost.peak or len(option.plan.devices) == 1
    )
    fits = "does not fit" if not option.fits else "fits" if option.plan.is_known else "may fit"
    return f"{fits}: {option.call}: {places or 'next to nothing'} at the peak"


def _line(cost: DeviceCost) -> str:
    fits = "fits" if cost.fits else "DOES NOT FIT"
    had = "what can be had is not known" if cost.available is None else f"{gib(cost.available)} can be had: {fits}"
    return (
        f"{cost.place}: mapped {gib(cost.mapped)}, borrowed {gib(cost.borrowed)}, allocated {gib(cost.allocated)}, "
        f"peak {gib(cost.peak)}; {had}"
    )


def _mode_as_dict(plan: ModePlan) -> dict[str, Any]:
    return {
        "mode": plan.mode,
        "fits": plan.fits,
        "devices": {cost.device: {**asdict(cost), "fits": cost.fits} for cost in plan.devices},
    }

"""Medians, spreads, ratios within a run, and lines through points."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """The median of repeated measurements, and the lowest and highest."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarises values, at least one."""
        return cls(statistics.median(values), min(values), max(values), len(values))


@dataclass(frozen=True)
class Line:
    """A line of least squares: ``y = slope * x + intercept``, and how much of y's variance it explains."""

    slope: float
    intercept: float
    r_squared: float

    def at(self, x: float) -> float:
        """Returns the line's height at x."""
        return self.slope * x + self.intercept


def paired_ratio(values: Sequence[float], limits: Sequence[float]) -> float:
    """Returns the median of value over limit, each pair from one round: a slow minute meets both alike."""
    ratios = [value / limit for value, limit in zip(values, limits) if limit]
    return statistics.median(ratios) if ratios else math.nan


def fit_line(x: Sequence[float], y: Sequence[float]) -> Line:
    """Fits a line through at least two points of different x."""
    slope, intercept = statistics.linear_regression(x, y)
    mean = statistics.fmean(y)
    total = sum((value - mean) ** 2 for value in y)
    left = sum((value - slope * at - intercept) ** 2 for at, value in zip(x, y))
    return Line(slope, intercept, 1.0 - left / total if total else 1.0)


def growth_exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """Returns p of the best ``y ~ x ** p``: 1 is linear, 2 quadratic. All values are positive."""
    return fit_line([math.log(value) for value in x], [math.log(value) for value in y]).slope

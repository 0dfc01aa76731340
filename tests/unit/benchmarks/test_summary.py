import math

import pytest

from benchmarks.rows import rows_of
from benchmarks.summary import Spread, fit_line, growth_exponent, paired_ratio
from tests.unit.benchmarks.results_by_hand import GIB, loads


def test_a_spread_is_median_and_ends():
    assert Spread.of([3.0, 1.0, 2.0, 10.0]) == Spread(median=2.5, low=1.0, high=10.0, count=4)


def test_ratios_are_paired_by_round():
    """A round in which the machine was ten times slower changes no ratio."""
    assert paired_ratio([1.0, 10.0, 1.2], [2.0, 20.0, 2.0]) == pytest.approx(0.5)
    assert math.isnan(paired_ratio([1.0], [0.0]))


def test_a_line_is_found_again():
    x = [12, 24, 48, 80]
    line = fit_line(x, [0.5 * value + 3 for value in x])
    assert (line.slope, line.intercept, line.r_squared) == pytest.approx((0.5, 3.0, 1.0))
    assert line.at(100) == pytest.approx(53)


def test_what_is_no_line_explains_less():
    assert fit_line([0, 1, 2, 3], [0.0, 1.0, 0.0, 1.0]).r_squared < 0.5


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_the_power_of_growth_is_found_again(power):
    x = [10, 100, 1000]
    assert growth_exponent(x, [7 * value**power for value in x]) == pytest.approx(power)


def test_rows_hold_loads_against_a_limit_for_as_many_bytes():
    rows = {row.name: row for row in rows_of(loads(), "warm")}
    # The result has twice the bytes that the clone had, so it may take twice its time: 0.5, 0.55, 0.5 by round.
    assert rows["ours-default"].ratios["clone"] == pytest.approx(0.5)
    assert rows["ours"].ratios["clone"] == pytest.approx(0.05)
    assert "clone" not in rows["clone"].ratios
    assert rows["ours-default"].peak.median == 2 * GIB
    assert rows["tl4"].failed == "needed more than 22.0 GiB"


def test_reading_is_the_limit_of_cold_files_only():
    assert "read" not in rows_of(loads(), "warm")[3].ratios
    # Reading makes no bytes: its seconds stand as they are, 2.5, 4.4 and 6.7 by round.
    assert rows_of(loads(), "cold")[3].ratios["read"] == pytest.approx(4.4)

"""The noise model of `benchmarks.regress`: paired ratios, their median, an interval around it, a verdict.

A shared machine makes everything slower now and then, sometimes for seconds. Two measurements in a row meet the same
moment, so their ratio tells more than either. Bursts that hit one of the two leave outliers on either side; the median
of many ratios ignores those. How sure that median is, order statistics say without assuming any distribution: with n
rounds, the true median lies between the k-th smallest and the k-th largest ratio unless fewer than k of n fair coins
fall on one side.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# How sure an interval is meant to be.
CONFIDENCE = 0.99
# Fewer rounds than this have no interval of that confidence.
LEAST_ROUNDS = 8


@dataclass(frozen=True)
class Interval:
    """A median of ratios, and between what it lies."""

    low: float
    middle: float
    high: float


def rank(n: int, confidence: float = CONFIDENCE) -> int:
    """The largest k with which the k-th smallest and k-th largest of n values enclose the median that surely.

    Raises
    ------
    ValueError
        If n is too small for any.
    """
    tail, k = 0.0, 0
    while True:
        tail += math.comb(n, k) / 2**n
        if 2 * tail > 1 - confidence:
            break
        k += 1
    if k == 0:
        raise ValueError(f"{n} rounds have no interval of {100 * confidence:g} %; {LEAST_ROUNDS} have")
    return k


def interval(ratios: Sequence[float]) -> Interval:
    """The median of ratios and its interval."""
    k = rank(len(ratios))
    ordered = sorted(ratios)
    return Interval(ordered[k - 1], statistics.median(ordered), ordered[-k])


def verdict(found: Interval, threshold: float) -> str:
    """What an interval of ratios says about a change by more than `threshold` (0.1 is 10 %).

    Returns
    -------
    {"slower", "faster", "not slower", "undecided"}
        "slower" and "faster" if all of the interval lies beyond the threshold, "not slower" if none of it is above.
    """
    most = 1 + threshold
    if found.low > most:
        return "slower"
    if found.high < 1 / most:
        return "faster"
    return "not slower" if found.high <= most else "undecided"


def spread(values: Sequence[float]) -> float:
    """How far apart values are, as a share: the largest distance of one from their median."""
    middle = statistics.median(values)
    return max(max(v / middle, middle / v) - 1 for v in values)

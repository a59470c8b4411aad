"""Ensembles: what both engines read from one, so that they decide alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample.engines.packing import packed_weight
from gpuresample.planning.taps import TapTable, index_table
from gpuresample.planning.works import ACTIVATIONS, CHOICES, Ensemble, Member, Separable


def is_alone(work: Ensemble, only_labels: bool) -> bool:
    """Whether the one model's scores decide as they are: no exponential changes which is largest or above what."""
    return len(work.members) == 1 and only_labels and not (work.before and work.activation != "none")


def limits(work: Ensemble, alone: bool) -> npt.NDArray[np.float32]:
    """Thresholds in the units of what they are compared with."""
    if not alone or work.activation != "sigmoid":
        return work.thresholds
    t = work.thresholds.astype(np.float64)
    return np.log(t / (1.0 - t)).astype(np.float32)


def codes(work: Ensemble) -> tuple[int, int]:
    """Activation after the resampling and choice, as kernels see them."""
    return ACTIVATIONS["none" if work.before else work.activation], CHOICES[work.choose]


def certain(work: Ensemble) -> tuple[float, float]:
    """Scores of class 0 and of the other classes outside a model's grid."""
    are_probabilities = work.before or work.activation == "none"
    if work.overlaps:
        return (0.0, 0.0) if are_probabilities else (-math.inf, -math.inf)
    return (1.0, 0.0) if are_probabilities else (0.0, -math.inf)


def upright(work: Separable, scores: Any) -> tuple[Separable, Any]:
    """The same work on scores [class, ...] whose axes have the target's order."""
    if work.dst_axis == (0, 1, 2):
        return work, scores
    source = [work.dst_axis.index(axis) for axis in range(3)]
    a, b, c = source

    def turned(values: Sequence[Any]) -> tuple[Any, Any, Any]:
        return values[a], values[b], values[c]

    order = tuple(source.index(axis) for axis in work.order)
    made = replace(
        work, tables=turned(work.tables), order=order, dst_axis=(0, 1, 2), n_dst=turned(work.n_dst),
        start=turned(work.start),
    )  # fmt: skip
    return made, scores.transpose([0, *[1 + axis for axis in source]])


def unchanged(n_dst: tuple[int, int, int]) -> Separable:
    """Work that changes nothing."""
    a, b, c = (index_table(n, np.arange(n)) for n in n_dst)
    return Separable((a, b, c), (), (0, 1, 2), n_dst, (0, 0, 0), "single")


def has_pairs(member: Member) -> bool:
    """Whether a member's rows have two taps, or one that weighs 1."""
    return isinstance(member.work, Separable) and all(t.is_pairs for t in member.work.tables)


def pairs(table: TapTable, start: int, n: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Two samples for each of `n` destination samples, [2, n], and their weights; one sample is both, a half each.

    Rows begin at destination sample `start`; what lies outside them gets sample 0.
    """
    index, weight = np.zeros((2, n), np.int64), np.full((2, n), 0.5, np.float32)
    rows = slice(start, start + table.n_dst)
    index[0, rows], index[1, rows] = table.first, table.first + table.count - 1
    if table.n_taps == 2:
        two = np.flatnonzero(table.count == 2)
        weight[:, start + two] = packed_weight(table, np.dtype(np.float32))[two].T
    return index, weight

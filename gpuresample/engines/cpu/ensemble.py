"""The CPU engine's ensembles: scores of several models to labels, without a volume per class in between."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample.engines import ensembles as rules
from gpuresample.engines.cpu import ensemble_kernels as kernels
from gpuresample.engines.cpu.memory import Flat, flatten, span
from gpuresample.engines.cpu.tables import scratch
from gpuresample.engines.interface import Outputs, Store
from gpuresample.engines.threads import get_num_threads, run_items
from gpuresample.planning.taps import TapTable
from gpuresample.planning.works import ACTIVATIONS, Ensemble, Separable, Work

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float32]
Run = Callable[[Work, Array, Array, Store], None]

# Bytes of interpolated source rows that a thread holds on to. More than its second cache has, on purpose: rows that two
# blocks share are interpolated twice, which costs more than fetching a row from farther away.
HELD_BYTES = 1 << 20
# Voxels of a row handled at once: enough to fill vectors, whatever the number of classes.
LEAST_RUN = 64
# Planes of a block of the fused kernel: source planes are interpolated again for every block.
PLANES = 32
# Rows of a block at the least.
FEWEST_ROWS = 4
# Rows handed to a thread at a time where scores are resampled first.
ROWS = 16


class CpuCombiner:
    """A `interface.Combiner` for NumPy arrays.

    Parameters
    ----------
    run : callable
        The engine's.
    models : int
    """

    types = ("float32",)
    stages = False
    room = sys.maxsize

    def __init__(self, run: Run, models: int) -> None:
        self._run = run
        self._counts = np.zeros(models, np.int64)

    def combine(self, work: Ensemble, scores: Sequence[Array], outputs: Outputs) -> None:
        """See `interface.Combiner`."""
        self._counts += combine(self._run, work, scores, outputs)

    def counts(self) -> list[int]:
        """See `interface.Combiner`."""
        result: list[int] = self._counts.tolist()
        return result


def combine(run: Run, work: Ensemble, scores: Sequence[Array], outputs: Outputs) -> list[int]:
    """Fill `outputs` from `scores`, see `interface.Combiner`; `run` is the engine's.

    Answers the number of voxels without usable scores, for every member.
    """
    alone = rules.is_alone(work, outputs.only_labels)
    if work.before and work.activation != "none":
        scores = [_activated(part, work.activation) for part in scores]
    where = _places(outputs)
    activation, choose = rules.codes(work)
    decide = (work.overlaps, choose, rules.limits(work, alone), work.values)
    if all(rules.has_pairs(member) for member in work.members):
        return _fused(work, scores, activation, alone, decide, where)
    return _staged(run, work, scores, activation, alone, decide, where)


def _places(outputs: Outputs) -> tuple[Any, ...]:
    """Outputs as the kernels take them: memory, offset of the first voxel, strides."""
    out: list[Any] = []
    for array, spare, axes in (
        (outputs.labels, np.uint8, 3), (outputs.probabilities, np.float32, 4), (outputs.confidence, np.float32, 3),
        (outputs.entropy, np.float32, 3),
    ):  # fmt: skip
        if array is None:
            out.append((np.empty(0, spare), 0, np.zeros(axes, np.int64)))
        elif axes == 4:
            # The batch is the classes'; Flat keeps strides along space.
            flat = Flat(array)
            step = array.strides[0] // array.itemsize
            out.append((flat.memory, flat.offsets[0], np.array([step, *flat.strides], np.int64)))
        else:
            flat = Flat(array)
            out.append((flat.memory, flat.offsets[0], np.array(flat.strides, np.int64)))
    return tuple(out)


# --- two taps: no scores are kept ------------------------------------------------------------------------------------


def _fused(
    work: Ensemble,
    scores: Sequence[Array],
    activation: int,
    alone: bool,
    decide: tuple[Any, ...],
    where: tuple[Any, ...],
) -> list[int]:
    (n_z, n_y, n_x), classes, n_models = work.n_dst, work.classes, len(scores)
    tables, inside, flats = [], np.zeros((n_models, 6), np.int64), []
    for m, (member, part) in enumerate(zip(work.members, scores, strict=True)):
        assert isinstance(member.work, Separable)
        turned, upright = rules.upright(member.work, part)
        tables.append(turned.tables)
        inside[m] = [edge for pair in turned.inside for edge in pair]
        flats.append(flatten(upright))
    memory, offsets = span(flats)
    places = np.array(
        [
            [at, flat.offsets[-1] - flat.offsets[-2] if classes > 1 else 0, *flat.strides]
            for at, flat in zip(offsets, flats, strict=True)
        ],
        np.int64,
    )
    arrays: list[Array] = []
    for axis, n in enumerate(work.n_dst):
        made = [rules.pairs(t[axis], int(inside[m, 2 * axis]), n) for m, t in enumerate(tables)]
        index = np.stack([pair[0] for pair in made])
        arrays += [index.astype(np.uint32) if axis == 2 else index, np.stack([pair[1] for pair in made])]
    weights = np.array([member.weight for member in work.members], np.float32)
    certain = np.array(rules.certain(work), np.float32)

    step_z, step_y, run = _steps(work.n_dst, n_models * classes, [t[1] for t in tables])
    items_z, items_y, items_x = -(-n_z // step_z), -(-n_y // step_y), -(-n_x // run)
    rows = max(_rows_read(t[1], int(inside[m, 2]), step_y, n_y) for m, t in enumerate(tables))
    room = (n_models * 2 * rows + 2) * classes * run
    counts = np.zeros((items_z * items_y * items_x, n_models), np.int64)

    def job(item: int) -> None:
        rest, ix = divmod(item, items_x)
        iz, iy = divmod(rest, items_y)
        z, y, x = iz * step_z, iy * step_y, ix * run
        block = np.array([z, min(z + step_z, n_z), y, min(y + step_y, n_y), x, min(x + run, n_x)])
        kernels.fused_block(
            memory, places, *arrays, inside, weights, block, classes, activation, alone, certain, *decide, *where,
            scratch(room, np.float32), counts[item],
        )  # fmt: skip

    run_items(job, len(counts))
    totals: list[int] = counts.sum(axis=0).tolist()
    return totals


def _steps(n_dst: tuple[int, int, int], channels: int, along_y: list[TapTable]) -> tuple[int, int, int]:
    """Planes, rows and voxels of a row of a block: what is held of the source fits `HELD_BYTES`, if it can.

    `channels`: classes of all models together; two planes of each are held.
    """
    n_z, n_y, n_x = n_dst
    bytes_per_voxel = 2 * 4 * channels
    run = min(n_x, max(LEAST_RUN, HELD_BYTES // (4 * bytes_per_voxel)))
    run = -(-n_x // -(-n_x // run))
    held = max(3, HELD_BYTES // (bytes_per_voxel * run))
    # Rows of the source for each of the target's, of the model that has most.
    finest = max((t.source_range()[1] - t.source_range()[0]) / t.n_dst if t.n_dst else 0.0 for t in along_y)
    step_y = n_y if finest == 0 else max(1, min(n_y, int((held - 1) / finest)))
    step_z = min(n_z, PLANES)
    # Enough blocks for all threads to be busy.
    threads = get_num_threads()
    wanted = 1 if threads == 1 else 4 * threads
    while step_y > FEWEST_ROWS and -(-n_z // step_z) * -(-n_y // step_y) * -(-n_x // run) < wanted:
        step_y = (step_y + 1) // 2
    return step_z, step_y, run


def _rows_read(table: TapTable, start: int, step: int, n: int) -> int:
    """Most samples between the first and the last that `step` destination samples read; rows begin at `start`."""
    reads = [
        table.source_range(max(at - start, 0), min(at + step - start, table.n_dst))
        for at in range(0, n, step)
        if min(at + step - start, table.n_dst) > max(at - start, 0)
    ]
    return max((hi - lo for lo, hi in reads), default=0)


# --- any taps: a block of scores first -------------------------------------------------------------------------------


def _staged(
    run: Run,
    work: Ensemble,
    scores: Sequence[Array],
    activation: int,
    alone: bool,
    decide: tuple[Any, ...],
    where: tuple[Any, ...],
) -> list[int]:
    (n_z, n_y, n_x), classes = work.n_dst, work.classes
    shape = np.array([classes, n_z, n_y, n_x], np.int64)
    block = np.empty((classes, n_z, n_y, n_x), np.float32)
    total = block if alone else np.empty_like(block)
    bad = np.zeros(n_z * n_y * n_x, np.float32)
    flat, averages = block.ravel(), total.ravel()
    items = -(-n_z * n_y // ROWS)
    counts = []
    for m, (member, part) in enumerate(zip(work.members, scores, strict=True)):
        first, rest = rules.certain(work)
        run(member.work, part[:1], block[:1], Store(first))
        if classes > 1:
            run(member.work, part[1:], block[1:], Store(rest))
        found = np.zeros(items, np.int64)

        def average(item: int, m: int = m, weight: float = member.weight, found: Array = found) -> None:
            stop = min((item + 1) * ROWS, n_z * n_y)
            found[item] = kernels.average_rows(
                flat, shape, item * ROWS, stop, activation, alone, np.float32(weight), averages, m == 0, bad
            )

        run_items(average, items)
        counts.append(int(found.sum()))

    def finish(item: int) -> None:
        stop = min((item + 1) * ROWS, n_z * n_y)
        kernels.finish_rows(averages, shape, item * ROWS, stop, *decide, bad, *where)

    run_items(finish, items)
    return counts


def _activated(scores: Array, activation: str) -> FloatArray:
    """Probabilities of scores [class, z, y, x], on the scores' own grid."""
    n = int(np.prod(scores.shape[1:]))
    out = np.array(scores, np.float32, order="C")
    flat, classes = out.reshape(-1), len(scores)
    items = -(-n // (ROWS * LEAST_RUN))

    def job(item: int) -> None:
        first = item * ROWS * LEAST_RUN
        kernels.activate(flat, first, min(ROWS * LEAST_RUN, n - first), n, classes, ACTIVATIONS[activation])

    run_items(job, items)
    return out

"""The plan of an ensemble, and the walk over the target in blocks that keeps memory small."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpuresample.containers import spatial
from gpuresample.engines.ensembles import has_pairs
from gpuresample.engines.interface import Combiner, Engine, Outputs
from gpuresample.planning import planner
from gpuresample.planning.grid import Grid
from gpuresample.planning.works import Ensemble, Majority, Member, Range, Separable

Block = tuple[Range, Range, Range]

# Scores reach this many voxels of their own past their grid's outer faces. Sizes are rounded when a volume is
# resampled for a network, by up to half a voxel of the network's grid; the way back is not to lose that strip.
MARGIN = 1.0
# Bytes that a block may take for copies of its scores: a tenth of all scores, within these.
BLOCK_BYTES = (1 << 25, 1 << 28)
# Blocks at the least, so that progress shows.
STEPS = 16
# Planes of a block at the least where nothing is copied.
PLANES = 32


def member(source: Grid, target: Grid, interpolation: str, weight: float) -> Member:
    """A model whose scores lie on `source`."""
    work = planner.make_work(source, target, (), interpolation, None, False, "single", MARGIN)
    if isinstance(work, Separable):
        work = _slab_first(work)
    return Member(work, weight)


def overlaps(source: Grid, target: Grid) -> bool:
    """Whether any voxel of `target` lies on `source`, margin included."""
    work = planner.make_work(source, target, (), "nearest", None, False, "single", MARGIN)
    assert not isinstance(work, Majority)
    return planner.reaches(work)


def _slab_first(work: Separable) -> Separable:
    """Along the target's z first: blocks are thin there, and what comes first is done on the fewest planes."""
    z = work.dst_axis.index(0)
    if z not in work.order or z == 2:
        return work
    rest = [axis for axis in work.order if axis != z]
    orders = [(z, *order) for order in itertools.permutations(rest)]
    return replace(work, order=min(orders, key=lambda order: planner.pass_cost(work.tables, order)))


@dataclass(frozen=True, eq=False)
class EnsemblePlan:
    """An ensemble, ready to run on scores of the planned shapes."""

    target: Grid
    work: Ensemble

    def run(
        self, engine: Engine, scores: Sequence[Any], outputs: Outputs, progress: Callable[[float], None]
    ) -> list[int]:
        """Fill `outputs` from scores, of every member an array-like (class, [z,] y, x) that can be sliced.

        Answers the number of voxels without usable scores, for every member.
        """
        done = 0
        with engine.combining(len(scores)) as combiner:
            for block in self._blocks(scores, combiner):
                members, parts = [], []
                for one, whole in zip(self.work.members, scores, strict=True):
                    members.append(replace(one, work=planner.crop(one.work, block)))
                    region = planner.input_region(one.work, block)
                    parts.append(_fetch(whole, region, self.target.dimension, combiner.types))
                (z0, z1), (y0, y1), (x0, x1) = block
                n_dst = z1 - z0, y1 - y0, x1 - x0
                here = (..., slice(z0, z1), slice(y0, y1), slice(x0, x1))
                places = {name: array[here] for name, array in vars(outputs).items() if array is not None}
                combiner.combine(replace(self.work, members=tuple(members), n_dst=n_dst), parts, Outputs(**places))
                done += math.prod(n_dst)
                progress(done / math.prod(self.work.n_dst))
            return combiner.counts()

    def _blocks(self, scores: Sequence[Any], combiner: Combiner) -> Iterator[Block]:
        """The target in blocks of whole rows along x, whose copies of scores stay within bounds."""
        n_z, n_y, n_x = self.work.n_dst
        classes = self.work.classes
        size = sum(4 * math.prod(one.shape) for one in scores)
        budget = min(max(size // 10, BLOCK_BYTES[0]), BLOCK_BYTES[1], combiner.room)
        # Bytes for each voxel of the target: scores and averages, where they are made, and copies of the source.
        per_voxel = 0.0
        if not all(has_pairs(one) for one in self.work.members):
            per_voxel += 4 * classes * (1 + len(scores)) + 4
        for one in scores:
            copied = combiner.stages or (self.work.before and self.work.activation != "none")
            if copied or not _as_it_is(one, combiner.types):
                per_voxel += 4 * math.prod(one.shape) / math.prod(self.work.n_dst)
        steps = -(-n_z // STEPS)
        step_z, step_y = max(steps, min(PLANES, n_z)), n_y
        if per_voxel:
            planes = int(budget / (per_voxel * n_y * n_x))
            step_z = max(1, min(steps, planes))
            if planes == 0:
                step_y = max(1, int(budget / (per_voxel * n_x)))
        for z in range(0, n_z, step_z):
            for y in range(0, n_y, step_y):
                yield (z, min(z + step_z, n_z)), (y, min(y + step_y, n_y)), (0, n_x)


def _is_lazy(scores: Any) -> bool:
    """Whether slices have to be read before they are arrays."""
    return not hasattr(scores, "__array_interface__") and not hasattr(scores, "__cuda_array_interface__")


def _as_it_is(scores: Any, types: Sequence[str]) -> bool:
    """Whether an engine takes the scores without a copy."""
    return not _is_lazy(scores) and scores.dtype.isnative and scores.dtype.name in types


def _fetch(scores: Any, region: Block, dimension: int, types: Sequence[str]) -> Any:
    """A region z, y, x of scores as an array [class, z, y, x] that an engine takes, where the scores are."""
    part = scores[(slice(None), *[slice(lo, hi) for lo, hi in region[3 - dimension :]])]
    if _is_lazy(part) or _is_lazy(scores):
        part = np.asarray(part)
    return spatial(part if _as_it_is(part, types) else part.astype(np.float32), dimension)

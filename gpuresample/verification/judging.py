"""Whether two results agree as the numeric contract says, and how far they are apart."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample.bench import measure
from gpuresample.bench.bounds import (
    LABEL_MODES,
    MOST_DIFFERING,
    bound_of,
    difference,
    differing_apart,
    distance,
    floats,
)
from gpuresample.caching import cached_property
from gpuresample.verification import votes
from gpuresample.verification.pairs import Pair
from gpuresample.verification.results import Row
from gpuresample.verification.views import Views, views_of

Array = npt.NDArray[Any]

# Seconds that further runs of one library may take, of one row.
BUDGET = 0.7


class Judge:
    """Compares one pair of calls on one engine after another; SimpleITK is asked once.

    Parameters
    ----------
    pair : Pair
    runs : int
        Timed calls of each library.
    """

    def __init__(self, pair: Pair, runs: int) -> None:
        self.pair, self.runs = pair, runs
        self.dtype = pair.sample.array.dtype
        self.unit = pair.sample.unit

    @cached_property
    def theirs(self) -> Array:
        """SimpleITK's voxels in the image's own type."""
        return self.pair.theirs()

    @cached_property
    def sums(self) -> Array:
        """SimpleITK's voxels in float64."""
        return self.pair.sums()

    def row(self, engine: str) -> Row:
        """One comparison."""
        pair = self.pair
        obstacle = pair.obstacle()
        if obstacle:
            return Row(pair.name, engine, state="not run", note=obstacle)
        row = self._copies(engine) if pair.exact else self._sums(engine)
        if row.state == "not run":
            return row
        calls = {"ours": lambda: pair.run(engine), "theirs": pair.run_theirs}
        times = measure.interleaved(calls, self.runs, BUDGET, at_least=1)
        return replace(row, seconds=statistics.median(times["ours"]), sitk_seconds=statistics.median(times["theirs"]))

    # -- voxels that are copied or chosen --------------------------------------------------------------------------

    def _copies(self, engine: str) -> Row:
        pair = self.pair
        result = pair.run(engine)
        ours, theirs = pair.ours(engine), self.theirs
        notes: list[str] = []
        kept: Array | None = None
        if self.dtype.kind == "f" and (np.isinf(ours) | np.isinf(theirs)).any():
            kept = np.isfinite(ours) & np.isfinite(theirs)
            notes.append("infinities are left out: SimpleITK stores them as the largest number")
        found = difference(ours, theirs, kept)
        if found.share:
            ties = self._ties(ours, distance(ours, theirs) > 0)
            share = np.count_nonzero(ties) / ours.size
            if share:
                notes.append(_said(share))
            kept = ~ties if kept is None else kept & ~ties
        apart = difference(ours, theirs, kept)
        same_grid = pair.same_grid(result)
        if not same_grid:
            notes.append("the two results lie on different grids")
        return Row(
            pair.name, engine, f"{self.dtype}/{'float64' if pair.name == 'bin_shrink' else '-'}",
            "ok" if same_grid and not apart.share else "broken",
            difference=found.largest, differ=found.share, note="; ".join(notes),
            views=self._views(ours, theirs, found.at) if found.share else None,
        )  # fmt: skip

    def _ties(self, ours: Array, differ: Array) -> Array:
        """Which of the voxels that differ are ties: round-off decides them in SimpleITK too."""
        pair = self.pair
        ties = differ & _any(distance(ours, other) == 0 for other in pair.shaken())
        rest = np.nonzero(differ & ~ties)
        if pair.name in LABEL_MODES and 0 < len(rest[0]) <= votes.MOST:
            ties[rest] = votes.may_win(pair.sample, pair.name, rest, ours[rest])
        return ties

    # -- voxels that are summed ------------------------------------------------------------------------------------

    def _sums(self, engine: str) -> Row:
        pair = self.pair
        kind = floats(self.dtype)
        bound = bound_of(pair.name, self.dtype)
        ours, theirs = pair.ours(engine, kind), self.sums
        notes: list[str] = []
        kept, wrong = self._kept(ours, notes)
        if not pair.sample.finite and not kept.any() and not wrong:
            return Row(pair.name, engine, state="not run", note="NaN or infinities reach every voxel")
        found = difference(ours, theirs, kept)
        error = found.largest / self.unit if self.unit else (math.inf if found.largest else 0.0)
        ok = error <= bound and not wrong
        row = Row(
            pair.name, engine, f"{self.dtype}/{np.dtype(kind)}", "ok" if ok else "broken", error, found.largest,
            bound, views=self._views(ours, theirs, found.at) if found.largest else None,
        )  # fmt: skip
        if self.dtype.kind in "biu":
            whole = pair.ours(engine)
            known = ~(np.isfinite(ours) ^ np.isfinite(theirs))
            judged = self._truncated if pair.rounding == "truncate" else self._rounded
            differ, fine = judged(whole, known, notes)
            row = replace(row, differ=differ, state=row.state if fine else "broken")
        return replace(row, note="; ".join(notes))

    def _kept(self, ours: Array, notes: list[str]) -> tuple[Array, int]:
        """The voxels to compare, and how many have a value in one library only that should have one in both."""
        theirs = self.sums
        kept = np.isfinite(ours) & np.isfinite(theirs)
        if not self.pair.sample.finite:
            share = 1.0 - np.count_nonzero(kept) / kept.size
            filled = self.pair.reference_sample is not self.pair.sample
            notes.append(
                f"{100 * share:.2g} % of the voxels, which NaN or infinities reach, are left out"
                + ("; SimpleITK, which spreads them further, was given the image without them" if filled else "")
            )
            wrong = 0 if filled else int(np.count_nonzero(np.isfinite(theirs) & ~np.isfinite(ours)))
            if wrong:
                notes.append(f"{wrong} voxels are NaN or infinite that are numbers in SimpleITK's result")
            return kept, wrong
        lone = np.isfinite(ours) ^ np.isfinite(theirs)
        if not lone.any():
            return kept, 0
        ties = lone & _any(np.isfinite(ours) == np.isfinite(other) for other in self.pair.shaken())
        if ties.any():
            notes.append(_said(np.count_nonzero(ties) / lone.size))
        wrong = int(np.count_nonzero(lone & ~ties))
        if wrong:
            notes.append(f"{wrong} voxels have a value for one and none for the other: one has them outside the image")
        return kept, wrong

    def _near(self) -> float:
        """What sums may be wrong by, in intensity units."""
        return bound_of(self.pair.name, self.dtype) * self.unit

    def _rounded(self, ours: Array, known: Array, notes: list[str]) -> tuple[float, bool]:
        """Integers against SimpleITK's float64, rounded: share that differs, and whether each is the nearest one."""
        info = (0, 1) if self.dtype == np.bool_ else (np.iinfo(self.dtype).min, np.iinfo(self.dtype).max)
        count, fine = 0, True
        for index in np.ndindex(ours.shape[:-2]):
            value = np.clip(np.nan_to_num(self.sums[index], nan=0.0), float(info[0]), float(info[1]))
            mine = ours[index].astype(np.float64)
            count += int(np.count_nonzero((mine != np.rint(value)) & known[index]))
            # The spacing of floats: integers of 64 bits are none above 2**53.
            off = np.abs(mine - value) - (0.5 + self._near() + 2 * np.spacing(np.abs(value)))
            fine &= not bool(((off > 0) & known[index]).any())
        share = count / ours.size
        if not fine:
            notes.append("integers are not the nearest to SimpleITK's float64 result")
        elif share > MOST_DIFFERING:
            notes.append(
                "integers that differ are halfway between two whole numbers, up to the last digits"
                if self._near() < 0.5
                else "sums may be wrong by more than a unit, so integers may be too"
            )
        return share, fine

    def _truncated(self, ours: Array, known: Array, notes: list[str]) -> tuple[float | None, bool]:
        """Integers against SimpleITK's own, truncated."""
        if self.pair.name.startswith("gaussian_"):
            notes.append(
                "SimpleITK truncates after every axis, as gpuresample.sitk does; integers are not compared"
                if self.pair.name.endswith("discrete")
                else "SimpleITK's result is float32; integers are not compared"
            )
            return None, True
        theirs = np.minimum(self.theirs, 1) if self.dtype == np.bool_ else self.theirs
        found = difference(ours, theirs, known)
        apart = differing_apart(ours, theirs, self.sums, self._near(), known)
        allowed = max(1.0, math.ceil(self._near()))
        if found.largest > allowed:
            notes.append(f"integers are off by up to {found.largest:g}, allowed is {allowed:g}")
        if found.share > MOST_DIFFERING >= apart and self._near() < 0.5:
            notes.append(
                f"some sums are whole numbers up to their last digits; there truncation makes a whole unit of the last "
                f"digit; elsewhere {100 * apart:.3g} % differ (gpuresample.sitk has SimpleITK's last digit)"
            )
        return found.share, found.largest <= allowed and apart <= MOST_DIFFERING

    def _views(self, ours: Array, theirs: Array, at: tuple[int, ...]) -> Views:
        target = self.pair.sample.geometry.target
        return views_of(ours, theirs, at, target.spacing)


def _any(masks: Iterable[Array]) -> Array:
    """Where any of the masks is true; nowhere, if there is none."""
    found: Array = np.zeros((), bool)
    for mask in masks:
        found = found | mask
    return found


def _said(share: float) -> str:
    return (
        f"{100 * share:.2g} % of the voxels lie exactly on a tie (halfway between voxels, on the border, equal votes), "
        "which round-off decides in SimpleITK too: left out"
    )

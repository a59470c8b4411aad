"""The steps of a call on the CPU engine, told once: for what runs it, what counts its memory, what counts its work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

import numpy as np

from gpuresample.engines.cpu.means import is_means
from gpuresample.engines.interface import Store
from gpuresample.engines.packing import accumulator
from gpuresample.planning.works import RULES, Gather, Majority, Separable, Work

Way = Literal["gather", "majority", "means", "copy", "shortcut", "tables"]

_HALF, _SINGLE, _DOUBLE = np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)
# Of types that few images have no loops are compiled: another type that has all their values goes through the loop. Of
# sums: 16-bit floats are stored by every loop, Numba could not read them.
_SUMMED: dict[np.dtype[Any], np.dtype[Any]] = {np.dtype(np.int8): np.dtype(np.int16)}
# Integers that sums in float64 are made of: a loop would make them float64, too.
_LONG = (np.dtype(np.uint32), np.dtype(np.int64), np.dtype(np.uint64))
# Of what is chosen by votes.
_CHOSEN: dict[np.dtype[Any], np.dtype[Any]] = {
    _HALF: _SINGLE, np.dtype(np.int8): np.dtype(np.int16), np.dtype(np.uint32): np.dtype(np.int64),
}  # fmt: skip

# Types that copies change as they are made: those that labels have, where augmentations answer floats.
WIDENED = tuple((np.dtype(label), np.dtype(np.float32)) for label in (np.uint8, np.int16))


def widens(work: Work, src: np.dtype[Any], dst: np.dtype[Any]) -> bool:
    """Whether copies become the destination's type as they are made."""
    return isinstance(work, Gather) and work.method == "index" and (src, dst) in WIDENED


def sums(work: Work) -> TypeGuard[Separable | Gather]:
    """Whether a work's voxels are sums, or copies by tables; not votes, nor what else is chosen."""
    return isinstance(work, Separable) or (isinstance(work, Gather) and work.method == "sum")


def is_cubic(work: Gather) -> bool:
    """Whether a gather has four taps per axis, which have a kernel of their own."""
    return work.method == "sum" and work.coefficients.shape == (1, 4, 4)


def is_linear(work: Gather) -> bool:
    """Whether a gather has two taps per axis, which have a kernel of their own."""
    apart = work.rule in (RULES["crop"], RULES["grid-wrap"])  # neighbours that are none, or at the other end
    return work.method == "sum" and work.coefficients.shape[1] == 2 and not apart


def is_general(work: Gather) -> bool:
    """Whether a gather of sums reads its source in the kernel for any number of taps."""
    special = (is_cubic(work) or is_linear(work)) and not any(work.derivative)
    return work.method == "sum" and work.prefilter is None and not special


def way_of(work: Work, src: np.dtype[Any], dst: np.dtype[Any], store: Store) -> Way:
    """The way of a work between arrays of these types, in this machine's byte order."""
    if isinstance(work, Gather):
        return "gather"
    if isinstance(work, Majority):
        return "majority"
    if is_means(work, src, dst, store):
        return "means"
    # Whoever asks for exact copies has the source in the destination's type first.
    if work.copies and store.window is None and (store.exact or src == dst):
        return "copy"
    return "shortcut" if work.shortcut else "tables"


@dataclass(frozen=True, eq=False)
class Steps:
    """What a call takes, in this order.

    Attributes
    ----------
    typed : bool
        Whether the source is brought into the destination's type.
    reads : dtype or None
        The type that the source then becomes, where the loop is for another one than it has.
    way : str
        Which loop runs.
    tables : tuple of Separable
        Works of tables that the loop applies: the work itself, or those of its shortcut, or its prefilter.
    writes : dtype or None
        The type that the loop makes, where it is another one than the destination's, which then is made of it.
    divided : bool
        Whether the loop makes sums in float64, which are then divided.
    """

    typed: bool
    reads: np.dtype[Any] | None
    way: Way
    tables: tuple[Separable, ...]
    writes: np.dtype[Any] | None
    divided: bool

    @property
    def one(self) -> bool:
        """Whether the loop takes both arrays as they are."""
        return not (self.typed or self.reads or self.writes or self.divided)


def steps_of(work: Work, src: np.dtype[Any], dst: np.dtype[Any], store: Store) -> Steps:
    """The steps of a work between arrays of these types, in this machine's byte order."""
    way = way_of(work, src, dst, store)
    tables = _tables(work, way)
    if way == "means":
        return Steps(False, _SUMMED.get(src), way, tables, _SUMMED.get(dst), False)
    typed = store.exact and src != dst and not widens(work, src, dst)
    read = dst if typed else src
    reads: np.dtype[Any] | None = None
    writes: np.dtype[Any] | None = None
    bits = way == "copy" or (isinstance(work, Gather) and work.method == "index" and read == dst)
    if not bits:
        if sums(work):
            reads, writes = _read(work, read), _written(work, dst, store)
        else:
            reads, writes = _CHOSEN.get(read), _CHOSEN.get(dst)
    divided = store.divisor != 1
    return Steps(typed, reads, way, tables, None if divided else writes, divided)


def _read(work: Separable | Gather, read: np.dtype[Any]) -> np.dtype[Any] | None:
    """The type that a loop reads of which sums are made, where it is another one."""
    if read == _HALF:
        return _SINGLE
    acc = accumulator(work.precision)
    # Beside many taps, which read a voxel as often, it costs nothing to convert it once.
    if (acc == _DOUBLE and read in _LONG) or (read.kind in "iu" and isinstance(work, Gather) and is_general(work)):
        return acc
    return _SUMMED.get(read)


def _written(work: Separable | Gather, dst: np.dtype[Any], store: Store) -> np.dtype[Any] | None:
    """The type that a loop makes sums in, where it is another one."""
    acc = accumulator(work.precision)
    # What lies outside goes the same way as sums do.
    if acc == _DOUBLE and dst in _LONG and int(float(store.default)) == store.default:
        return acc
    return _SUMMED.get(dst)


def _tables(work: Work, way: Way) -> tuple[Separable, ...]:
    if isinstance(work, Gather):
        return () if work.prefilter is None else (work.prefilter,)
    if isinstance(work, Majority) or way == "copy":
        return ()
    if way == "shortcut":
        return tuple(
            step for b in work.shortcut for step in (b.first, *[s for chain in b.middle for s in chain], b.last)
        )
    return (work,)

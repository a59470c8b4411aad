"""The steps of a call on the CPU engine, told once: for what runs it, what counts its memory, what counts its work."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from gpuresample.engines.cpu.means import is_means
from gpuresample.engines.interface import Store
from gpuresample.frozen import frozen
from gpuresample.planning.works import Gather, Majority, Separable, Work

Way = Literal["gather", "majority", "means", "copy", "shortcut", "tables"]

# Types that copies change as they are made: those that labels have, where augmentations answer floats.
WIDENED = tuple((np.dtype(label), np.dtype(np.float32)) for label in (np.uint8, np.int16))


def widens(work: Work, src: np.dtype[Any], dst: np.dtype[Any]) -> bool:
    """Whether copies become the destination's type as they are made."""
    return isinstance(work, Gather) and work.method == "index" and (src, dst) in WIDENED


def sums(work: Work) -> bool:
    """Whether a work's voxels are sums, or copies by tables; not votes, nor what else is chosen."""
    return isinstance(work, Separable) or (isinstance(work, Gather) and work.method == "sum")


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


@frozen(eq=False)
class Steps:
    """What a call takes, in this order.

    Attributes
    ----------
    typed : bool
        Whether the source is brought into the destination's type.
    from_half : bool
        Whether 16-bit floats then become float32.
    way : str
        Which loop runs.
    tables : tuple of Separable
        Works of tables that the loop applies: the work itself, or those of its shortcut, or its prefilter.
    to_half : bool
        Whether the loop makes float32, which then become 16-bit floats.
    divided : bool
        Whether the loop makes sums in float64, which are then divided.
    """

    typed: bool
    from_half: bool
    way: Way
    tables: tuple[Separable, ...]
    to_half: bool
    divided: bool

    @property
    def one(self) -> bool:
        """Whether the loop takes both arrays as they are."""
        return not (self.typed or self.from_half or self.to_half or self.divided)


def steps_of(work: Work, src: np.dtype[Any], dst: np.dtype[Any], store: Store) -> Steps:
    """The steps of a work between arrays of these types, in this machine's byte order."""
    way = way_of(work, src, dst, store)
    tables = _tables(work, way)
    if way == "means":
        return Steps(False, False, way, tables, False, False)
    typed = store.exact and src != dst and not widens(work, src, dst)
    divided = store.divisor != 1
    # Numba has no 16-bit floats: only copies by index move them as bits, and only sums are stored as such.
    from_half = (dst if typed else src) == np.float16 and way != "copy"
    to_half = dst == np.float16 and not divided and not sums(work)
    return Steps(typed, from_half, way, tables, to_half, divided)


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

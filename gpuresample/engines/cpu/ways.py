"""Which of the CPU engine's ways a work goes: for what runs it, what counts its memory and what counts its work."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from gpuresample.engines.contract import Store
from gpuresample.engines.cpu.means import is_means
from gpuresample.planning.works import Gather, Majority, Separable, Work

Way = Literal["gather", "majority", "means", "copy", "shortcut", "tables"]

# Types that copies change as they are made: those that labels have, where augmentations answer floats.
WIDENED = tuple((np.dtype(label), np.dtype(np.float32)) for label in (np.uint8, np.int16))


def widens(work: Work, src: np.dtype[Any], dst: np.dtype[Any]) -> bool:
    """Whether copies become the destination's type as they are made."""
    return isinstance(work, Gather) and work.method == "index" and (src, dst) in WIDENED


def sums(work: Work) -> bool:
    """Whether a work's voxels are sums, or copies by tables; not votes, nor what else is chosen."""
    return isinstance(work, Separable) or (isinstance(work, Gather) and work.method == "linear")


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

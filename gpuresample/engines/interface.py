"""What a plan asks of an engine: plain arrays and numbers, no images, no geometry, no modes.

Every engine runs these on arrays of shape (..., z, y, x); the last three axes are space, every leading axis is a
batch of independent volumes. 2-D work has z of size 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from gpuresample.caching import cached_property
from gpuresample.planning.works import Ensemble, Gather, Work


@dataclass(frozen=True)
class Store:
    """How a sum becomes a voxel.

    Attributes
    ----------
    default : int or float
        Value of voxels outside the source, representable in the output's type.
    rounding : {"nearest", "truncate", "away"}
        To nearest, half to even; toward zero, as SimpleITK; to nearest, half away from zero, as SciPy. Integers
        saturate in any case; NaN becomes 0.
    exact : bool
        Voxels are chosen, not summed: they take the output's type first, so no label passes through a float.
    divisor : int
        What sums are divided by at the end, integers then rounded half up; 1 for everything but block means.
    high : int or None
        Largest integer stored, where that is not the type's (booleans are bytes up to 1).
    window : (low, high, scale, offset) or None
        What sums go through before they are rounded and stored: kept within low and high, times the scale, plus the
        offset; NaN stays NaN. The default value is stored as it is. Never of copies that are exact.
    """

    default: int | float = 0
    rounding: str = "nearest"
    exact: bool = False
    divisor: int = 1
    high: int | None = None
    window: tuple[float, float, float, float] | None = None

    @classmethod
    def of(
        cls,
        dtype: np.dtype[Any],
        default: int | float = 0,
        rounding: str = "nearest",
        *,
        exact: bool = False,
        divisor: int = 1,
        clip: bool | tuple[float, float] = False,
        scale: float = 1.0,
        offset: float = 0.0,
    ) -> Store:
        """What stores sums as voxels of a type, booleans too.

        `clip` is a range that sums are kept in. True, the range of the volume that they are of, is left to `clipped`
        and `renormalised`, which look at voxels.
        """
        window = None
        if isinstance(clip, tuple) or scale != 1.0 or offset != 0.0:
            low, top = clip if isinstance(clip, tuple) else (-math.inf, math.inf)
            window = low, top, scale, offset or -0.0
        # Booleans are summed as bytes; a spline may overshoot 1.
        return cls(default, rounding, exact, divisor, 1 if dtype == np.bool_ else None, window)

    @cached_property
    def text(self) -> str:
        """All that it says. Stores that are equal may differ: 0 and -0 are."""
        return repr(self)

    def raised(self, constant: float) -> Store:
        """The same of sums that a constant is added to first."""
        low, top, scale, offset = self.window or (-math.inf, math.inf, 1.0, -0.0)
        return replace(self, window=(low - constant, top - constant, scale, offset + scale * constant))


@dataclass(frozen=True, eq=False)
class Outputs:
    """Where the answers of an ensemble go; None for what is not asked for.

    Attributes
    ----------
    labels : array, unsigned integers, [z, y, x]
    probabilities : array, float32, [class, z, y, x]
    confidence : array, float32, [z, y, x]
        The largest average probability.
    entropy : array, float32, [z, y, x]
        -sum p ln p of the average; of sigmoids each class against its absence.
    """

    labels: Any = None
    probabilities: Any = None
    confidence: Any = None
    entropy: Any = None

    @property
    def only_labels(self) -> bool:
        """Whether nothing but labels is asked for."""
        return self.probabilities is None and self.confidence is None and self.entropy is None


# What an engine is called with: a work, a source, a destination, and how sums become voxels.
Call = tuple[Work, Any, Any, Store]


class Combiner(Protocol):
    """Combines the blocks of one ensemble, one after the other."""

    @property
    def types(self) -> tuple[str, ...]:
        """Types of scores that it takes."""

    @property
    def stages(self) -> bool:
        """Whether scores are copied to get to it."""

    @property
    def room(self) -> int:
        """Bytes that a block may take where it computes."""

    def combine(self, work: Ensemble, scores: Sequence[Any], outputs: Outputs) -> None:
        """Fill `outputs`, or see to it that they will be filled, from the scores [class, z, y, x] of every member."""

    def counts(self) -> list[int]:
        """Voxels without usable scores, of every member; waits until all is done."""


class Engine(Protocol):
    """What both engines do.

    Voxels are integers of 8 to 64 bits and floats of 16 to 64, in any pair of types.
    """

    name: str

    def run(self, work: Work, src: Any, dst: Any, store: Store) -> None:
        """Fill `dst` `[..., z, y, x]` from `src` `[..., z, y, x]`; both may have any strides."""

    def run_all(self, calls: Sequence[Call]) -> None:
        """`run` of several calls; what they have in common, the engine may do once."""

    def combining(self, models: int) -> AbstractContextManager[Combiner]:
        """What combines the blocks of one ensemble of so many models; all of it is done when the block is left."""


class Differentiable(Engine, Protocol):
    """An engine that has the ways back of a gather of sums, too."""

    def splat(self, work: Gather, grad: Any, out: Any) -> None:
        """Fill `out`, of the source's shape, with the transposed gather of `grad`, of the output's.

        `<run(x), y> = <x, splat(y)>` where the default value is 0. Of sums that are not normalised. Both are
        [..., z, y, x], floats, with any strides; the same bits every time.
        """

    def gradient(self, work: Gather, src: Any, out: Any, grad: Any = None) -> None:
        """Fill `out` [..., 3, z, y, x] with derivatives of a gather by its voxels' positions on the source, x, y, z.

        Of `src` [..., z, y, x]. With `grad` [..., c, z, y, x], of the output's shape, `src` is [..., c, z, y, x] and
        `out` the sum over channels of derivative times `grad`; a work's routes are those of the axes before channels.
        Outside, and where positions clamp, it is 0.
        """

    def moments(self, values: Any, field: Any, out: Any) -> None:
        """Fill `out` [n, 3, 4], float64, with sums over voxels of `values` [n, 3, z, y, x] times x, y, z and 1.

        With a `field` [n or 1, 3, z, y, x], components x, y, z, the voxel's index is moved by it; None is no field. The
        same bits every time.
        """

"""The bounds that we promise, and what a comparison against them leaves."""

from __future__ import annotations

from dataclasses import dataclass

SINGLE, DOUBLE, DOUBLE_GAUSSIAN = 2e-6, 1e-9, 1e-7
# ITK's Bessel polynomials are good to 1e-8 of a kernel's peak.
DOUBLE_DISCRETE = 2e-8
# SimpleITK's recursive filters store float32 after every axis.
RECURSIVE = 4e-6
MOST_DIFFERING = 0.005


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes
    ----------
    interpolation, volume, geometry : str
        What was asked for: an interpolation or a filter, of what, onto which grid or how wide.
    error : float
        Largest error of the float result over the input's range; for copied voxels and labels 0 or 1.
    bound : float
        What `error` must not exceed.
    step : int
        Largest difference of the integer result.
    differ : float
        Share of integer voxels that differ.
    ok : bool
        Whether all bounds hold.
    """

    interpolation: str
    volume: str
    geometry: str
    error: float
    bound: float
    step: int
    differ: float
    ok: bool

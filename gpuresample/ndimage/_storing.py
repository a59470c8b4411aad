"""From sums to elements: SciPy's rounding of interpolation, its cuts of filters, its complex halves."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from gpuresample.engines.interface import Store
from gpuresample.engines.packing import accumulator
from gpuresample.ndimage._base import Output


def is_plain(array: Any, source: Any, where: str) -> bool:
    """Whether an engine may write there while it reads `source`."""
    if not array.flags.writeable if where == "cpu" else False:
        raise ValueError("output must be writeable")
    return bool(array.dtype.isnative) and not (where == "cpu" and np.may_share_memory(array, source))


def precision_for(source: np.dtype[Any], target: np.dtype[Any]) -> str:
    """What sums are made in: "single" where float32 comes out, and no more went in."""
    wide = source.itemsize == 8 or (source.kind in "iu" and source.itemsize > 2)
    return "double" if wide or target != np.float32 else "single"


def target_of(output: Any, source: Any, precision: str, space: ModuleType, where: str) -> Any:
    """Where sums go: to the output if that is of their type, else to an array that is to be stored from."""
    if output.dtype == accumulator(precision) and is_plain(output, source, where):
        return output
    return space.empty(output.shape, accumulator(precision))


def rounded(sums: Any, output: Any, space: ModuleType) -> None:
    """Sums of interpolation as elements: halves go away from zero, integers saturate; bytes of booleans are cut."""
    dtype = output.dtype
    if sums is output:
        return
    if dtype.kind == "b":
        output[...] = sums.astype(np.uint8).astype(np.bool_)
    elif dtype.kind == "f":
        output[...] = sums
    else:
        info = np.iinfo(dtype)
        sums += space.where(sums > 0.0, 0.5, -0.5)
        # The largest integers of 64 bits are no floats.
        high, low = sums >= float(info.max), sums <= float(info.min)
        with np.errstate(invalid="ignore"):
            output[...] = space.where(high | low, 0.0, sums).astype(dtype)
        output[high], output[low] = info.max, info.min


def cut(sums: Any, output: Any) -> None:
    """Sums of a filter as elements: as C converts them."""
    if sums is output:
        return
    with np.errstate(invalid="ignore", over="ignore"):
        if output.dtype.kind == "b":
            output[...] = sums.astype(np.uint8).view(np.bool_)
        elif output.dtype.kind in "iu" and output.dtype.itemsize < 8:
            # What does not fit wraps around.
            output[...] = sums.astype(np.int64).astype(output.dtype)
        else:
            output[...] = sums.astype(output.dtype)


def share_of(missing: Any, cval: float, space: ModuleType) -> Any:
    """What a constant adds to sums that lack a part of their weights; where nothing is missing that is 0 of any."""
    with np.errstate(invalid="ignore"):
        return space.where(missing != 0.0, missing * cval, 0.0)


def constant_of(value: Any, dtype: np.dtype[Any]) -> Any:
    """A constant as it is stored by `rounded`."""
    with np.errstate(invalid="ignore"):
        if dtype.kind == "b":
            return np.bool_(np.isfinite(value) and int(value) & 255)
        if dtype.kind == "f":
            return dtype.type(value)
    if np.isnan(value):
        return 0
    info = np.iinfo(dtype)
    return int(min(max(np.trunc(value + (0.5 if value > 0 else -0.5)), info.min), info.max))


def halves(output: Output) -> tuple[Output, Output]:
    """The real and the imaginary half of an output."""
    array = output.array
    return Output(array.real, array.real, None), Output(array.imag, array.imag, None)


STORE = Store()

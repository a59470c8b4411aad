"""Complex voxels of NumPy and CuPy arrays: real and imaginary parts are two volumes that go through together."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from gpuresample.checks import shown
from gpuresample.containers import Container, hold, unwrap
from gpuresample.plans import Execute, Plan, execute_all

# Halves of complex types.
REAL: dict[np.dtype[Any], np.dtype[Any]] = {
    np.dtype(np.complex64): np.dtype(np.float32),
    np.dtype(np.complex128): np.dtype(np.float64),
}

PlanOf = Callable[[Container, np.dtype[Any], float], Plan]
"""The plan for a container of a half or of both, its type and default value."""


def is_complex(image: object) -> bool:
    """Whether an image is a NumPy or CuPy array of complex voxels."""
    known = isinstance(image, (np.ndarray, getattr(sys.modules.get("cupy"), "ndarray", np.ndarray)))
    return known and image.dtype.kind == "c"  # type: ignore[attr-defined]


def run(
    image: Any,
    out: Any,
    dtype: Any,
    default: Any,
    input_spacing: Any,
    plan_of: PlanOf,
    alike: bool = True,
    run_plans: Execute = execute_all,
) -> Any:
    """Run a plan on both halves of a complex array.

    Parameters
    ----------
    image : numpy.ndarray or cupy.ndarray
    out : the same, or None
    dtype : complex type, or None
    default : number
        Value of voxels outside.
    plan_of : callable
    alike : bool
        Whether all volumes go the same way: then halves are volumes of one batch.
    run_plans : callable
        Who runs them.

    Raises
    ------
    TypeError, ValueError
        For types that are not complex or too wide, and an `out` that does not fit.
    """
    held = hold(image)
    assert held is not None
    image = held.voxels
    own: np.dtype[Any] = np.dtype(image.dtype).newbyteorder("=")
    wanted: np.dtype[Any] = own if dtype is None else np.dtype(dtype)
    if own not in REAL or wanted not in REAL:
        name, found = ("image", own) if own not in REAL else ("dtype", wanted)
        raise TypeError(f"{name} must be complex64 or complex128 for a complex image, got {found}")
    if not image.dtype.isnative:
        image = image.astype(own)
    if isinstance(default, bool) or not isinstance(default, (int, float, complex, np.number)):
        raise TypeError(f"default_value must be a number, got {shown(default)}")
    constant = complex(default)
    # Of two axes, the halves would be taken for the third; and a constant may be another for each.
    together = alike and image.ndim > 2 and constant == 0
    real = REAL[wanted]
    sources = [_both(image)] if together else [image.real, image.imag]
    values = [0.0] if together else [constant.real, constant.imag]
    containers = [unwrap(source, input_spacing) for source in sources]
    plans = [plan_of(c, real, value) for c, value in zip(containers, values, strict=True)]
    d = plans[0].target.dimension
    shape = (*image.shape[: image.ndim - d], *plans[0].output_shape)
    if out is None:
        out = (np if isinstance(image, np.ndarray) else sys.modules["cupy"]).empty(shape, wanted)
    given = hold(out, "out") if is_complex(out) else None
    if given is None or given.library != held.library or given.voxels.dtype != wanted:
        raise TypeError(f"out must be an array of {wanted} like the input, got {shown(getattr(out, 'dtype', out))}")
    if tuple(out.shape) != shape:
        raise ValueError(f"out must have shape {shape}, got {tuple(out.shape)}")
    voxels = given.voxels
    targets = [_both(voxels)] if together else [voxels.real, voxels.imag]
    run_plans(list(zip(plans, containers, targets, strict=True)))
    return out


def _both(array: Any) -> Any:
    """A view with the halves of a complex array along a new first axis."""
    half = array.real
    strided = (np if isinstance(array, np.ndarray) else sys.modules["cupy"]).lib.stride_tricks.as_strided
    return strided(half, (2, *half.shape), (half.itemsize, *half.strides))

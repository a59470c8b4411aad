"""Routes as the kernels read them: `route_t` of kernels/path.cuh."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample.engines.cuda.runtime import Runtime, Uploads
from gpuresample.engines.cuda.views import View
from gpuresample.planning.works import Lattice, Linear, Route

# As kernels/path.cuh has them.
MAX_STAGES, LANES, ROWS, STRIPS = 8, 32, 8, 4
KINDS = {"matrix": 0, "linear": 1, "nearest": 2, "spline": 3, "direct": 4}
STAGE = np.dtype(
    [
        ("matrix", np.float64, 9), ("offset", np.float64, 3), ("vectors", np.uint64), ("stride", np.int64, 4),
        ("n", np.int32, 3), ("kind", np.int32), ("order", np.int32), ("wide", np.int32),
    ]
)  # fmt: skip
ROUTE = np.dtype(
    [
        ("step", np.float64, 9), ("origin", np.float64, 3), ("inverse", np.float64, 9), ("origin_in", np.float64, 3),
        ("start", np.int32, 3), ("n0", np.int32), ("lines", np.int32), ("n_stages", np.int32),
        ("stage", STAGE, MAX_STAGES),
    ]
)  # fmt: skip
# `shared_t` of kernels/path.cuh: both ends of every row of a block, and where its columns lie between them.
SHARED_BYTES = 8 * (ROWS * 2 * 3 + LANES * STRIPS)


def kind_of(routes: Sequence[Route]) -> str:
    """Which version of a kernel follows the routes of a launch: "", "_field" or "_lattice"."""
    if all(route.lines for route in routes):
        return ""
    return "_field" if all(_is_field(route) for route in routes) else "_lattice"


def _is_field(route: Route) -> bool:
    """Whether a route is a field on the output's own voxels, and points, voxels and samples have the same axes."""
    stage = route.stages[0]
    if len(route.stages) > 1 or not isinstance(stage, Lattice) or not stage.direct:
        return False
    return all(np.array_equal(m, np.diag(np.diag(m))) for m in (route.step, route.inverse))


def blocks(n_dst: Sequence[int]) -> int:
    """Blocks that voxels z, y, x of one volume take."""
    n_z, n_y, n_x = n_dst
    return -(-n_x // (LANES * STRIPS)) * -(-n_z * n_y // ROWS)


def packed(
    runtime: Runtime, uploads: Uploads, routes: Sequence[Route], n_dst: Sequence[int]
) -> tuple[npt.NDArray[np.void], list[Any]]:
    """Routes of blocks of `n_dst` voxels z, y, x, as an array of `route_t`, and what must outlive its use.

    The vectors of a lattice go to the device once, and stay there as long as the lattice lives; of a lattice on the
    output's own voxels only those of the block do, unless the block is all of it.

    Raises
    ------
    ValueError
        If a route has more than `MAX_STAGES` stages, or a lattice cannot be one.
    """
    rows, keep = np.zeros(len(routes), ROUTE), list[Any]()
    for row, route in zip(rows, routes, strict=True):
        if len(route.stages) > MAX_STAGES:
            raise ValueError(f"a route must have at most {MAX_STAGES} stages on a GPU, got {len(route.stages)}")
        for name in ("step", "origin", "inverse", "origin_in"):
            row[name] = np.ravel(getattr(route, name))
        row["start"], row["n0"] = route.start, route.n0
        row["lines"], row["n_stages"] = route.lines, len(route.stages)
        for place, stage in zip(row["stage"], route.stages, strict=False):
            if isinstance(stage, Linear):
                place["kind"] = KINDS["matrix"]
                place["matrix"], place["offset"] = np.ravel(stage.matrix), stage.offset
                continue
            _check(stage)
            view, first = _vectors(runtime, uploads, stage, route.start, n_dst)
            keep.append(view)
            place["kind"] = KINDS["direct" if stage.direct else stage.kind]
            place["matrix"], place["offset"] = np.ravel(stage.inverse), stage.origin
            place["vectors"], place["stride"] = view.address, view.strides
            place["n"] = first if stage.direct else view.shape[2::-1]
            place["order"], place["wide"] = stage.order, view.dtype == np.float64
    return rows, keep


def _check(lattice: Lattice) -> None:
    """What would read outside of memory, or be read as what it is not."""
    shape, dtype = lattice.vectors.shape, np.dtype(lattice.vectors.dtype).newbyteorder("=")
    if len(shape) != 4 or shape[3] != 3:
        raise ValueError(f"vectors of a lattice must have the shape (z, y, x, 3), got {tuple(shape)}")
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"vectors of a lattice must be float32 or float64, got {dtype}")
    if lattice.kind not in ("linear", "nearest", "spline"):
        raise ValueError(f"kind of a lattice must be 'linear', 'nearest' or 'spline', got {lattice.kind!r}")
    if lattice.kind != "spline":
        if min(shape) < 1:
            raise ValueError(f"a lattice must have a node, got the shape {tuple(shape)}")
        return
    if lattice.order not in (1, 2, 3):
        raise ValueError(f"order of a spline's lattice must be 1, 2 or 3, got {lattice.order}")
    least = lattice.order + 1
    if any(n < least for n in shape[1:3]) or (shape[0] != 1 and shape[0] < least):
        raise ValueError(
            f"a spline of order {lattice.order} needs {least} nodes along every axis, got the shape {tuple(shape)}"
        )


def _vectors(
    runtime: Runtime, uploads: Uploads, lattice: Lattice, start: tuple[int, int, int], n_dst: Sequence[int]
) -> tuple[View, tuple[int, int, int]]:
    """A lattice's vectors on the device, and the voxel x, y, z of the whole output that the first belongs to."""
    vectors = lattice.vectors
    if not lattice.direct:
        return uploads.get(lattice, "vectors", lambda: _upload(runtime, vectors)), (0, 0, 0)
    block = tuple((at, at + n) for at, n in zip(start, n_dst[::-1], strict=True))
    if any(hi > n for (_, hi), n in zip(block, vectors.shape[2::-1], strict=True)):
        raise ValueError(f"a lattice on the output's voxels must have them all, got the shape {tuple(vectors.shape)}")
    (x0, x1), (y0, y1), (z0, z1) = block
    if (z1 - z0, y1 - y0, x1 - x0) == tuple(vectors.shape[:3]):
        return uploads.get(lattice, "vectors", lambda: _upload(runtime, vectors)), (0, 0, 0)
    return _upload(runtime, vectors[z0:z1, y0:y1, x0:x1]), start


def _upload(runtime: Runtime, vectors: Any) -> View:
    """Vectors on the device: as they are, if they are there already."""
    if not np.dtype(vectors.dtype).isnative:
        vectors = vectors.astype(np.dtype(vectors.dtype).newbyteorder("="))
    copy = runtime.upload(vectors)
    return View.of(copy, runtime.address(copy))

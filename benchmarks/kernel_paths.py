"""Gathers along routes, for `benchmarks.kernels`: rotated grids, fields, B-splines and batches, beside torch.

The volume is float32, 256 x 256 x 192 voxels of 1 mm, turned by 0.1, 0.15 and 0.2 rad about its centre onto its own
grid. What must move is the source, the output, and a field's vectors, each once; a cubic's coefficients are not among
them.

torch stands beside as a user writes it: `affine_grid` and `grid_sample` (zeros, align_corners=False), called one after
the other and timed together, by the same events in the same stream and with the same emptied cache. Its matrices are in
its own units, so it samples the same positions to rounding: the share of the work is the same, the values are not
compared. A field is added to the grid of the identity, which torch may keep. For label votes, cubic interpolation and
B-spline transforms in 3-D torch has nothing to call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import SimpleITK as sitk

from benchmarks.device import Device, launched, median, nbytes, torch_on
from gpuresample import Grid
from gpuresample.bench.cases import Array
from gpuresample.engines.interface import Store
from gpuresample.planning import planner
from gpuresample.planning.transforms import of_sitk
from gpuresample.planning.works import Gather, Lattice, Route

SIZE, SMALL, BATCH = (256, 256, 192), (64, 64, 64), 32
ANGLES = (0.1, 0.15, 0.2)
# Largest displacement in mm.
MOVE = 4.0
# What DESIGN.md asks for, section 7: share of the copy's bandwidth, and times torch's speed.
SHARE, TORCH, TORCH_BATCH = 0.60, 3.0, 1.0


@dataclass(frozen=True, eq=False)
class Job:
    """A gather, and what torch would do in its place.

    Attributes
    ----------
    name : str
    work : Gather
    volumes : int
        Of the batch.
    dtype : str
    more : int
        Bytes that must move beside source and output.
    peer : str
        "affine", "field", or "" where torch has nothing.
    share : float or None
        Of the copy's bandwidth, that is asked for.
    """

    name: str
    work: Gather
    volumes: int
    dtype: str
    more: int = 0
    peer: str = ""
    share: float | None = None


def turned(grid: Grid, angles: tuple[float, ...], interpolation: str) -> Gather:
    """A grid turned about its centre onto itself."""
    euler = sitk.Euler3DTransform()
    euler.SetCenter([(n - 1) / 2 for n in grid.size])
    euler.SetRotation(*angles)
    work = planner.make_work(grid, grid, (of_sitk(euler, 3, grid),), interpolation, None, False, "single")
    assert isinstance(work, Gather)
    return work


def along(work: Gather, grid: Grid, lattice: Lattice) -> Gather:
    """The same with the route through a lattice alone."""
    route = work.routes[0]
    way = Route(
        route.step, route.origin, (lattice,), route.inverse, route.origin_in, grid.size[0], (0, 0, 0)
    )  # fmt: skip
    return replace(work, routes=(way,))


def field(grid: Grid) -> Lattice:
    """Smooth vectors on the grid's own voxels."""
    z, y, x = np.meshgrid(*[np.linspace(0, np.pi, n) for n in grid.size[::-1]], indexing="ij", sparse=True)
    vectors = np.empty((*grid.size[::-1], 3), np.float32)
    for c, (a, b) in enumerate(((x, y), (y, z), (z, x))):
        vectors[..., c] = MOVE * np.sin(a) * np.cos(2 * b)
    return Lattice(vectors, grid.point_to_index, np.array(grid.origin), "linear", 1, None, direct=True)


def spline(grid: Grid) -> Lattice:
    """A cubic B-spline of 8 x 8 x 8 cells over the grid."""
    transform = sitk.BSplineTransform(3, 3)
    transform.SetTransformDomainPhysicalDimensions([float(n) for n in grid.size])
    transform.SetTransformDomainOrigin([-0.5] * 3)
    transform.SetTransformDomainMeshSize([8] * 3)
    fixed = transform.GetFixedParameters()
    size = tuple(int(n) for n in fixed[:3])
    nodes = Grid(size, fixed[6:9], fixed[3:6], fixed[9:])
    vectors = np.random.default_rng(0).uniform(-MOVE, MOVE, (*size[::-1], 3))
    return Lattice(vectors, nodes.point_to_index, np.array(nodes.origin), "spline", 3, None, direct=False)


def jobs(factor: int) -> Iterator[Job]:
    """The jobs, with so many times fewer voxels on every axis."""
    grid = Grid.of_size(tuple(n // factor for n in SIZE))
    linear, moved = turned(grid, ANGLES, "linear"), field(grid)
    yield Job("affine, linear", linear, 1, "float32", peer="affine", share=SHARE)
    yield Job("affine, nearest", turned(grid, ANGLES, "nearest"), 1, "float32", peer="affine")
    yield Job("affine, cubic B-spline", turned(grid, ANGLES, "bspline3"), 1, "float32")
    yield Job("affine, label_linear, 9 labels", turned(grid, ANGLES, "label_linear"), 1, "uint8")
    more = nbytes(moved.vectors.shape, moved.vectors.dtype)
    yield Job("field on the output's grid, linear", along(linear, grid, moved), 1, "float32", more, "field", SHARE)
    yield Job("B-spline transform, 8x8x8 mesh, linear", along(linear, grid, spline(grid)), 1, "float32")
    small = Grid.of_size(tuple(n // factor for n in SMALL))
    each = [turned(small, tuple(a * (k + 1) / BATCH for a in ANGLES), "linear") for k in range(BATCH)]
    batch = replace(each[0], routes=tuple(work.routes[0] for work in each))
    yield Job(f"batch of {BATCH}, own matrices, linear", batch, BATCH, "float32", peer="affine")


def rows(device: Device, factor: int, runs: int, bandwidth: float) -> Iterator[dict[str, Any]]:
    """Every job's time, the bytes that it cannot but move, their share of the copy's bandwidth, and torch's time."""
    for job in jobs(factor):
        shape = (job.volumes, *job.work.n_dst)
        rng = np.random.default_rng(0)
        host: Array = rng.integers(0, 9, shape).astype(job.dtype)
        src, dst = device.array(host), device.empty(shape, host.dtype)

        def call(job: Job = job, src: Any = src, dst: Any = dst) -> None:
            device.engine.run(job.work, src, dst, Store())

        kernels, seconds = launched(device, call), median(device, call, runs)
        moved = 2 * nbytes(shape, host.dtype) + job.more
        yield {
            "name": job.name, "kernels": "+".join(sorted(kernels)), "launches": kernels.total(), "bytes": moved,
            "seconds": seconds, "of_bandwidth": moved / seconds / bandwidth, "share": job.share,
            "torch": by_torch(device, job, host, runs), "torch_target": TORCH_BATCH if job.volumes > 1 else TORCH,
        }  # fmt: skip


def by_torch(device: Device, job: Job, host: Array, runs: int) -> float | None:
    """Seconds that torch takes for the same; None where it cannot, or is not there."""
    torch = torch_on(device)
    if not job.peer or torch is None:
        return None
    src = torch.from_numpy(host).cuda()[:, None]
    n = np.array(job.work.n_dst[::-1], np.float64)
    matrices = [_theta(route, n) for route in job.work.routes]
    theta = torch.tensor(np.array(matrices), dtype=torch.float32, device="cuda")
    mode = "nearest" if job.work.method == "index" else "bilinear"
    sample = torch.nn.functional.grid_sample
    make = torch.nn.functional.affine_grid

    def affine() -> Any:
        return sample(src, make(theta, src.shape, align_corners=False), mode=mode, align_corners=False)

    if job.peer == "affine":
        return median(device, affine, runs)
    lattice = job.work.routes[0].stages[0]
    assert isinstance(lattice, Lattice)
    vectors = torch.from_numpy(lattice.vectors * (2.0 / n).astype(np.float32)).cuda()[None]
    identity = make(torch.eye(3, 4, device="cuda")[None], src.shape, align_corners=False)

    def deformed() -> Any:
        return sample(src, identity + vectors, mode=mode, align_corners=False)

    return median(device, deformed, runs)


def _theta(route: Route, n: Array) -> Array:
    """A route of one matrix as torch's: from -1 to 1 along every axis, faces included."""
    stage = route.stages[0]
    if isinstance(stage, Lattice):
        return np.eye(3, 4)
    matrix = route.inverse @ stage.matrix @ route.step
    shift = route.inverse @ (stage.matrix @ route.origin + stage.offset - route.origin_in)
    # x = matrix i + shift, i = ((g + 1) n - 1) / 2 and the same for x.
    corner = matrix @ ((n - 1) / 2) + shift
    return np.column_stack([matrix * n / n[:, None], (2 * corner + 1) / n - 1])


def table(facts: dict[str, Any], verdict: Callable[[dict[str, Any], float, float], str]) -> Any:
    """Title, header and rows of the report's table."""
    from gpuresample.bench import tables

    lines = []
    for row in facts["paths"]:
        torch = row["torch"]
        faster = "-" if torch is None else f"{torch / row['seconds']:.1f}x"
        lines.append([
            row["name"], row["kernels"], str(row["launches"]), tables.megabytes(row["bytes"]),
            tables.duration(row["seconds"]), f"{row['bytes'] / row['seconds'] / 1e9:.1f} GB/s",
            f"{100 * row['of_bandwidth']:.0f} %",
            "-" if row["share"] is None else verdict(facts, row["of_bandwidth"], row["share"]),
            "-" if torch is None else tables.duration(torch), faster,
            "-" if torch is None else verdict(facts, torch / row["seconds"], row["torch_target"]),
        ])  # fmt: skip
    header = ["job", "kernels", "launches", "must move", "time", "rate", "of the copy", "target", "torch", "faster by",
              "target"]  # fmt: skip
    return f"Rotated and deformed grids on {facts['device']}; torch: affine_grid and grid_sample", header, lines

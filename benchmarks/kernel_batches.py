"""Batches of small volumes by tables, Gaussians and ensembles, for `benchmarks.kernels`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.device import Device, launched, median, torch_on
from gpuresample import Grid
from gpuresample.bench import tables
from gpuresample.bench.cases import Array
from gpuresample.engines.interface import Outputs, Store
from gpuresample.ops import ensemble_walk
from gpuresample.planning import planner
from gpuresample.planning.works import Ensemble

BATCH, SMALL = 32, 64
MODELS, CLASSES = 2, 12
TORCH = 1.0


def rows(device: Device, factor: int, runs: int) -> Iterator[dict[str, Any]]:
    """Every job's time on the device, when its call returns, its launches, and torch's time where it has one."""
    rng = np.random.default_rng(0)
    n = max(4, SMALL // factor)
    m = n * 25 // 32
    before = Grid.of_size((n, n, n), (0.78125,) * 3)
    # Faces together, as torch's interpolate has them.
    edge = (n * 0.78125 / m - 0.78125) / 2
    after = Grid((m, m, m), (n * 0.78125 / m,) * 3, (edge,) * 3, before.direction)
    host = rng.standard_normal((BATCH, n, n, n)).astype(np.float32)
    for name in ("linear", "bspline3", "gaussian"):
        work = planner.make_work(before, after, (), name, None, False, "single")
        src, dst = device.array(host), device.empty((BATCH, m, m, m), np.float32)

        def call(work: Any = work, src: Any = src, dst: Any = dst) -> None:
            device.engine.run(work, src, dst, Store())

        torch = _torch(device, host, (m, m, m), runs) if name == "linear" else None
        yield _timed(device, f"batch of {BATCH} x {n}^3, {name}", call, runs, torch)
    yield _timed(device, f"ensemble of {MODELS} x {CLASSES} classes", ensemble(device, factor, rng), runs, None)


def ensemble(device: Device, factor: int, rng: np.random.Generator) -> Callable[[], None]:
    """A block of an ensemble: labels of scores on half the voxels of every axis."""
    n_z, n_y, n_x = (max(2, k // factor) for k in (64, 200, 200))
    fine = Grid.of_size((n_x, n_y, n_z))
    coarse = Grid((n_x // 2, n_y // 2, n_z // 2), (2.0,) * 3, (0.5,) * 3, fine.direction)
    members = tuple(ensemble_walk.member(coarse, fine, "linear", 1 / MODELS) for _ in range(MODELS))
    thresholds, values = np.full(CLASSES, 0.5, np.float32), np.arange(CLASSES + 1, dtype=np.uint64)
    work = Ensemble(members, CLASSES, (n_z, n_y, n_x), "softmax", False, "largest", thresholds, values)
    shape = (CLASSES, *coarse.size[::-1])
    scores = [device.array(rng.standard_normal(shape).astype(np.float32)) for _ in range(MODELS)]
    labels = device.empty((n_z, n_y, n_x), np.uint8)

    def call() -> None:
        with device.engine.combining(MODELS) as combiner:
            combiner.combine(work, scores, Outputs(labels))

    return call


def _timed(device: Device, name: str, call: Callable[[], None], runs: int, torch: float | None) -> dict[str, Any]:
    kernels = launched(device, call)
    return {
        "name": name, "kernels": "+".join(sorted(kernels)), "launches": kernels.total(),
        "seconds": median(device, call, runs), "returns": device.returns(call, runs), "torch": torch,
    }  # fmt: skip


def _torch(device: Device, host: Array, size: tuple[int, int, int], runs: int) -> float | None:
    """Seconds of torch's trilinear interpolation of the whole batch; None where it cannot, or is not there."""
    torch = torch_on(device)
    if torch is None:
        return None
    src = torch.from_numpy(host).cuda()[:, None]

    def call() -> Any:
        return torch.nn.functional.interpolate(src, size, mode="trilinear", align_corners=False)

    return median(device, call, runs)


def table(facts: dict[str, Any], verdict: Callable[[dict[str, Any], float, float], str]) -> Any:
    """Title, header and rows of the report's table."""
    lines = []
    for row in facts["batches"]:
        torch = row["torch"]
        faster = [] if torch is None else [tables.duration(torch), verdict(facts, torch / row["seconds"], TORCH)]
        lines.append([
            row["name"], row["kernels"], str(row["launches"]), tables.duration(row["seconds"]),
            tables.duration(row["returns"]), *(faster or ["-", "-"]),
        ])  # fmt: skip
    header = ["job", "kernels", "launches", "time", "call returns", "torch", "target"]
    return f"Batches and ensembles on {facts['device']}; torch: interpolate", header, lines

"""Measures this machine's rates, for the time estimates of `Plan.cost` and `gpuresample plan-cost`.

A few small jobs, the rates solved from their times. The jobs are not those of `python -m benchmarks.cost`, which sets
estimates against the clock.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample.bench import phantom
from gpuresample.containers import Volume
from gpuresample.costs import estimate as costs
from gpuresample.costs import rates
from gpuresample.costs.rates import Rates
from gpuresample.files import disk
from gpuresample.files import volumes as files
from gpuresample.ops import resample, shrink
from gpuresample.planning.grid import Grid
from gpuresample.plans import Plan, call_of

Array = npt.NDArray[Any]

SIZE = (224, 224, 96)  # x, y, z
SMALL = (192, 96, 48)  # of what is slow: votes, gathers
LARGE_BYTES = 1 << 26  # copies of memory, larger than caches
RAW_BYTES = 1 << 26  # of an uncompressed file
# Runs of every job; more than the least while they take less than this many seconds.
LEAST_RUNS, MOST_RUNS, BUDGET = 3, 20, 0.25


def machine() -> Rates:
    """Rates of this machine: stored ones, or measured now where there are none or they are stale.

    Returns
    -------
    Rates
    """
    stored = rates.current()
    return calibrate() if stored is None else stored


def calibrate(store: bool = True) -> Rates:
    """Measure how fast this machine resamples, reads and writes. It takes some ten seconds, and more on first use.

    Parameters
    ----------
    store : bool
        Whether the result is stored for `Plan.cost`, in the file that `gpuresample.costs.rates.path()` names.

    Returns
    -------
    Rates

    Raises
    ------
    OSError
        If the result cannot be stored, or no temporary files can be written.
    """
    values = _memory()
    values |= _tables(values["memory_byte"])
    values |= _gathers(values) | _votes()
    with tempfile.TemporaryDirectory(prefix="gpuresample-") as folder:
        values |= _files(Path(folder))
    measured = Rates(rates.identity(), time.time(), {name: max(0.0, values[name]) for name in rates.NAMES})
    if store:
        rates.save(measured)
    return measured


def _seconds(call: Callable[[], Any]) -> float:
    """The fastest of some runs, after one that compiles and makes scratch: what other programs take is not ours."""
    call()
    times: list[float] = []
    while len(times) < LEAST_RUNS or (sum(times) < BUDGET and len(times) < MOST_RUNS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def _run(plan: Plan, image: Array, fresh: bool = False) -> float:
    """Time of a plan on an array; into memory that is there already unless `fresh`."""
    image = image.astype(plan.input_dtype, copy=False)
    out = None if fresh else np.ones(plan.output_shape, plan.dtype)
    return _seconds(lambda: plan.run(image, out))


def _image(size: tuple[int, int, int], dtype: npt.DTypeLike) -> Array:
    import SimpleITK as sitk

    return sitk.GetArrayFromImage(phantom.phantom(size)).astype(dtype)


def _plan(size: tuple[int, int, int], dtype: npt.DTypeLike, factor: float, interpolation: str) -> Plan:
    """A plan onto a grid `factor` times as coarse on every axis."""
    image = np.broadcast_to(np.zeros((), dtype), size[::-1])
    return resample.plan(image, spacing=factor, interpolation=interpolation, device="cpu")


# --- memory and tables ---------------------------------------------------------------------------------------------


def _memory() -> dict[str, float]:
    """Bytes through the memory by all threads: copies by index, as large as they come."""
    shape = (LARGE_BYTES >> 20, 1024, 1024)
    image = np.ones(shape, np.uint8)
    plan = _plan(shape[::-1], np.uint8, 1.0, "nearest")
    warm, cold = _run(plan, image), _run(plan, image, fresh=True)
    return {"memory_byte": warm / (2 * LARGE_BYTES), "new_byte": (cold - warm) / LARGE_BYTES}


def _tables(memory_byte: float) -> dict[str, float]:
    values = {}
    image = _image(SIZE, np.int16)
    tiny = np.zeros((4, 4, 4), np.int16)
    values["call"] = _run(_plan((4, 4, 4), np.int16, 2.0, "linear"), tiny)
    for kind, dtype in (("single", np.int16), ("double", np.float64)):
        for width, interpolation in (("few", "linear"), ("wide", "bspline")):
            spent = amount = 0.0
            for factor in (1.3, 0.8):
                size = SIZE if factor > 1 else SMALL
                plan = _plan(size, dtype, factor, interpolation)
                amounts = _amount(plan)
                around = values["call"] + memory_byte * amounts["memory_byte"]
                spent += max(0.0, _run(plan, image[: size[2], : size[1], : size[0]]) - around)
                amount += amounts[f"{width}_{kind}"]
            values[f"{width}_{kind}"] = spent / amount
    copies = [_plan(SIZE, dtype, 0.9, "nearest") for dtype in (np.uint8, np.float64)]
    voxels = copies[0].target.voxels
    small, large = (_run(plan, image) - values["call"] for plan in copies)
    values["copy_byte"] = max(0.0, large - small) / (7 * voxels)
    values["copy_voxel"] = max(0.0, small / voxels - values["copy_byte"])
    plan = _plan(SIZE, np.float32, 1.0, "nearest")
    target = resample.plan(image, spacing=1.0, interpolation="nearest", dtype=np.float32, device="cpu")
    values["convert"] = (_run(target, image) - _run(plan, image)) / target.source.voxels
    return values


def _amount(plan: Plan) -> dict[str, float]:
    """How often each rate is due in a plan's run."""
    amounts: dict[str, float] = {}
    for name, amount in costs.terms(call_of(plan)):
        amounts[name] = amounts.get(name, 0.0) + amount
    return amounts


# --- rotated grids, labels -----------------------------------------------------------------------------------------


def _turned(dtype: npt.DTypeLike, interpolation: str) -> Plan:
    """A plan onto a grid turned by 10 degrees about z, of the same size."""
    size = SMALL
    c, s = np.cos(np.radians(10.0)), np.sin(np.radians(10.0))
    centre = (np.array(size) - 1) / 2
    turn = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    grid = Grid(size, (1.0,) * 3, tuple((centre - turn @ centre).tolist()), tuple(turn.ravel().tolist()))
    image = Volume(np.broadcast_to(np.zeros((), dtype), size[::-1]), (1, 1, 1))
    return resample.plan(image, like=grid, interpolation=interpolation, device="cpu")


def _run_turned(plan: Plan, array: Array) -> float:
    image = Volume(array.astype(plan.input_dtype, copy=False), (1, 1, 1))
    out = np.ones(plan.output_shape, plan.dtype)
    return _seconds(lambda: plan.run(image, out))


def _gathers(known: dict[str, float]) -> dict[str, float]:
    values = {}
    image = _image(SMALL, np.int16)
    plan = _turned(np.int16, "nearest")
    values["gather_index"] = _run_turned(plan, image) / plan.target.voxels
    for kind, dtype in (("single", np.int16), ("double", np.float64)):
        plan = _turned(dtype, "linear")
        values[f"gather_pair_{kind}"] = _run_turned(plan, image) / plan.target.voxels
        for name, interpolation in (("cubic", "bspline"), ("sinc", "lanczos")):
            plan = _turned(dtype, interpolation)
            around = known[f"wide_{kind}"] * _amount(plan).get(f"wide_{kind}", 0.0)
            values[f"gather_{name}_{kind}"] = max(_run_turned(plan, image) - around, 0.0) / plan.target.voxels
    return values


def _labels(size: tuple[int, int, int]) -> Array:
    """Organs of the phantom by their density: four labels."""
    edges = np.array([-900, -300, 300])
    labels: Array = np.digitize(_image(size, np.int16), edges).astype(np.uint8)
    return labels


def _votes() -> dict[str, float]:
    image = _labels(SMALL)
    values = {}
    for name in ("linear", "gaussian"):
        plan = _turned(np.uint8, f"label_{name}")
        values[f"vote_{name}"] = _run_turned(plan, image) / plan.target.voxels
    for reduce in ("mean", "mode"):
        spent = _seconds(lambda reduce=reduce: shrink.bin_shrink(image, 2, reduce=reduce, device="cpu"))  # type: ignore[misc]
        values[reduce] = spent / image.size
    return values


# --- files ---------------------------------------------------------------------------------------------------------


def _files(folder: Path) -> dict[str, float]:
    """Reading and writing by `files`: two volumes, one hard and one easy to compress, raw and by gzip."""
    import SimpleITK as sitk

    noisy = phantom.phantom(SIZE)
    easy = sitk.GetImageFromArray(_labels(SIZE).astype(np.int16))
    tiny = sitk.GetImageFromArray(np.zeros((2, 2, 2), np.int16))
    values = {}
    values["file_written"] = _written(tiny, folder / "tiny.nii")
    values["file"] = _seconds(lambda: files.read(folder / "tiny.nii"))
    large = sitk.GetImageFromArray(np.zeros((RAW_BYTES >> 20, 1024, 1024), np.uint8))
    values["write_byte"] = max(0.0, _written(large, folder / "raw.nii") - values["file_written"]) / RAW_BYTES
    # SimpleITK gives every image memory of its own and clears it first: most of what reading takes.
    values["read_byte"] = max(0.0, _seconds(lambda: files.read(folder / "raw.nii")) - values["file"]) / RAW_BYTES
    cold = _cold(folder / "raw.nii")
    values["cold_byte"] = max(values["read_byte"], (cold - values["file"]) / RAW_BYTES)
    del large
    cube = [1024, 1024, max(1, RAW_BYTES >> 20)]
    values["image_byte"] = _seconds(lambda: sitk.Image(cube, sitk.sitkUInt8)) / RAW_BYTES
    n = files.Header.of(noisy).nbytes
    sizes, zip_rest, unzip_rest = [], [], []
    for image in (noisy, easy):
        path = folder / "zipped.nii.gz"
        written = _written(image, path)
        size = path.stat().st_size
        sizes.append(size)
        zip_rest.append(written - values["file_written"] - values["write_byte"] * size)
        spent = _seconds(lambda path=path: files.read(path))  # type: ignore[misc]
        unzip_rest.append(spent - values["file"] - values["read_byte"] * size)
    values["gzip_share"] = sizes[0] / n
    values["zip_in"], values["zip_out"] = _two(n, sizes, zip_rest)
    values["unzip_out"], values["unzip_in"] = _two(n, sizes, unzip_rest)
    return values


def _written(image: Any, path: Path) -> float:
    """Seconds to write a volume, the faster of two times."""
    times = []
    for _ in range(2):
        start = time.perf_counter()
        files.write(image, path, overwrite=True)
        times.append(time.perf_counter() - start)
    return min(times)


def _cold(path: Path) -> float:
    """Seconds to read a file that is not in the page cache, the fastest of three times; 0 where that cannot be had."""
    times = []
    for _ in range(3):
        if not disk.forget(path):
            return 0.0
        start = time.perf_counter()
        files.read(path)
        times.append(time.perf_counter() - start)
    return min(times)


def _two(plain: int, zipped: list[int], spent: list[float]) -> tuple[float, float]:
    """Seconds per plain and per compressed byte; all on the plain ones where they cannot be told apart."""
    a, b = np.linalg.solve([[plain, size] for size in zipped], spent).tolist()
    if min(a, b) < 0:
        return max(spent[0] / plain, 0.0), 0.0
    return a, b

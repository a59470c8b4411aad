"""What the suite runs: cases by name, in which sizes and how often, and the scalings."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import gpuresample as gr
from gpuresample import Grid
from gpuresample.bench import cases, devices, ensemble_cases, filter_cases, measure, resampling_cases
from gpuresample.bench.cases import Array, Geometry
from gpuresample.bench.ensemble_cases import Ensemble
from gpuresample.bench.tasks import Case, Doer, Row
from gpuresample.containers import unwrap
from gpuresample.engines.threads import cores
from gpuresample.files import volumes as files
from gpuresample.planning.grid import resized

SIGMAS = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)


@dataclass(frozen=True)
class Profile:
    """How much is run.

    Attributes
    ----------
    name : str
    factor : int
        That many times fewer voxels on every axis.
    runs, at_least : int
        Rounds of every call, and of one that has used up its budget.
    budget : float
        Seconds, see `measure.interleaved`.
    sigmas : tuple of float
        Of the blurs, in voxels.
    sizes : tuple of int
        Voxels along every axis, of the scaling.
    largest : int
        Of the sizes, the largest that peers are asked for.
    again : float
        Seconds up to which a call is run once more for its peak memory.
    """

    name: str
    factor: int
    runs: int
    at_least: int
    budget: float
    sigmas: tuple[float, ...]
    sizes: tuple[int, ...]
    largest: int
    again: float


PROFILES = {
    p.name: p
    for p in (
        Profile("quick", 2, 5, 1, 0.8, (0.5, 1.0, 4.0, 30.0), (64, 128, 256), 128, 0.5),
        Profile("full", 1, 7, 3, 12.0, SIGMAS, (64, 128, 256, 512), 512, 30.0),
        # Whether everything works; its times mean nothing.
        Profile("tiny", 12, 2, 1, 0.02, (1.0,), (16,), 16, 1.0),
    )
}

Make = Callable[[tuple[int, ...]], Array]
NAMES = {"nearest": "nearest", "linear": "linear", "bspline": "cubic B-spline"}


def _of_ct(dtype: str) -> Make:
    def make(shape: tuple[int, ...]) -> Array:
        z, y, x = shape[-3:]
        volumes = [cases.ct_like((z, y, x), dtype, seed=k) for k in range(int(np.prod(shape[:-3])))]
        return np.stack(volumes).reshape(shape)

    return make


def _labels(shape: tuple[int, ...]) -> Array:
    z, y, x = shape
    return cases.label_map((z, y, x), np.uint8)


def _geometry(name: str, size: tuple[int, ...], old: tuple[float, ...], new: tuple[float, ...]) -> Geometry:
    source = Grid.of_size(size, old)
    return Geometry(name, source, resized(source, new))


# Sizes and spacings x, y, z.
CT = cases.REFERENCE
THICK = _geometry("thick slices", (512, 512, 64), (0.75, 0.75, 5.0), (1.0, 1.0, 1.0))
# Not 256 voxels: the last of 366 samples would lie on the image's very edge, where round-off decides what is inside.
BRAIN = _geometry("brain", (240, 240, 160), (1.0, 1.0, 1.0), (0.7, 0.7, 0.7))
UP = _geometry("finer", (160, 160, 160), (1.0, 1.0, 1.0), (0.5, 0.5, 0.5))
DOWN = _geometry("coarser", (320, 320, 320), (1.0, 1.0, 1.0), (1.7, 1.7, 1.7))
SERIES = _geometry("series", (96, 96, 40), (3.0, 3.0, 3.0), (2.0, 2.0, 2.0))
PATCHES = _geometry("patches", (64, 64, 64), (1.0, 1.0, 1.0), (4 / 3, 4 / 3, 4 / 3))


def _smaller(geometry: Geometry, factor: int) -> Geometry:
    """That many times fewer voxels on every axis, and as many on the target as its spacing says."""
    reduced = cases.small(geometry, factor)
    return Geometry(reduced.name, reduced.source, resized(reduced.source, geometry.target.spacing))


def _resamplings(factor: int, gpu: bool) -> Iterator[Case]:
    def case(
        name: str, what: str, geometry: Geometry, kind: str, dtype: str, make: Make, leading: tuple[int, ...] = ()
    ) -> Case:
        reduced = geometry if factor == 1 else _smaller(geometry, factor)
        if name.startswith("oblique"):
            reduced = cases.oblique(reduced)
        what = f"{what}, {NAMES[kind]}, {dtype}"
        return resampling_cases.case(name, what, reduced, kind, dtype, make, leading=leading, gpu=gpu)

    short, single = _of_ct("int16"), _of_ct("float32")
    for kind in ("nearest", "linear", "bspline"):
        yield case(f"ct-recipe-{kind}", "CT recipe", CT, kind, "int16", short)
    yield case("thick-slices-bspline", "Thick-slice CT to 1 mm", THICK, "bspline", "int16", short)
    yield case("brain-mr-bspline", "Brain MR, 1 mm to 0.7 mm", BRAIN, "bspline", "float32", single)
    yield case("isotropic-up-bspline", "Isotropic, twice as fine", UP, "bspline", "float32", single)
    yield case("isotropic-down-linear", "Isotropic, 1.7 times as coarse", DOWN, "linear", "float32", single)
    yield case("oblique-bspline", "CT recipe, grid turned by 10 degrees", CT, "bspline", "int16", short)
    yield case("labels-nearest", "CT recipe, 12 labels", CT, "nearest", "uint8", _labels)
    n = max(16 // factor, 2)
    yield case("series-4d-bspline", f"4-D, {n} volumes, 3 mm to 2 mm", SERIES, "bspline", "int16", short, (n,))
    yield case("batch-32-linear", "32 patches", PATCHES, "linear", "float32", single, (32,))


def _filters(profile: Profile, gpu: bool) -> Iterator[Case]:
    z, y, x = (max(n // profile.factor, 8) for n in CT.source.size[::-1])
    make, shape = _of_ct("int16"), (z, y, x)
    for kind in ("discrete", "sampled", "recursive"):
        for sigma in profile.sigmas:
            yield filter_cases.blur(kind, sigma, shape, make, gpu)
    yield filter_cases.pyramid(2, shape, make, gpu)
    yield filter_cases.pyramid(filter_cases.LEVELS, shape, make, gpu)
    yield filter_cases.block_means(shape, make, gpu)
    yield filter_cases.block_modes(shape, _labels, gpu)


def _ensembles(factor: int, gpu: bool) -> Iterator[Case]:
    def reduced(n: tuple[int, int, int], by: int = factor) -> tuple[int, int, int]:
        z, y, x = (max(k // by, 2) for k in n)
        return z, y, x

    small, whole = reduced((62, 200, 200)), reduced((124, 400, 400))
    yield ensemble_cases.ensemble("ensemble-2x12", Ensemble(2, 12, small, whole), gpu)
    yield ensemble_cases.ensemble("ensemble-1x12", Ensemble(1, 12, small, whole), gpu)
    yield ensemble_cases.ensemble("ensemble-5x12", Ensemble(5, 12, small, whole), gpu)
    yield ensemble_cases.ensemble("ensemble-2x12-bspline", Ensemble(2, 12, small, whole, "bspline"), gpu)
    yield many_classes(factor, measure.memory(), gpu)


def many_classes(factor: int, memory: int, gpu: bool) -> Case:
    """1 model of 118 classes; smaller where its scores would take more than a third of the machine's memory."""
    shape, size = ((max(k // factor, 2) for k in n) for n in ((124, 256, 256), (247, 512, 512)))
    (z, y, x), (tz, ty, tx) = shape, size
    of, note = Ensemble(1, 118, (z, y, x), (tz, ty, tx)), ""
    if 3 * of.input_bytes > memory:
        scale = (memory / 3 / of.input_bytes) ** (1 / 3)
        fewer = [max(int(n * scale), 2) for n in (z, y, x, tz, ty, tx)]
        of = Ensemble(1, 118, (fewer[0], fewer[1], fewer[2]), (fewer[3], fewer[4], fewer[5]))
        note = f"scaled down to fit into {memory / 1e9:.0f} GB of memory"
    return ensemble_cases.ensemble("ensemble-1x118", of, gpu, note=note)


def named(profile: Profile, gpu: bool) -> list[Case]:
    """The named cases."""
    return [*_resamplings(profile.factor, gpu), *_filters(profile, gpu), *_ensembles(profile.factor, gpu)]


def of_image(path: Path, profile: Profile, gpu: bool) -> list[Case]:
    """Cases made from a user's own volume: onto cubic voxels, blurs, a pyramid.

    Raises
    ------
    ValueError
        If the image is no scalar volume of numbers.
    """
    image = files.read(path)
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise ValueError(f"{path}: the suite takes scalar images of 3 dimensions, got one of {image.GetDimension()} "
                         f"with {image.GetNumberOfComponentsPerPixel()} components")  # fmt: skip
    import SimpleITK as sitk

    array, source = sitk.GetArrayFromImage(image), unwrap(image).grid
    dtype = str(array.dtype)
    edge = float(np.prod(source.spacing) ** (1 / 3))
    if max(source.spacing) < 1.05 * min(source.spacing):  # cubes already: coarser ones
        edge *= 1.5
    geometry = Geometry("own", source, resized(source, (edge,) * 3))

    def own(_: tuple[int, ...]) -> Array:
        return array

    found = [
        resampling_cases.case(f"own-{kind}", f"{path.name} to cubes of {edge:.3g} mm, {NAMES[kind]}, {dtype}", geometry,
                              kind, dtype, own, gpu=gpu)
        for kind in ("nearest", "linear", "bspline")
    ]  # fmt: skip
    z, y, x = array.shape
    for kind in ("discrete", "sampled", "recursive") if min(z, y, x) >= 4 else ("discrete", "sampled"):
        found.append(filter_cases.blur(kind, 1.0, (z, y, x), own, gpu, dtype))
    levels = min(filter_cases.LEVELS, int(np.log2(max(min(z, y, x), 2))) + 1)
    found.append(filter_cases.pyramid(levels, (z, y, x), own, gpu))
    return found


# --- scalings, copies, first calls ----------------------------------------------------------------------------------


def _of(case: Case, wanted: tuple[str, ...]) -> list[Doer]:
    return [d for d in case.doers if d.key in wanted]


def _by_size(profile: Profile) -> Iterator[Row]:
    for n in profile.sizes:
        geometry = _geometry("cube", (n, n, n), (1.0, 1.0, 1.0), (1.25, 1.25, 1.25))
        case = resampling_cases.case(
            "cube-bspline", "n^3 to (0.8 n)^3, cubic B-spline, float32", geometry, "bspline", "float32",
            _of_ct("float32"),
        )  # fmt: skip
        wanted = ("gpuresample", "simpleitk", "scipy") if n <= profile.largest else ("gpuresample",)
        for doer in _of(case, wanted):
            yield Row("size", case, doer, size=n)


def _by_threads(case: Case, cores: int) -> Iterator[Row]:
    steps = sorted({*(2**k for k in range(cores.bit_length()) if 2**k < cores), cores})
    for n in steps:
        for doer in _of(case, ("gpuresample", "simpleitk", "scipy")):
            yield Row("threads", case, doer, threads=n)


def _copy(case: Case) -> Row:
    """As many bytes read and written as the case must move."""
    half = max(case.bytes_moved // 2, 1)
    doer = Doer("copy", "NumPy copy, all threads", lambda _: measure.copying(half), np.__version__)
    of = Case(
        case.name, f"A copy of the bytes: {case.what}", lambda: None, lambda _: np.zeros(1), (doer,), (half,), (half,),
        "uint8", "uint8",
    )  # fmt: skip
    return Row("copy", of, doer)


@functools.cache
def _start_ups() -> dict[str, list[float]]:
    """Imports and first calls in new interpreters: the first with nothing compiled, the others with its cache."""
    with tempfile.TemporaryDirectory() as cache:
        fresh = {"NUMBA_CACHE_DIR": cache}
        cold = measure.start_up(fresh)
        warm = [measure.start_up(fresh) for _ in range(3)]
    return {
        "import": [w["import"] for w in warm],
        "nothing compiled": [cold["aligned first"]],
        "nothing compiled, rotated grid": [cold["oblique first"]],
        "in a new process": [w["aligned first"] for w in warm],
        "in a new process, rotated grid": [w["oblique first"] for w in warm],
        "second call": [w["aligned second"] for w in warm],
    }


STARTS = {
    "import": "import gpuresample",
    "nothing compiled": "First call, nothing compiled",
    "nothing compiled, rotated grid": "First call on a rotated grid after that, nothing compiled",
    "in a new process": "First call in a new process, compiled before",
    "in a new process, rotated grid": "First call on a rotated grid after that, compiled before",
    "second call": "Second call",
}


def _cold() -> Iterator[Row]:
    small = (40, 64, 64)
    for name, what in STARTS.items():
        doer = Doer("gpuresample", "gpuresample", lambda _: lambda: None, gr.__version__)
        case = Case(name, what, lambda: None, lambda _: np.zeros(1), (doer,), small, small, "int16", "int16")
        yield Row("cold", case, doer, seconds=lambda name=name: _start_ups()[name])  # type: ignore[misc]


def rows(profile: Profile, image: Path | None = None, only: tuple[str, ...] = ()) -> list[Row]:
    """All rows of a run, in its order.

    Parameters
    ----------
    profile : Profile
    image : Path, optional
        A volume of the user's; then its cases are run, and no others.
    only : tuple of str
        Names of cases and groups ("threads", "sizes", "start-up"), if not all.
    """
    gpu = devices.usable() is not None
    found = of_image(image, profile, gpu) if image is not None else named(profile, gpu)
    by_name = {c.name: c for c in found}
    groups: dict[str, Callable[[], Iterable[Row]]] = {
        "threads": lambda: _by_threads(by_name["own-bspline" if image is not None else "ct-recipe-bspline"], cores())
    }
    if image is None:
        groups |= {"sizes": lambda: _by_size(profile), "start-up": _cold}
    unknown = sorted(set(only) - {*by_name, *groups})
    if unknown:
        raise ValueError(f"there is no case {', '.join(unknown)}; there are {', '.join([*by_name, *groups])}")
    wanted = [c for c in found if not only or c.name in only]
    made = [row for case in wanted for row in (_copy(case), *(Row("case", case, d) for d in case.doers))]
    return made + [row for name, group in groups.items() if not only or name in only for row in group()]


def absent() -> list[str]:
    """Packages that the suite knows and this environment lacks."""
    from gpuresample.bench.peers import GPU_PEERS, PEERS

    return sorted({p.package for p in (*PEERS.values(), *GPU_PEERS.values()) if not p.installed})


def facts(profile: Profile, image: Path | None) -> dict[str, Any]:
    """What a run says about itself beside its rows."""
    told = measure.machine(cores())
    return {
        **told, "gpu": devices.usable(), "profile": profile.name, "image": image.name if image else None,
        "absent": absent(),
    }  # fmt: skip

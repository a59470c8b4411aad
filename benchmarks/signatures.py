"""Which kernels people's voxel types need: jobs are run, and the signatures that they ask for are written down.

`python -m benchmarks.signatures --write` writes `gpuresample/engines/cpu/signatures.txt`, from which kernels are
compiled before they are called; without `--write` it says what differs. Kernels whose results only people would look at
are not run, only recorded: so this takes seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import dis
import importlib
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial, partialmethod
from typing import Any
from unittest import mock

import numpy as np
import SimpleITK as sitk

import gpuresample as gr
import gpuresample.sitk as gsitk
from gpuresample.engines.cpu import ahead, engine, truncation
from gpuresample.engines.cpu import gradient as gradients
from gpuresample.engines.cpu.jit import Entry, Kernel
from gpuresample.engines.interface import Store
from gpuresample.ops.transforms import Path as TransformPath
from gpuresample.planning import planner, shortcuts
from gpuresample.planning.grid import Grid
from gpuresample.planning.transforms import Map, Nodes, Transform
from gpuresample.planning.works import Gather

SHAPE = (7, 8, 9)
VOXELS = ("uint8", "int16", "uint16", "int32", "float32", "float64")
LABELS = ("uint8", "int16", "uint16", "int32", "int64", "float32")
# These find positions and which blocks meet, on which it depends what is called next.
LOOKED_AT = (
    "path_kernels.", "gradient_kernels.reach_rows", "gradient_kernels.field_extremes", "gradient_kernels.levels_of",
)  # fmt: skip
ONES = (1.0, 1.0, 1.0)
TURN = sitk.Euler3DTransform((4.0, 4.0, 4.0), 0.1, 0.15, 0.2)


class Recorder:
    """Takes down what is asked of kernels, in the place of `Kernel._found`."""

    def __init__(self) -> None:
        self.seen: set[ahead.Signature] = set()
        self._found = Kernel._found

    def __call__(self, kernel: Kernel, signature: str) -> Callable[..., Any]:
        """What is called for a signature."""
        self.seen.add((kernel.name, signature))
        if returns_nothing(kernel) and not kernel.name.startswith(LOOKED_AT):
            return lambda slots: None
        found: Entry = self._found(kernel, signature)
        return found


def returns_nothing(kernel: Kernel) -> bool:
    """Whether a kernel only writes to its arguments."""
    before, answers = None, []
    for one in dis.get_instructions(kernel.py_func):
        if one.opname == "RETURN_CONST":
            answers.append(one.argval)
        elif one.opname == "RETURN_VALUE":
            assert before is not None
            answers.append(before.argval if before.opname == "LOAD_CONST" else kernel)
        before = one
    return all(answer is None for answer in answers)


@contextlib.contextmanager
def recording() -> Iterator[set[ahead.Signature]]:
    """What kernels are asked for meanwhile."""
    recorder = Recorder()
    forget()
    Kernel._found = partialmethod(recorder)  # type: ignore[assignment]
    try:
        yield recorder.seen
    finally:
        Kernel._found = recorder._found  # type: ignore[method-assign]
        forget()


def forget() -> None:
    """Have every kernel look for its code again, and nothing called that was made ready before."""
    gr.clear_caches()
    for module in ahead.MODULES:
        for kernel in vars(importlib.import_module(f"gpuresample.engines.cpu.{module}")).values():
            if isinstance(kernel, Kernel):
                kernel.entries.clear()
                kernel._quick.clear()


# --- jobs ------------------------------------------------------------------------------------------------------------


def volume(kind: str) -> Any:
    """A small volume of a voxel type."""
    return (100 * np.random.default_rng(0).random(SHAPE)).astype(kind)


def coarse_field() -> sitk.Transform:
    """A field on a coarser grid."""
    coarse = sitk.Image([3, 4, 4], sitk.sitkVectorFloat64)
    coarse.SetSpacing((3.0, 3.0, 3.0))
    return sitk.DisplacementFieldTransform(coarse)


def transforms() -> dict[str, Any]:
    """One of every kind, for `SHAPE`."""
    x, y, z = SHAPE[::-1]
    field = sitk.Image([x, y, z], sitk.sitkVectorFloat64)
    coarse = coarse_field().GetDisplacementField()
    spline = sitk.BSplineTransformInitializer(sitk.Image([x, y, z], sitk.sitkFloat32), (2, 2, 2), 3)
    turned = sitk.BSplineTransform(spline)
    turned.SetTransformDomainDirection(TURN.GetMatrix())
    own = sitk.DisplacementFieldTransform(sitk.Image(field))
    slanted = sitk.Image(coarse)
    slanted.SetDirection(TURN.GetMatrix())
    narrow = np.zeros((*SHAPE, 3), np.float32)
    like = gr.Volume(volume("float32"), ONES)
    half = np.zeros((*coarse.GetSize()[::-1], 3), np.float32)
    return {
        "turn": TURN, "field": own, "field, coarse": coarse_field(),
        "field, turned": sitk.DisplacementFieldTransform(sitk.Image(slanted)),
        "spline": spline, "spline, turned": turned,
        "field after turn": sitk.CompositeTransform([sitk.DisplacementFieldTransform(sitk.Image(field)), TURN]),
        "turn after field": sitk.CompositeTransform([TURN, coarse_field()]),
        "turn after spline": sitk.CompositeTransform([TURN, spline]),
        "spline after turn": sitk.CompositeTransform([spline, TURN]),
        "coarse after field": sitk.CompositeTransform([coarse_field(), own]),
        "field after coarse": sitk.CompositeTransform([own, coarse_field()]),
        # Warps of ANTs are in float32.
        "float32 field, coarse": gr.DisplacementField(half, like=coarse),
        "float32 field, turned": gr.DisplacementField(half, like=slanted),
        "float32 field": TransformPath([gr.DisplacementField(narrow, like=like), gr.Affine(np.eye(3), 0.5)]),
    }  # fmt: skip


def jobs() -> Iterator[Callable[[], Any]]:
    """Calls as people make them."""
    for kind in VOXELS:
        array = volume(kind)
        lying = gr.Volume(array, ONES)
        outs = {kind, "float32"} | ({"int16", "uint8"} if kind == "float32" else set())
        for out in sorted(outs):
            for interpolation in ("linear", "bspline", "lanczos", "bspline5"):
                asked: dict[str, Any] = {"interpolation": interpolation, "dtype": out, "device": "cpu"}
                yield partial(gr.resample, array, size=(6, 7, 10), **asked)
                yield partial(gr.resample, lying, transform=TURN, **asked)
            yield partial(gr.gaussian, array, 1.5, dtype=out, device="cpu")
        yield partial(gr.resample, array, size=(5, 5, 5), interpolation="nearest", device="cpu")
        yield partial(gr.resample, lying, transform=TURN, interpolation="nearest", device="cpu")
        yield partial(gr.resample, array, size=(3, 3, 3), antialias=True, device="cpu")
        yield partial(gr.gaussian, array, 9.0, device="cpu")
        yield partial(gr.bin_shrink, array[..., ::-1], 3, device="cpu")
        for verb in (gr.shrink, gr.bin_shrink, gr.downsample, gr.upsample):
            yield partial(verb, array, 2, device="cpu")
        yield partial(gr.pyramid, array, levels=2, device="cpu")
        if np.dtype(kind).kind in "iu":
            cut: dict[str, Any] = {"interpolation": "linear", "rounding": "truncate", "device": "cpu"}
            yield partial(gr.resample, array, size=(6, 7, 10), **cut)
            yield partial(gr.resample, lying, transform=TURN, **cut)
    for kind in LABELS:
        array = volume(kind)
        lying = gr.Volume(array, ONES)
        for interpolation in ("label_linear", "label_gaussian"):
            yield partial(gr.resample, array, size=(6, 7, 10), interpolation=interpolation, device="cpu")
            yield partial(gr.resample, lying, transform=TURN, interpolation=interpolation, device="cpu")
        if array.dtype.kind in "iu":
            yield partial(gr.bin_shrink, array, 2, reduce="label", device="cpu")
        yield partial(gr.resample, lying, transform=TURN, interpolation="nearest", dtype="float32", device="cpu")
    for kind in ("float32", "int16"):
        yield partial(wide_blur, kind)
    lying = gr.Volume(volume("float32"), ONES)
    for transform in transforms().values():
        yield partial(gr.resample, lying, transform=transform, interpolation="linear", device="cpu")
    yield from scores()
    yield from images()
    for kind in ("float32", "float64"):
        yield partial(derivatives, kind)
        yield partial(truncation.all_finite, volume(kind))


def scores() -> Iterator[Callable[[], Any]]:
    """Ensembles."""
    one, two = np.random.default_rng(0).random((2, 3, *SHAPE), np.float32)
    for output in ("labels", "probabilities", ("labels", "confidence", "entropy")):
        for activation in ("softmax", "sigmoid", None):
            for interpolation in ("linear", "bspline"):
                asked: dict[str, Any] = {"output": output, "activation": activation, "interpolation": interpolation}
                yield partial(gr.ensemble, [one, two], size=(8, 9, 10), device="cpu", **asked)
    yield partial(gr.ensemble, [one, two], size=(8, 9, 10), resample_after=True, device="cpu")
    yield partial(gr.ensemble, [one], size=(8, 9, 10), device="cpu")
    for interpolation in ("linear", "bspline"):
        named: dict[str, Any] = {"labels": (0, 1, 300), "interpolation": interpolation}
        yield partial(gr.ensemble, [one, two], size=(8, 9, 10), device="cpu", **named)


def images() -> Iterator[Callable[[], Any]]:
    """SimpleITK's names: integers are truncated, and evaluated again where that matters."""
    for kind in VOXELS:
        array = np.zeros(SHAPE, kind)
        array[2:5] = volume(kind)[2:5]
        image = sitk.GetImageFromArray(array)
        for transform in (sitk.Transform(), TURN):
            for interpolator in (sitk.sitkLinear, sitk.sitkBSpline, sitk.sitkNearestNeighbor):
                yield partial(gsitk.Resample, image, (6, 7, 8), transform, interpolator, (0.5,) * 3)
        yield partial(gsitk.SmoothingRecursiveGaussian, image, 1.0)
        yield partial(gsitk.DiscreteGaussian, image, 1.0)
        yield partial(gsitk.BinShrink, image, (2, 2, 2))
        yield partial(gsitk.Expand, image, (2, 2, 2))


def wide_blur(kind: str) -> None:
    """A blur by way of coarse grids, which pays for large images only."""
    with mock.patch.multiple(shortcuts, LEAST_COST=0.0, WORTH=np.inf):
        gr.gaussian(np.zeros((40, 40, 40), kind), 8.0, dtype=kind, device="cpu")


def derivatives(kind: str) -> None:
    """What gradients of warps take, in one type."""
    rng = np.random.default_rng(0)
    precision = "single" if kind == "float32" else "double"
    turn = Map.of(np.eye(3) + 0.1 * rng.standard_normal((3, 3)), rng.standard_normal(3))
    size = SHAPE[::-1]
    for steps in ((turn,), (Nodes(rng.standard_normal((*SHAPE, 3)), Grid.of_size(size)), turn)):
        for interpolation in ("linear", "bspline3", "lanczos"):
            work = planner.make_work(
                Grid.of_size(size), Grid.of_size(size), (Transform(3, steps),), interpolation, None, False, precision
            )
            assert isinstance(work, Gather)
            x, y = rng.random((2, 1, *SHAPE)).astype(kind)
            out = np.empty((1, *SHAPE), kind)
            engine.run(work, x, out, Store())
            engine.splat(work, y, out)
            slopes = np.empty((3, *SHAPE), kind)
            engine.gradient(work, x, slopes, y)
            engine.gradient(work, x[0], slopes)
            gradients.moments(slopes)
            gradients.moments(slopes, rng.random((3, *SHAPE)))


def record() -> list[ahead.Signature]:
    """The signatures that all jobs ask for, in order."""
    with recording() as seen, warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for job in jobs():
            job()
    return sorted(seen)


def main(arguments: list[str] | None = None) -> int:
    """The command; 1 where the list is not what the jobs ask for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.signatures", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the list")
    options = parser.parse_args(arguments)
    now = record()
    if options.write:
        ahead.LIST.write_text("".join(f"{name} {signature}\n" for name, signature in now))
        print(f"{len(now)} signatures in {ahead.LIST}")
        return 0
    before = ahead.recorded()
    for sign, some in (("+", set(now) - set(before)), ("-", set(before) - set(now))):
        for name, signature in sorted(some):
            print(f"{sign} {name} {signature}")
    return int(set(now) != set(before))


if __name__ == "__main__":
    sys.exit(main())

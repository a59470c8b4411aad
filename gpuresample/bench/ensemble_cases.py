"""Cases of ensembles: class scores of several models to one label map.

torch and SimpleITK do what pipelines do: interpolate every class to full size (linear, outer faces aligned), softmax,
mean over models, arg-max. Where labels differ, the two classes must be closer than float32 can tell.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
import SimpleITK as sitk

import gpuresample as gr
from gpuresample.bench import exact
from gpuresample.bench.cases import Array
from gpuresample.bench.devices import synchronised
from gpuresample.bench.peers import Call
from gpuresample.bench.tasks import Case, Doer, Error, Verdict

Shape = tuple[int, int, int]
# Averages closer than this are a tie to float32.
TIE = 1e-5
# Of a way that makes whole volumes of every class, more bytes than this are not asked for.
MOST_BYTES = 2e9
# Voxels that are looked at where no peer has the answer.
SAMPLES = 2000


@dataclass(frozen=True)
class Ensemble:
    """One job: how many models and classes, sizes z, y, x of the scores and of the label map, interpolation."""

    models: int
    classes: int
    shape: Shape
    size: Shape
    interpolation: str = "linear"

    @property
    def input_bytes(self) -> int:
        """Of all scores."""
        return 4 * self.models * self.classes * math.prod(self.shape)

    @property
    def whole_bytes(self) -> int:
        """What whole volumes take at the least: all classes of one model and of the mean, at full size."""
        return 4 * self.classes * math.prod(self.size) * (1 if self.models == 1 else 2)


def scores(of: Ensemble, model: int) -> Array:
    """Scores of one model: a wave per class, and noise."""
    rng = np.random.default_rng(model)
    out = np.empty((of.classes, *of.shape), np.float32)
    z, y, x = (np.arange(n, dtype=np.float32) for n in of.shape)
    noise = rng.standard_normal(of.shape[1:], np.float32)
    for c in range(of.classes):
        fz, fy, fx, phase = (rng.uniform(0, 1, 4) * (0.1, 0.1, 0.1, 6.28) + (0.02, 0.02, 0.02, 0)).tolist()
        plane = np.sin(fy * y + phase)[:, None] + np.sin(fx * x + 2 * phase)
        out[c] = 2 * np.sin(fz * z + phase)[:, None, None] + plane
        out[c] += 0.5 * np.roll(noise, 17 * c, axis=1)
    return out


def _ours(of: Ensemble, device: str = "cpu") -> Callable[[list[Array]], Call]:
    options: dict[str, Any] = {"size": of.size, "anchor": "edge", "interpolation": of.interpolation}
    return lambda models: lambda: gr.ensemble(models, device=device, **options)


def _ours_on_device(of: Ensemble) -> Callable[[list[Array]], Call]:
    def prepare(models: list[Array]) -> Call:
        import cupy

        return synchronised(_ours(of, "auto")([cupy.asarray(m) for m in models]))

    return prepare


def _torch(of: Ensemble, device: str = "cpu") -> Callable[[list[Array]], Call]:
    def prepare(models: list[Array]) -> Call:
        import torch

        sources = [torch.from_numpy(m)[None].to(device) for m in models]

        def average() -> Any:
            mean = None
            for source in sources:
                full = torch.nn.functional.interpolate(source, of.size, mode="trilinear", align_corners=False)
                share = torch.softmax(full, dim=1) if len(sources) > 1 else full
                del full
                mean = share if mean is None else mean.add_(share)
            return mean

        return lambda: average().argmax(dim=1)[0].to(torch.uint8)

    return prepare


def _simpleitk(of: Ensemble) -> Callable[[list[Array]], Call]:
    def prepare(models: list[Array]) -> Call:
        images = [[sitk.GetImageFromArray(scores) for scores in model] for model in models]
        spacing = [n / m for n, m in zip(of.shape[::-1], of.size[::-1], strict=True)]
        resample = sitk.ResampleImageFilter()
        resample.SetSize(of.size[::-1])
        resample.SetOutputSpacing(spacing)
        resample.SetOutputOrigin([0.5 * s - 0.5 for s in spacing])
        resample.SetInterpolator(sitk.sitkLinear)
        resample.SetUseNearestNeighborExtrapolator(True)

        def call() -> Array:
            mean = np.zeros((of.classes, *of.size), np.float32)
            full = mean if len(images) == 1 else np.empty_like(mean)
            for model in images:
                for k, image in enumerate(model):
                    out = resample.Execute(image)  # held: a view does not keep its image alive
                    full[k] = sitk.GetArrayViewFromImage(out)
                if full is not mean:
                    full -= full.max(axis=0)
                    np.exp(full, out=full)
                    full /= full.sum(axis=0)
                    mean += full
            return mean.argmax(axis=0).astype(np.uint8)

        return call

    return prepare


def _at(models: list[Array], where: Array, size: Shape) -> Array:
    """Averages of every class, in float64, at some voxels of the label map: shape (class, voxel)."""
    shape = np.array(models[0].shape[1:])
    place = np.clip((where + 0.5) * (shape / size) - 0.5, 0, shape - 1)
    low = np.minimum(place.astype(int), np.maximum(shape - 2, 0))
    part = place - low
    high = np.minimum(low + 1, shape - 1)
    mean = np.zeros((models[0].shape[0], len(where)))
    for model in models:
        value = np.zeros_like(mean)
        for corner in np.ndindex(2, 2, 2):
            index = [np.where(c, h, lo) for c, h, lo in zip(corner, high.T, low.T, strict=True)]
            weight = np.prod([p if c else 1 - p for c, p in zip(corner, part.T, strict=True)], axis=0)
            value += weight * model[:, index[0], index[1], index[2]]
        share = np.exp(value - value.max(axis=0))
        mean += share / share.sum(axis=0)
    return mean / len(models)


def differs(of: Ensemble, models: list[Array], labels: Array, right: Array) -> Verdict:
    """Share of voxels whose labels differ, and whether all of them are ties."""
    if labels.shape != right.shape:
        return Verdict(1.0, False)
    where = np.argwhere(labels != right)
    if len(where) > labels.size // 100:
        return Verdict(len(where) / labels.size, False)
    at, n = _at(models, where, of.size), np.arange(len(where))
    lead = np.abs(at[labels[tuple(where.T)], n] - at[right[tuple(where.T)], n])
    return Verdict(len(where) / labels.size, bool((lead <= TIE).all()))


def _spline_at(models: list[Array], where: Array, size: Shape) -> Array:
    """The same by cubic B-splines: where must be near enough together for a part of the scores to do."""
    from scipy import ndimage

    shape = np.array(models[0].shape[1:])
    place = (where + 0.5) * (shape / size) - 0.5
    region = exact.cut(models[0][0], place.min(axis=0), place.max(axis=0))
    inside = (place - [s.start for s in region]).T
    mean = np.zeros((models[0].shape[0], len(where)))
    for model in models:
        value = np.stack([ndimage.map_coordinates(c[region].astype(np.float64), inside, mode="mirror") for c in model])
        share = np.exp(value - value.max(axis=0))
        mean += share / share.sum(axis=0)
    return mean / len(models)


def sampled(of: Ensemble, models: list[Array]) -> Error | None:
    """What compares some voxels of a label map with averages in float64: 0, or infinity if one has another class.

    They lie in the blocks that `exact` looks at: corners and the middle of the map.
    """
    if of.interpolation != "linear" and importlib.util.find_spec("scipy") is None:
        return None
    rng, averages = np.random.default_rng(0), _at if of.interpolation == "linear" else _spline_at

    def error(labels: Array) -> float:
        for block in exact.blocks(of.size):
            where = np.stack([rng.integers(s.start, s.stop, SAMPLES // 3) for s in block], axis=1)
            at = averages(models, where, of.size)
            lost = at.max(axis=0) - at[labels[tuple(where.T)], np.arange(len(where))]
            if (lost > TIE).any():
                return math.inf
        return 0.0

    return error


def ensemble(name: str, of: Ensemble, gpu: bool, note: str = "") -> Case:
    """A case of ensembles.

    Parameters
    ----------
    name : str
    of : Ensemble
    gpu : bool
    note : str
        What is to be known about its size.
    """
    linear = of.interpolation == "linear"
    whole = linear and of.whole_bytes <= MOST_BYTES
    theirs: list[Doer] = []
    if whole:
        theirs.append(Doer("simpleitk", "SimpleITK, class by class", _simpleitk(of), str(sitk.Version_VersionString()),
                           judge=True))  # fmt: skip
        if importlib.util.find_spec("torch") is not None:
            version = metadata.version("torch")
            way = "torch interpolate, softmax, argmax"
            theirs.append(Doer("torch", way, _torch(of), version, expected="gpuresample"))
            if gpu:
                theirs.append(Doer("torch-cuda", way, lambda models: synchronised(_torch(of, "cuda")(models)), version,
                                   "cuda:0", "kernel", expected="gpuresample"))  # fmt: skip
    judge = "simpleitk" if whole else None
    mine = [
        Doer(
            "gpuresample", "gpuresample", _ours(of), gr.__version__, expected=judge,
            reference=None if whole else lambda models: sampled(of, models),
        )
    ]  # fmt: skip
    if gpu:
        mine.append(Doer("gpuresample", "gpuresample", _ours_on_device(of), gr.__version__, "cuda:0", "kernel",
                         expected="gpuresample"))  # fmt: skip
    models = f"{of.models} models" if of.models > 1 else "1 model"
    what = f"{models}, {of.classes} classes, {of.interpolation}"
    return Case(
        name, f"Scores to labels: {what}" + (f" ({note})" if note else ""),
        lambda: [scores(of, m) for m in range(of.models)], lambda models: models[0], (*mine, *theirs),
        (of.models, of.classes, *of.shape), of.size, "float32", "uint8", differs=lambda *a: differs(of, *a),
    )  # fmt: skip

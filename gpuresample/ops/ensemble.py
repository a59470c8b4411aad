"""`ensemble`: class scores of several models to one label map on the original grid. No voxel is touched here."""

from __future__ import annotations

import itertools
import math
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample import engines
from gpuresample.checks import finite, one_of, positive_numbers, shown, sizes, whole
from gpuresample.containers import (
    ARRAYS,
    IMAGES,
    ArrayContainer,
    Container,
    Held,
    Volume,
    VolumeContainer,
    check_memory,
    grid_of,
    has_geometry,
    hold,
    spatial,
    unwrap,
)
from gpuresample.engines.interface import Outputs
from gpuresample.ops import ensemble_walk
from gpuresample.planning.filters import FILTERS, get_filter
from gpuresample.planning.grid import ANCHORS, Grid, resized
from gpuresample.planning.works import Ensemble

Array = npt.NDArray[Any]

OUTPUTS = ("labels", "probabilities", "confidence", "entropy")
ACTIVATIONS = ("softmax", "sigmoid")
INTERPOLATIONS = tuple(name for name, f in FILTERS.items() if f.method != "vote")


@dataclass(frozen=True, eq=False)
class Scores:
    """One model's scores.

    Attributes
    ----------
    array : array-like (class, [z,] y, x) that can be sliced
    grid : Grid or None
        Where they lie; None for bare arrays.
    container : Container
        Of the image or array that they came as; an empty NumPy array's for what is read piece by piece.
    """

    array: Any
    grid: Grid | None
    container: Container

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.array.shape[0])

    @property
    def size(self) -> tuple[int, ...]:
        """Voxels along x, y(, z)."""
        return tuple(int(n) for n in self.array.shape[:0:-1])

    @property
    def where(self) -> str:
        """Where they are: "cpu" or "cuda:N"."""
        return self.container.where


def ensemble(
    logits: Any,
    *,
    like: Any = None,
    size: Sequence[int] | None = None,
    input_spacing: float | Sequence[float] | None = None,
    anchor: str = "first",
    activation: str | None = "softmax",
    weights: Sequence[float] | None = None,
    interpolation: str | int = "linear",
    resample_after: bool = False,
    output: str | Sequence[str] = "labels",
    labels: Sequence[int] | None = None,
    threshold: float | Sequence[float] = 0.5,
    regions: Sequence[int] | None = None,
    device: str = "auto",
    progress: Callable[[float], None] | None = None,
) -> Any:
    """Resample the class scores of one or more models to one grid, average them and decide, voxel by voxel.

    All steps are done block by block: interpolating the scores, turning them into probabilities, averaging, comparing.
    Only what you ask for is written. A full-size volume for each class never exists.

    Parameters
    ----------
    logits : sequence or iterator of ndarray, Volume or SimpleITK.Image
        The scores of every model: (class, z, y, x) or (class, y, x), of any number type. In images, the components or
        the fourth axis are the classes. A memory-mapped or zarr array is read block by block. An iterator is asked for
        one model at a time, so only one model's scores are in memory; the others wait in a temporary file. A single
        Volume or image is one model.
    like : SimpleITK.Image, Volume, Grid or ndarray, optional
        The grid to resample onto; an array gives only its size. It excludes `size`.
    size : sequence of int, optional
        Size of the grid to resample onto, in the order of the first model's kind (z, y, x for arrays). Without `like`
        and `size`, the target is the first model's grid.
    input_spacing : float or sequence of float, optional
        Spacing of scores that are arrays, in axis order and in the target's units. Unless given, the scores cover the
        target's extent.
    anchor : {"first", "edge", "center"}
        How arrays lie on the target, see `gpuresample.resample`. If the network's input came from
        `resample(image, anchor=...)`, give the same word here.
    activation : {"softmax", "sigmoid", None}
        What turns scores into probabilities; None if they are probabilities already.
    weights : sequence of float, optional
        Share of every model in the average; equal shares unless given. Only their ratios matter.
    interpolation : str or SimpleITK enumerator
        "linear", "bspline" (cubic), or any other of `gpuresample.resample` except the label modes.
    resample_after : bool
        Apply the activation first, on each model's own grid, and resample the probabilities.
    output : {"labels", "probabilities", "both", "confidence", "entropy"} or a sequence of these
        "probabilities": the averages, a float32 volume for each class. "confidence": the largest average. "entropy":
        -sum p ln p of the averages (with sigmoids: of each class and its absence). "both": labels and probabilities.
    labels : sequence of int, optional
        The value of each class in the label map; 0, 1, 2, ... unless given. Not for sigmoids.
    threshold : float or sequence of float
        Where classes may overlap: a class is present where its average is above this. One number, or one for every
        class.
    regions : sequence of int, optional
        For sigmoids, and for probabilities of classes that may overlap (`activation=None`): the label of every class.
        Later classes overwrite earlier ones (nnU-Net's `regions_class_order`); voxels without any class get 0. Of
        sigmoids without `regions`, the label map holds one bit for every class, the lowest bit for the first class.
    device : {"auto", "cpu", "cuda", "cuda:N"}
        As for `gpuresample.resample`.
    progress : callable, optional
        Called with the share that is done so far, up to 1.0.

    Returns
    -------
    SimpleITK.Image, Volume or ndarray
        The label map, in the smallest unsigned type that holds the labels. If averages are equal, the lowest class
        wins. It has the kind of `like` if that is an image, a Volume or an array; otherwise the first model's kind.
        Probabilities are (class, z, y, x); in an image, they are the components. A tuple, if you ask for several
        outputs.

    Raises
    ------
    ValueError, TypeError
        For no models, class counts that differ, grids that do not overlap the target, weights that are negative, all
        zero or of the wrong number, and other arguments out of range.
    RuntimeError
        For `device="cuda"` without a usable GPU.

    Warns
    -----
    RuntimeWarning
        If some voxels have no usable score (a NaN, or no finite score at all): how many, and of which models. They get
        the label of class 0 (with sigmoids: no class), and NaN in the other outputs.

    Notes
    -----
    Scores of all types are summed in float32. A model's scores reach one of its own voxels beyond its grid's outer
    faces. Further out the model counts as certain of class 0 (with sigmoids: of no class).
    """
    wanted = _outputs(output)
    f = get_filter(interpolation)
    one_of("interpolation", f.name, INTERPOLATIONS)
    one_of("anchor", anchor, ANCHORS)
    if activation is not None:
        one_of("activation", activation, ACTIVATIONS)
    engines.check_device(device)
    shares = None if weights is None else _weights(weights)
    if isinstance(logits, (Sequence, np.ndarray)) and shares is not None and len(shares) != len(logits):
        raise ValueError(f"weights must have one number for each of the {len(logits)} models, got {weights!r}")
    with ExitStack() as stack:
        models = _models(logits, stack)
        target, template = _target(models[0], like, size, anchor)
        _check_alike(models)
        if shares is None:
            shares = [1.0 / len(models)] * len(models)
        elif len(shares) != len(models):
            raise ValueError(f"weights must have one number for each of the {len(models)} models, got {weights!r}")
        classes = models[0].classes
        choose, values = _naming(activation, classes, labels, regions)
        thresholds = _thresholds(threshold, classes, choose != "largest")
        grids = [_grid(number, model, target, input_spacing, anchor) for number, model in enumerate(models)]
        voxels = target.voxels + sum(math.prod(model.array.shape) for model in models)
        engine = engines.select(device, models[0].where, voxels)
        z, y, x = (*target.size, 1)[2::-1]
        work = Ensemble(
            members=tuple(ensemble_walk.member(g, target, f.name, s) for g, s in zip(grids, shares, strict=True)),
            classes=classes,
            n_dst=(z, y, x),
            activation=activation or "none",
            before=resample_after,
            choose=choose,
            thresholds=thresholds,
            values=values,
        )
        top = sum(values.tolist()) if choose == "bits" else int(values.max())
        results = Results(wanted, template, models[0].container, target, classes, np.min_scalar_type(top))
        counts = ensemble_walk.EnsemblePlan(target, work).run(
            engine, [model.array for model in models], results.outputs, progress or (lambda share: None)
        )
        made = results.finished()
    _report(counts)
    return made[0] if len(made) == 1 else tuple(made)


def _outputs(output: Any) -> tuple[str, ...]:
    """The outputs asked for, by name."""
    if isinstance(output, str) and output == "both":
        return "labels", "probabilities"
    words = (output,) if isinstance(output, str) or not isinstance(output, Sequence) else tuple(output[:9])
    if not words:
        raise ValueError(f"output must name at least one of {', '.join(map(repr, OUTPUTS))}, got {output!r}")
    return tuple(one_of("output", word, (*OUTPUTS, "both")[: None if len(words) == 1 else -1]) for word in words)


def _weights(weights: Any) -> list[float]:
    """Shares that sum to 1."""
    if isinstance(weights, (str, bytes)) or not isinstance(weights, Iterable):
        raise TypeError(f"weights must be a sequence of numbers, one for each model, got {weights!r}")
    given, values = list(weights), []
    for value in given:
        if isinstance(value, bool):
            raise TypeError(f"weights must be numbers of at least 0, got {shown(weights)}")
        values.append(finite("weights", value, "numbers, finite and at least 0"))
        if values[-1] < 0:
            raise ValueError(f"weights must be finite and at least 0, got {shown(weights)}")
    try:
        total = math.fsum(values)
    except OverflowError:
        raise ValueError(f"weights must have a finite sum, got {shown(weights)}") from None
    if total == 0:
        raise ValueError(f"weights must not all be zero, got {shown(weights)}")
    return [value / total for value in values]


# --- models ----------------------------------------------------------------------------------------------------------


def _models(logits: Any, stack: ExitStack) -> list[Scores]:
    """Every model's scores; those of an iterator are laid down in temporary files, which `stack` closes."""
    if has_geometry(logits):
        logits = [logits]
    elif hasattr(logits, "ndim") and logits.ndim < 5:
        raise TypeError(
            f"logits must be a sequence of models, got one array of shape {tuple(logits.shape)}; for one model: "
            "[logits]"
        )
    if isinstance(logits, (str, bytes)) or not isinstance(logits, Iterable):
        raise TypeError(f"logits must be a sequence or an iterator of models, got {type(logits).__name__}")
    waiting = isinstance(logits, Iterator)
    models = []
    for number, one in enumerate(logits):
        model = _scores(number, one)
        models.append(_laid_down(model, stack) if waiting else model)
    if not models:
        raise ValueError("logits must have at least one model, got none")
    return models


def _scores(number: int, one: Any) -> Scores:
    """A model's scores as we take them."""
    name = f"logits[{number}]"
    if has_geometry(one):
        container = unwrap(one)
        if len(container.shape) != container.grid.dimension + 1:
            raise ValueError(
                f"{name} must have one axis of classes before its axes of space, got shape {container.shape}"
            )
        return Scores(container.array, container.grid, container)
    held = hold(one, name)
    array = one if held is None else held.voxels
    if not all(hasattr(array, attribute) for attribute in ("shape", "dtype", "__getitem__")):
        raise TypeError(f"{name} must be {IMAGES} or {ARRAYS}, got {type(one).__name__}")
    if len(array.shape) not in (3, 4):
        raise ValueError(f"{name} must be (class, z, y, x) or (class, y, x), got shape {tuple(array.shape)}")
    if 0 in array.shape:
        raise ValueError(f"{name} must not be empty, got shape {tuple(array.shape)}")
    if np.dtype(array.dtype).kind not in "biuf":
        raise TypeError(f"{name} must have integer or float voxels, got {array.dtype}")
    return Scores(array, None, ArrayContainer(held or Held(None, np.empty((1, 1)), "cpu")))


def _check_alike(models: Sequence[Scores]) -> None:
    """Refuse models that cannot be averaged."""
    first = models[0]
    for number, model in enumerate(models):
        if model.classes != first.classes:
            raise ValueError(
                f"logits must have the same number of classes for every model, got {first.classes} of model 0 and "
                f"{model.classes} of model {number}"
            )
        if model.where != first.where:
            raise ValueError(
                f"logits must all lie in one place, got model 0 on {first.where} and model {number} on {model.where}"
            )


def _laid_down(model: Scores, stack: ExitStack) -> Scores:
    """The same scores, from memory to a temporary file without a name; whoever made them may make the next."""
    if not isinstance(model.array, np.ndarray) or isinstance(model.array, np.memmap):
        return model
    needed, free = model.array.nbytes, shutil.disk_usage(tempfile.gettempdir()).free
    if needed > free:
        raise OSError(
            f"the scores of one model take {needed / 2**30:,.1f} GiB in {tempfile.gettempdir()}, which has "
            f"{free / 2**30:,.1f} GiB left; name another folder by TMPDIR, or pass a sequence"
        )
    file = stack.enter_context(tempfile.TemporaryFile(prefix="gpuresample-"))  # noqa: SIM115  # the stack closes it
    array: Array = np.memmap(file, model.array.dtype, "w+", shape=model.array.shape)
    array[...] = model.array
    return Scores(array, model.grid, model.container)


def _target(first: Scores, like: Any, size: Any, anchor: str) -> tuple[Grid, Container]:
    """The target, and an image of the kind that outputs are to be."""
    d = len(first.size)
    if like is not None:
        if size is not None:
            raise ValueError(f"like gives the whole grid; it cannot be combined with size={size!r}")
        grid = grid_of(like, d)
        if isinstance(grid, Grid):
            return grid, unwrap(like) if has_geometry(like) else first.container
        if len(grid) < d:
            raise ValueError(f"like must have at least the scores' {d} axes of space, got shape {grid}")
        return Grid.of_size(grid[: -d - 1 : -1]), first.container
    own = first.grid or Grid.of_size(first.size)
    if size is None:
        return own, first.container
    wanted = sizes("size", size, d)
    if first.grid is None:
        return Grid.of_size(wanted[::-1]), first.container
    return resized(own, None, wanted, anchor), first.container


def _grid(number: int, model: Scores, target: Grid, input_spacing: Any, anchor: str) -> Grid:
    """Where a model's scores lie."""
    d = target.dimension
    if len(model.size) != d:
        raise ValueError(f"logits[{number}] must have the target's {d} axes of space, got {len(model.size)}")
    if model.grid is not None:
        if input_spacing is not None:
            raise ValueError(
                f"input_spacing is for bare arrays; logits[{number}] has its own spacing, got {input_spacing!r}"
            )
        grid = model.grid
    else:
        spacing = None if input_spacing is None else positive_numbers("input_spacing", input_spacing, d)[::-1]
        grid = resized(target, spacing, model.size, anchor)
    if not ensemble_walk.overlaps(grid, target):
        raise ValueError(f"logits[{number}] must overlap the target: its scores lie on {grid}, the target is {target}")
    return grid


# --- names and numbers of classes ------------------------------------------------------------------------------------


def _naming(activation: str | None, classes: int, labels: Any, regions: Any) -> tuple[str, npt.NDArray[np.uint64]]:
    """How classes become a label, and what they are called; the last name is that of none."""
    if activation == "softmax" and regions is not None:
        raise ValueError(
            'regions are for classes that may overlap: activation="sigmoid", or None for probabilities of such; '
            f'got {regions!r} with activation="softmax"'
        )
    if activation != "sigmoid" and regions is None:
        names = range(classes) if labels is None else _names("labels", labels, classes)
        return "largest", np.array([*names, 0], np.uint64)
    if labels is not None:
        raise ValueError(
            "labels are for classes that exclude each other; use regions for those that may overlap, as sigmoids do; "
            f"got labels={labels!r} and regions={regions!r} with activation={activation!r}"
        )
    if regions is not None:
        return "regions", np.array([*_names("regions", regions, classes), 0], np.uint64)
    if classes > 64:
        raise ValueError(f"logits must have at most 64 classes for a label map of bits, got {classes}; give regions")
    return "bits", np.array([*(1 << c for c in range(classes)), 0], np.uint64)


def _names(name: str, values: Any, classes: int) -> list[int]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be {classes} whole numbers, one for each class, got {values!r}")
    numbers = list(itertools.islice(values, classes + 1))
    if len(numbers) != classes:
        raise ValueError(f"{name} must have one number for each of the {classes} classes, got {shown(values)}")
    return [whole(name, value, "whole numbers from 0 to 2**64 - 1", 0, 2**64 - 1) for value in numbers]


def _thresholds(value: Any, classes: int, overlap: bool) -> npt.NDArray[np.float32]:
    if not overlap:
        if not isinstance(value, Real) or value != 0.5:
            raise ValueError(
                f'threshold is for classes that may overlap (activation="sigmoid", or regions), got {value!r}'
            )
        return np.full(classes, 0.5, np.float32)
    values = (value,) * classes if isinstance(value, Real) and not isinstance(value, bool) else value
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(f"threshold must be a number, or one for each class, got {value!r}")
    values = list(itertools.islice(values, classes + 1))
    if len(values) != classes:
        raise ValueError(f"threshold must have one number for each of the {classes} classes, got {shown(value)}")
    for v in values:
        if isinstance(v, bool):
            raise TypeError(f"threshold must be numbers between 0 and 1, got {shown(value)}")
        # In float32, as they are kept, they must not become 0 or 1.
        if not 2.0**-149 <= finite("threshold", v, "numbers between 0 and 1") < 1 - 2.0**-25:
            raise ValueError(f"threshold must lie between 0 and 1, got {shown(value)}")
    return np.array([float(v) for v in values], np.float32)


# --- outputs ---------------------------------------------------------------------------------------------------------


class Results:
    """What will be answered, and the memory that engines write to.

    Attributes
    ----------
    outputs : Outputs
        Arrays where the scores are.
    """

    def __init__(
        self,
        wanted: Sequence[str],
        template: Container,
        scores: Container,
        target: Grid,
        classes: int,
        labels: np.dtype[Any],
    ) -> None:
        # A template elsewhere gives its kind only: a Volume's array is the scores', an image's voxels are fetched.
        self._away = template.where != scores.where
        if self._away and isinstance(template, VolumeContainer):
            template, self._away = _volume_of(scores, target), False
        self._wanted, self._scores = wanted, scores
        self._made: dict[str, tuple[Any, Any]] = {}
        places: dict[str, Any] = {}
        for name in wanted:
            dtype = labels if name == "labels" else np.dtype(np.float32)
            channels = classes if name == "probabilities" else 0
            shape = ((channels,) if channels else ()) + target.size[::-1]
            check_memory(template, shape, dtype, f"output {name!r}")
            self._made[name] = template.blank(target, dtype, channels)
            places[name] = scores.blank(target, dtype, channels)[1] if self._away else self._made[name][1]
        self._places = places
        self.outputs = Outputs(**{name: spatial(array, target.dimension) for name, array in places.items()})

    def finished(self) -> list[Any]:
        """The answers, once the engine has been asked for everything."""
        for name, (_, voxels) in self._made.items():
            if self._away:
                voxels[...] = self._places[name].get()
            else:
                self._scores.written(voxels)
        return [self._made[name][0] for name in self._wanted]


def _volume_of(scores: Container, target: Grid) -> Container:
    """A container whose blanks are volumes of arrays as the scores'."""
    array, _ = scores.blank(Grid.of_size((1, 1, 1)[: target.dimension]), np.dtype(np.uint8))
    return unwrap(Volume(array, (1.0,) * target.dimension))


def _report(counts: Sequence[int]) -> None:
    """Say where scores could not be used."""
    bad = {number: count for number, count in enumerate(counts) if count}
    if bad:
        said = ", ".join(f"{count:,} of logits[{number}]" for number, count in bad.items())
        warnings.warn(
            f"voxels without usable scores (NaN, or no finite one): {said}; they count as class 0 (sigmoid: none)",
            RuntimeWarning,
            stacklevel=3,
        )

"""`ensemble`: class scores of several models to one label map on the original grid. No voxel is touched here."""

from __future__ import annotations

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

from gpuresample import engines, ensembles
from gpuresample.checks import one_of, positive_numbers, sizes
from gpuresample.containers import Volume, blank, check_memory, grid_of, unwrap
from gpuresample.engines.contract import Ensemble, Outputs
from gpuresample.filters import FILTERS, get_filter
from gpuresample.grid import ANCHORS, Grid, resized

Array = npt.NDArray[Any]

OUTPUTS = ("labels", "probabilities", "confidence", "entropy")
ACTIVATIONS = ("softmax", "sigmoid")
INTERPOLATIONS = tuple(name for name, f in FILTERS.items() if f.method != "vote")


@dataclass(frozen=True, eq=False)
class Scores:
    """One model's scores: an array-like (class, [z,] y, x) that can be sliced, and its grid where it has one.

    `kind` is that of the image it came as: "array", "volume" or "image".
    """

    array: Any
    grid: Grid | None
    kind: str

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.array.shape[0])

    @property
    def size(self) -> tuple[int, ...]:
        """Voxels along x, y(, z)."""
        return tuple(int(n) for n in self.array.shape[:0:-1])


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

    In one go: scores are interpolated, made probabilities, averaged and compared block by block, and only what is asked
    for is written. No volume per class exists at the target's size.

    Parameters
    ----------
    logits : sequence or iterator of ndarray, Volume or SimpleITK.Image
        Scores of every model, (class, z, y, x) or (class, y, x); of images the components, or the fourth axis, are the
        classes. Any number type. A memory-mapped or zarr array is read block by block. An iterator is asked for one
        model at a time, so that one model's scores are in memory; they wait in a temporary file until all are there. A
        lone Volume or image is one model.
    like : SimpleITK.Image, Volume, Grid or ndarray, optional
        The grid to resample onto (an array gives only its size). Not together with `size`.
    size : sequence of int, optional
        Size of the grid to resample onto, in the first model's order (z, y, x for arrays). Without `like` and `size`
        the first model's grid is the target.
    input_spacing : float or sequence of float, optional
        Spacing of scores that are bare arrays, in axis order and in the target's units. Unless given, they cover the
        target's extent.
    anchor : {"first", "edge", "center"}
        How bare arrays lie on the target, see `gpuresample.resample`: scores of a network whose input came from
        `resample(image, anchor=...)` want the same word.
    activation : {"softmax", "sigmoid", None}
        What makes probabilities of scores; None if they are probabilities already.
    weights : sequence of float, optional
        Share of every model in the average; equal unless given. Only their ratios matter.
    interpolation : str or SimpleITK enumerator
        "linear", "bspline" (cubic), or any other of `gpuresample.resample` but the label modes.
    resample_after : bool
        Whether probabilities are resampled, not scores: the activation comes first, on each model's own grid.
    output : {"labels", "probabilities", "both", "confidence", "entropy"} or a sequence of these
        "probabilities": the averages, a volume per class, float32. "confidence": the largest average. "entropy":
        -sum p ln p of the averages (of sigmoids: of each class and its absence). "both": labels and probabilities.
    labels : sequence of int, optional
        What the classes are called in the label map; 0, 1, 2, ... unless given. Not for sigmoids.
    threshold : float or sequence of float
        For sigmoids: a class is there where its average is above this; one number, or one for every class.
    regions : sequence of int, optional
        For sigmoids, whose classes may overlap: the label of every class, written one over the other in the order of
        the classes (nnU-Net's `regions_class_order`); 0 where there is none. Without, the label map holds a bit for
        every class, the lowest for the first.
    device : {"auto", "cpu", "cuda", "cuda:N"}
        As for `gpuresample.resample`.
    progress : callable, optional
        Called with the share that is done, up to 1.0.

    Returns
    -------
    SimpleITK.Image, Volume or ndarray
        The label map in the smallest unsigned type that holds the labels; of equal averages the lowest class wins. Of
        the kind of `like` if that is an image, a Volume or an array, else of the first model's kind. Probabilities are
        (class, z, y, x), of an image the components. A tuple if several outputs are asked for.

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
        If some voxels have no usable score (NaN, or no finite one): how many, and of which models. They get the label
        of class 0 (of sigmoids: none), and NaN in the other outputs.

    Notes
    -----
    Scores of all types are summed in float32. A model's scores reach one voxel of their own past their grid's outer
    faces; beyond, the model says class 0 for certain (of sigmoids: no class).
    """
    wanted = _outputs(output)
    f = get_filter(interpolation)
    one_of("interpolation", f.name, INTERPOLATIONS)
    one_of("anchor", anchor, ANCHORS)
    if activation is not None:
        one_of("activation", activation, ACTIVATIONS)
    engines.check_device(device)
    engines.select(device)
    shares = None if weights is None else _weights(weights)
    if isinstance(logits, (Sequence, np.ndarray)) and shares is not None and len(shares) != len(logits):
        raise ValueError(f"weights must have one number for each of the {len(logits)} models, got {weights!r}")
    with ExitStack() as stack:
        models = _models(logits, stack)
        target, kind = _target(models[0], like, size, anchor)
        classes = models[0].classes
        for number, model in enumerate(models):
            if model.classes != classes:
                raise ValueError(
                    f"logits must have the same number of classes for every model, got {classes} of model 0 and "
                    f"{model.classes} of model {number}"
                )
        if shares is None:
            shares = [1.0 / len(models)] * len(models)
        elif len(shares) != len(models):
            raise ValueError(f"weights must have one number for each of the {len(models)} models, got {weights!r}")
        choose, values = _naming(activation, classes, labels, regions)
        thresholds = _thresholds(threshold, classes, activation)
        grids = [_grid(number, model, target, input_spacing, anchor) for number, model in enumerate(models)]
        work = Ensemble(
            members=tuple(ensembles.member(g, target, f.name, s) for g, s in zip(grids, shares, strict=True)),
            classes=classes,
            n_dst=(*target.size, 1)[2::-1],  # type: ignore[arg-type]
            activation=activation or "none",
            before=resample_after,
            choose=choose,
            thresholds=thresholds,
            values=values,
        )
        top = sum(values.tolist()) if choose == "bits" else int(values.max())
        results, outputs = _make(wanted, kind, target, classes, np.min_scalar_type(top))
        counts = ensembles.EnsemblePlan(target, device, work).run(
            [model.array for model in models], outputs, progress or (lambda share: None)
        )
    _report(counts)
    return results[0] if len(results) == 1 else tuple(results)


def _outputs(output: Any) -> tuple[str, ...]:
    """The outputs asked for, by name."""
    if output == "both":
        return "labels", "probabilities"
    words = (output,) if isinstance(output, str) or not isinstance(output, Sequence) else tuple(output)
    if not words:
        raise ValueError(f"output must name at least one of {', '.join(map(repr, OUTPUTS))}, got {output!r}")
    return tuple(one_of("output", word, (*OUTPUTS, "both")[: None if len(words) == 1 else -1]) for word in words)


def _weights(weights: Any) -> list[float]:
    """Shares that sum to 1."""
    if isinstance(weights, (str, bytes)) or not isinstance(weights, Iterable):
        raise TypeError(f"weights must be a sequence of numbers, one for each model, got {weights!r}")
    values = list(weights)
    for value in values:
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"weights must be numbers of at least 0, got {weights!r}")
        if not math.isfinite(value) or value < 0:
            raise ValueError(f"weights must be finite and at least 0, got {weights!r}")
    total = math.fsum(values)
    if total == 0:
        raise ValueError(f"weights must not all be zero, got {weights!r}")
    return [float(value) / total for value in values]


# --- models ----------------------------------------------------------------------------------------------------------


def _models(logits: Any, stack: ExitStack) -> list[Scores]:
    """Every model's scores; those of an iterator are laid down in temporary files, which `stack` closes."""
    if isinstance(logits, np.ndarray) and logits.ndim < 5:
        raise TypeError(
            f"logits must be a sequence of models, got one array of shape {logits.shape}; for one model: [logits]"
        )
    if isinstance(logits, Volume) or _is_image(logits):
        logits = [logits]
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


def _is_image(thing: Any) -> bool:
    return type(thing).__module__.split(".")[0] == "SimpleITK" and hasattr(thing, "GetNumberOfComponentsPerPixel")


def _scores(number: int, one: Any) -> Scores:
    """A model's scores as we take them."""
    name = f"logits[{number}]"
    if isinstance(one, Volume) or _is_image(one):
        container = unwrap(one)
        array, grid, kind = container.array, container.grid, container.kind
        assert array is not None
        if array.ndim != grid.dimension + 1:
            raise ValueError(f"{name} must have one axis of classes before its axes of space, got shape {array.shape}")
        return Scores(array, grid, kind)
    if not all(hasattr(one, attribute) for attribute in ("shape", "dtype", "__getitem__")):
        raise TypeError(f"{name} must be an array, a Volume or a SimpleITK.Image, got {type(one).__name__}")
    if len(one.shape) not in (3, 4):
        raise ValueError(f"{name} must be (class, z, y, x) or (class, y, x), got shape {tuple(one.shape)}")
    if 0 in one.shape:
        raise ValueError(f"{name} must not be empty, got shape {tuple(one.shape)}")
    if np.dtype(one.dtype).kind not in "biuf":
        raise TypeError(f"{name} must have integer or float voxels, got {one.dtype}")
    return Scores(one, None, "array")


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
    return Scores(array, model.grid, model.kind)


def _target(first: Scores, like: Any, size: Any, anchor: str) -> tuple[Grid, str]:
    """The target, and the kind of the outputs."""
    d = len(first.size)
    if like is not None:
        if size is not None:
            raise ValueError(f"like gives the whole grid; it cannot be combined with size={size!r}")
        grid = grid_of(like, d)
        if grid is None:
            if like.ndim < d:
                raise ValueError(f"like must have at least the scores' {d} axes of space, got shape {like.shape}")
            return Grid.of_size(like.shape[: -d - 1 : -1]), "array"
        return grid, first.kind if isinstance(like, Grid) else unwrap(like).kind
    own = first.grid or Grid.of_size(first.size)
    if size is None:
        return own, first.kind
    wanted = sizes("size", size, d)
    if first.grid is None:
        return Grid.of_size(wanted[::-1]), first.kind
    return resized(own, None, wanted, anchor), first.kind


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
    if not ensembles.overlaps(grid, target):
        raise ValueError(f"logits[{number}] must overlap the target: its scores lie on {grid}, the target is {target}")
    return grid


# --- names and numbers of classes ------------------------------------------------------------------------------------


def _naming(activation: str | None, classes: int, labels: Any, regions: Any) -> tuple[str, npt.NDArray[np.uint64]]:
    """How classes become a label, and what they are called; the last name is that of none."""
    if activation != "sigmoid":
        if regions is not None:
            raise ValueError(f'regions are for activation="sigmoid", whose classes may overlap; got {regions!r}')
        names = range(classes) if labels is None else _names("labels", labels, classes)
        return "largest", np.array([*names, 0], np.uint64)
    if labels is not None:
        raise ValueError(f'labels are for classes that exclude each other; with activation="sigmoid" use regions, '
                         f"got {labels!r}")  # fmt: skip
    if regions is not None:
        return "regions", np.array([*_names("regions", regions, classes), 0], np.uint64)
    if classes > 64:
        raise ValueError(f"logits must have at most 64 classes for a label map of bits, got {classes}; give regions")
    return "bits", np.array([*(1 << c for c in range(classes)), 0], np.uint64)


def _names(name: str, values: Any, classes: int) -> list[int]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be {classes} whole numbers, one for each class, got {values!r}")
    numbers = list(values)
    if len(numbers) != classes:
        raise ValueError(f"{name} must have one number for each of the {classes} classes, got {values!r}")
    for value in numbers:
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise TypeError(f"{name} must be whole numbers of at least 0, got {values!r}")
        if not 0 <= int(value) < 2**64:
            raise ValueError(f"{name} must be whole numbers from 0 to 2**64 - 1, got {values!r}")
    return [int(value) for value in numbers]


def _thresholds(value: Any, classes: int, activation: str | None) -> npt.NDArray[np.float32]:
    if activation != "sigmoid":
        if value != 0.5:
            raise ValueError(f'threshold is for activation="sigmoid", got {value!r}')
        return np.full(classes, 0.5, np.float32)
    values = (value,) * classes if isinstance(value, Real) and not isinstance(value, bool) else value
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(f"threshold must be a number, or one for each class, got {value!r}")
    values = list(values)
    if len(values) != classes:
        raise ValueError(f"threshold must have one number for each of the {classes} classes, got {value!r}")
    for v in values:
        if isinstance(v, bool) or not isinstance(v, Real):
            raise TypeError(f"threshold must be numbers between 0 and 1, got {value!r}")
        if not 0 < float(v) < 1:
            raise ValueError(f"threshold must lie between 0 and 1, got {value!r}")
    return np.array(values, np.float32)


# --- outputs ---------------------------------------------------------------------------------------------------------


def _make(
    wanted: Sequence[str], kind: str, target: Grid, classes: int, labels: np.dtype[Any]
) -> tuple[list[Any], Outputs]:
    """What will be answered, and its memory as engines take it."""
    shapes = {name: (classes, *target.size[::-1]) if name == "probabilities" else target.size[::-1] for name in wanted}
    floats = np.dtype(np.float32)
    for name, shape in shapes.items():
        check_memory(shape, labels if name == "labels" else floats, f"output {name!r}")
    made = {
        name: blank(kind, target, labels if name == "labels" else floats, classes if name == "probabilities" else 0)
        for name in shapes
    }
    arrays = {name: array[..., None, :, :] if target.dimension == 2 else array for name, (_, array) in made.items()}
    return [made[name][0] for name in wanted], Outputs(**arrays)


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

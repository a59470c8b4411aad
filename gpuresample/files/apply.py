"""A chain of transforms applied to a volume from file to file: what is read, checked and counted before and after."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpuresample.containers import Volume
from gpuresample.files import transforms
from gpuresample.files.transforms import Item, Loaded
from gpuresample.ops.resample import resample
from gpuresample.ops.transforms import resolve
from gpuresample.planning.grid import Grid
from gpuresample.planning.transforms import Nodes, Transform, reaches, route


def load(
    items: Sequence[Item],
    series: bool,
    target: Grid | None,
    source: Grid,
    form: str | None = None,
    fsl: tuple[Grid | None, Grid | None] = (None, None),
) -> list[Loaded]:
    """The transforms of a chain.

    Parameters
    ----------
    items : sequence
        As `gpuresample.read_transform` takes them, a point of the output through the first one first; with `series`
        also folders and patterns ("motion/*.mat"), whose files are one for each volume, in the order of their numbers.
    series : bool
        Whether a transform may have one for each volume.
    target, source : Grid
        Of the output and of the input: the images that the first and the last transform were made between.
    form : str, optional
        The format of files that do not show it.
    fsl : two Grid
        Of the reference and the moving image of transforms that need them, where these are others.

    Raises
    ------
    OSError, ValueError, TypeError
        As `gpuresample.read_transform`; for a pattern without files, and several transforms without `series`.
    """
    loaded = []
    for k, item in enumerate(items):
        reference = fsl[0] or (target if k == 0 else None)
        moving = fsl[1] or (source if k == len(items) - 1 else None)
        names = _several(item) if series else None
        if names is None:
            found = transforms.load(item, form, reference, moving)
        else:
            found = _one_of_many([transforms.load(name, form, reference, moving) for name in names])
        if len(found.transforms) > 1 and not series:
            raise ValueError(
                f"{found.files[0]}: has {len(found.transforms)} transforms, one for each volume; say so (--series)"
            )
        loaded.append(found)
    return loaded


def _several(item: Item) -> list[Item] | None:
    """The files of a folder or of a pattern, in the order of their numbers; None for a single file."""
    path, inverse = transforms.split(item)
    if path.is_dir():
        found = [p for p in path.iterdir() if p.is_file() and not p.name.startswith(".")]
    elif path.exists() or not re.search(r"[*?]", path.name):
        return None
    else:
        found = list(path.parent.glob(path.name))
    if not found:
        raise FileNotFoundError(f"{path}: there are no such files")
    found.sort(key=lambda p: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", p.name)])
    return [(p, inverse) for p in found]


def _one_of_many(loaded: list[Loaded]) -> Loaded:
    """The transforms of several files as one for each volume."""
    for one in loaded:
        if len(one.transforms) != 1:
            raise ValueError(f"{one.files[0]}: has {len(one.transforms)} transforms, and is one file of many")
    first = loaded[0]
    return Loaded(
        tuple(path for one in loaded for path in one.files), first.kind, first.form, first.direction,
        tuple(one.transforms[0] for one in loaded), first.notes, first.grid,
    )  # fmt: skip


def check(loaded: Sequence[Loaded], target: Grid) -> None:
    """Refuse transforms of another dimension, and lattices that no point of the output meets.

    Raises
    ------
    ValueError
        With the file.
    """
    n_dst = (*(1,) * (3 - target.dimension), *target.size[::-1])
    before = Transform(target.dimension, ())
    for one in loaded:
        try:
            made = resolve(one.transforms[0], target)[0]
        except (ValueError, TypeError) as error:
            raise ValueError(f"{one.files[0]}: {error}") from None
        for step in made.steps:
            if isinstance(step, Nodes):
                size = (*(1,) * (3 - target.dimension), *step.grid.size[::-1])
                box = tuple((-0.5, n - 0.5) for n in size)
                if not reaches(route(target, step.grid, before), (n_dst[0], n_dst[1], n_dst[2]), box):
                    raise ValueError(
                        f"{one.files[0]}: its {one.kind} lies nowhere near the reference, so it would move nothing: it "
                        f"is on {step.grid}, the reference is {target}"
                    )
            before = before.then(Transform(target.dimension, (step,)))


def outside(transform: Any, target: Grid, source: Grid) -> tuple[int, int]:
    """How many points of the output come to lie outside the input, and how many there are, over all volumes.

    A volume of ones that takes the memory of one voxel is resampled; inside is what it is for every interpolation.
    """
    ones = Volume(np.broadcast_to(np.uint8(1), source.size[::-1]), source.spacing, source.origin, source.direction)
    each = transform if isinstance(transform, list) else [transform]
    missed = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of transforms that lead nowhere, which was said before
        for one in each:
            made = resample(ones, like=target, transform=one, interpolation="nearest", device="cpu")
            missed += made.array.size - int(np.count_nonzero(made.array))
    return missed, target.voxels * len(each)

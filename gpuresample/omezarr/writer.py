"""Pyramids as OME-Zarr (NGFF 0.5), block by block: memory is bounded, and a killed run can be continued.

A level is written in units, whole shards or chunks, each by one thread: it reads what the level's tables need of the
level before, in pieces, and writes the unit once. Voxels stay floats between levels as in `gpuresample.pyramid`; where
the level itself has other voxels, its floats lie in a zarr array beside, until the next level is made of them. So
every level has the bits of `gpuresample.pyramid`.
"""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample.chunked import blocks, chunking, zarrs
from gpuresample.chunked.blocks import Index, Job, Slices
from gpuresample.containers import Volume, unwrap
from gpuresample.files import disk
from gpuresample.files import volumes as files
from gpuresample.omezarr import layout, ngff, volumes
from gpuresample.omezarr.layout import Level
from gpuresample.omezarr.unfinished import Unfinished, unfinished
from gpuresample.omezarr.volumes import Source
from gpuresample.ops import pyramid

ENDING = ".zarr"
# How far voxels are packed at the very best: CT and microscopy to some 1/2 to 1/10, label maps to some hundredth.
PACKED = 1000
Progress = Callable[[int, int, int, int], None]


def write_pyramid(
    image: Any,
    path: files.PathLike,
    levels: int | None = None,
    *,
    factors: int | Sequence[int] | str = 2,
    schedule: Sequence[int | Sequence[int]] | None = None,
    kind: str = "gaussian",
    sigma: str | float | Sequence[float] = "auto",
    rounding: str = "nearest",
    labels: bool = False,
    input_spacing: object = None,
    chunks: Sequence[int] | None = None,
    shards: bool = True,
    device: str = "auto",
    memory: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[Volume]:
    """Write a pyramid as an OME-Zarr image (NGFF 0.5, zarr v3), with the bits of `gpuresample.pyramid`.

    Parameters
    ----------
    image : path-like, zarr.Array, dask.array.Array, Volume, SimpleITK.Image, nibabel image or array
        A path may lead to a file that SimpleITK reads, to a zarr array or to an OME-Zarr image. zarr and dask arrays,
        and uncompressed NIfTI and MetaImage files of 2 or 3 dimensions, are read block by block; the rest as a whole.
    path : path-like
        The folder to make; its name ends with ".zarr".
    levels, factors, schedule, kind, sigma, rounding
        As for `gpuresample.pyramid`; for files, in x, y, z order.
    labels : bool
        Whether the voxels are labels. This sets `kind="mode"` unless it is "label", and marks the image as labels in
        its metadata. Labels must be whole numbers.
    input_spacing : float or sequence of float, optional
        Spacing of an array, in axis order; of a file that is a zarr array, in x, y, z order.
    chunks : sequence of int, optional
        Chunk lengths, one for each axis of the array or of space; 64 x 64 x 64 voxels unless given.
    shards : bool
        Whether levels of more than 32 chunks store them in shards of some 16 MiB of voxels.
    device
        As for `gpuresample.resample`.
    memory : int, optional
        Bytes that may be used by all units that are being made (512 MiB unless given). One unit is always being made.
    overwrite : bool
        Whether what is at `path` may be replaced.
    progress : callable, optional
        Called with `(level, levels, done, units)` after every unit, from one thread at a time.

    Returns
    -------
    list of Volume
        The zarr arrays that were written, finest first.

    Raises
    ------
    ValueError, TypeError
        As `gpuresample.pyramid`; for labels that are not whole numbers, chunks that do not fit, a name without ".zarr".
    OSError
        If the folder cannot be made, is there already, another process is writing it, or the disk is far too small.
    RuntimeError
        If zarr is missing.

    Warns
    -----
    RuntimeWarning
        If the disk has less room than the voxels take unpacked. If the levels end early because no axis can shrink any
        further. If an earlier call left an unfinished image that cannot be continued, because it was another job.

    Notes
    -----
    Until it is complete, the pyramid lies beside `path`, in ".NAME.partial". After a kill, the same call continues with
    the units that are missing. It recognises a zarr array by its place and metadata, and a file that is read in parts
    by its size and time; it does not compare voxels.
    """
    target = check_target(path, overwrite)
    volumes.library()
    is_path = isinstance(image, (str, os.PathLike))
    source = volumes.opened(image, input_spacing) if is_path else volumes.of_image(image, input_spacing)
    _check_apart(source, target)
    _check_room(target, math.prod(source.voxels.shape) * source.dtype.itemsize)
    if labels:
        kind = _label_kind(kind, source.dtype)
    if not is_path and unwrap(image, input_spacing, lazy=True).kind == "array":
        factors, schedule, sigma = _reversed(factors), _reversed_all(schedule), _reversed(sigma)
    shape = tuple(source.voxels.shape)
    image_ = unwrap(layout.stand_in(source.grid, shape, source.dtype), lazy=True)
    asked = pyramid.levels_of(image_, levels, factors, schedule, kind, sigma, rounding, device)
    made = list(layout.laid_out(image_, asked, chunks, shards, rounding, device))
    # Of factors the scales tell.
    method = {"kind": kind, "sigma": sigma, "rounding": rounding, "version": metadata.version("gpuresample")}
    name = target.name.removesuffix(ENDING).removesuffix(".ome")
    attrs = ngff.attributes([level.grid for level in made], source.lead, name, method, labels, source.notes)
    arrays = [[level.shape, level.chunks, level.shards, level.unit] for level in made]
    job = {
        "source": source.identity, "attributes": attrs, "arrays": arrays, "dtype": source.dtype.str,
        "zarr": metadata.version("zarr"),
    }  # fmt: skip
    # Through JSON once: tuples and NumPy's numbers as they are read again.
    with unfinished(target, _plain(job), overwrite) as work:
        _Writer(source, made, work, memory, progress).run(_plain(attrs))
    return opened_levels(target)


def check_target(path: files.PathLike, overwrite: bool = False) -> Path:
    """Whether an OME-Zarr image could be written to `path`; nothing is written.

    Raises
    ------
    ValueError, OSError
        As `write_pyramid`.
    """
    name = os.path.basename(os.path.normpath(path))
    if not name.endswith(ENDING) or name == ENDING:
        raise ValueError(f"{path}: OME-Zarr images have names that end with .ome.zarr or .zarr")
    return files.check_place(path, overwrite)


def opened_levels(path: files.PathLike) -> list[Volume]:
    """The levels of an OME-Zarr image, finest first: zarr arrays, opened for reading, each with its geometry.

    Raises
    ------
    ValueError
        If it is none.
    """
    group, attrs = volumes.group_or_array(path)
    out = []
    for number in range(len(ngff.level_of(attrs)[1]["datasets"])):
        name, multiscale = ngff.level_of(attrs, number)
        array = volumes.level(group, name)
        grid, _ = ngff.geometry(attrs, multiscale, array.shape, number)
        out.append(Volume(array, grid.spacing, grid.origin, grid.direction))
    return out


# --- arguments -----------------------------------------------------------------------------------------------------


def _check_apart(source: Source, target: Path) -> None:
    store = getattr(source.voxels, "store", None)
    root = getattr(store, "root", None)
    if root is not None and (target == Path(root).resolve() or target in Path(root).resolve().parents):
        raise ValueError(f"path must not be the input itself, got {target}")


def _check_room(target: Path, voxel_bytes: int) -> None:
    """Refuse what cannot fit the disk however well it is packed, and warn of what may not fit."""
    free = shutil.disk_usage(target.parent).free
    text = f"{target}: the image has {voxel_bytes / 1e9:,.1f} GB of voxels, and {free / 1e9:,.1f} GB of disk are free"
    if voxel_bytes > PACKED * free:
        raise OSError(errno.ENOSPC, f"{text}; a pyramid of it does not fit, however well it is packed")
    if voxel_bytes > free:
        warnings.warn(f"{text}; a pyramid of it fits only if it packs well", RuntimeWarning, stacklevel=4)


def _label_kind(kind: str, dtype: np.dtype[Any]) -> str:
    if kind not in ("gaussian", "mode", "label"):
        raise ValueError(f'labels=True is for kind="mode" or "label", got kind={kind!r}')
    if dtype.kind not in "biu":
        raise TypeError(f"image must have whole numbers as voxels to be labels, got {dtype}")
    return "mode" if kind == "gaussian" else kind


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=lambda number: number.item()))


def _reversed(value: Any) -> Any:
    """Values in the axis order of an array, in x, y, z order."""
    return value if isinstance(value, str) or not isinstance(value, Sequence) else tuple(value)[::-1]


def _reversed_all(schedule: Any) -> Any:
    return schedule if isinstance(schedule, str) or not isinstance(schedule, Sequence) else [*map(_reversed, schedule)]


# --- writing -------------------------------------------------------------------------------------------------------


class _Writer:
    """Writes the levels, one after the other."""

    def __init__(
        self, source: Source, levels: list[Level], work: Unfinished, memory: int | None, progress: Progress | None
    ) -> None:
        self.source, self.levels, self.work = source, levels, work
        self.memory, self.progress = memory, progress
        self.zarr = volumes.library()

    def run(self, attrs: dict[str, Any]) -> None:
        """All that is not there yet."""
        _forget_metadata(self.work.result)
        self.zarr.create_group(str(self.work.result), zarr_format=3, attributes=attrs)
        before: Any = self.source
        image: Any = self.source
        last: Any = None
        kept: list[Path] = []
        for level in self.levels:
            array = self._array(self.work.result / str(level.number), level, self.source.dtype)
            floats = self._array(self._beside(level), level, level.plan.dtype, plain=True) if level.keeps else None
            of = before if level.plan is not None and not level.of_image else image
            if level.plan is None and level.number > 0:
                of = last
            self._write(level, of, array, floats)
            last = array
            if level.number == 0 and level.plan is None:
                image = before = array
            if level.plan is not None:
                before = array if floats is None else floats
                for path in kept:
                    shutil.rmtree(path)
                kept = [self._beside(level)] if floats is not None else []

    def _beside(self, level: Level) -> Path:
        return self.work.work / str(level.number)

    def _array(self, path: Path, level: Level, dtype: np.dtype[Any], plain: bool = False) -> Any:
        """The array of a level, with the chunks that are there; `plain` ones are read again soon, so not compressed."""
        _forget_metadata(path)
        axes = [a["name"] for a in ngff.axes_of(self.source.lead, level.grid.dimension)]
        codec = self.zarr.codecs.BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle")
        return self.zarr.create_array(
            str(path),
            shape=level.shape,
            chunks=level.chunks,
            shards=None if plain else level.shards,
            dtype=dtype,
            compressors=None if plain else codec,
            dimension_names=axes,
            zarr_format=3,
        )

    def _write(self, level: Level, of: Any, array: Any, floats: Any) -> None:
        """The units of a level that are not there yet."""
        done = self.work.count(level.number)
        if done >= level.count:
            self._say(level, done)
            return
        due = (unit for unit in level.units() if not self.work.done((level.number, *unit[0])))
        workers = layout.workers_for(level, of, self.memory)
        job = None if level.plan is None else Job(level.plan, None, (), level.plan.dtype, workers)
        pieces = layout.pieces_of(level, of)

        def unit(index: Index, block: Slices) -> None:
            voxels, kept = _made(level, of, job, block, pieces)
            for place, values in ((array, voxels), (floats, kept)):
                if place is not None:
                    place[block] = values
                    _to_disk(place, block)
            self.work.mark((level.number, *index))

        with ThreadPoolExecutor(workers, thread_name_prefix="gpuresample-unit") as threads:
            # A few are waiting at any time, not all: there may be millions.
            waiting = {threads.submit(unit, *following) for following in itertools.islice(due, 2 * workers)}
            try:
                while waiting:
                    finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in finished:
                        future.result()
                        done += 1
                        self._say(level, done)
                    waiting |= {threads.submit(unit, *following) for following in itertools.islice(due, len(finished))}
            except BaseException:
                threads.shutdown(wait=True, cancel_futures=True)
                raise

    def _say(self, level: Level, done: int) -> None:
        if self.progress is not None:
            self.progress(level.number, len(self.levels), done, level.count)


def _forget_metadata(folder: Path) -> None:
    """What an earlier run wrote is what this one writes, or it is damaged."""
    (folder / "zarr.json").unlink(missing_ok=True)


def _to_disk(array: Any, block: Slices) -> None:
    """Bring what was written of a block to disk; chunks of nothing but zeros have no files."""
    root = Path(array.store.root, array.path)
    unit = zarrs.unit(array)
    for index in itertools.product(*(range(b.start // u, -(-b.stop // u)) for b, u in zip(block, unit, strict=True))):
        path = root / array.metadata.encode_chunk_key(index)
        if path.exists():
            disk.to_disk(path)


def _made(
    level: Level, of: Any, job: Job | None, block: Slices, pieces: tuple[int, ...]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    """A unit's voxels, and the plan's, where they are kept."""
    if job is None:
        return np.asarray(of[block]), None
    shape = [b.stop - b.start for b in block]
    rounding = None if level.rounding is None else Job(level.rounding, None, (), job.dtype, job.abreast)
    out = np.empty(shape, job.dtype if rounding is None else rounding.plan.dtype)
    kept = np.empty(shape, job.dtype) if level.keeps else None
    for _, inside in blocks.each(chunking.regular(pieces, shape)):
        piece = tuple(slice(b.start + i.start, b.start + i.stop) for b, i in zip(block, inside, strict=True))
        voxels = job.run(piece, np.asarray(of[job.region(piece)]))
        out[inside] = voxels if rounding is None else rounding.run(piece, voxels)
        if kept is not None:
            kept[inside] = voxels
    return out, kept

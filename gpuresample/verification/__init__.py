"""`verify`: every interpolation and engine against SimpleITK, on the user's own machine and image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpuresample import engines
from gpuresample.bench import measure
from gpuresample.bench.bounds import LABEL_MODES, unit_of
from gpuresample.bench.peers import ENUMERATORS
from gpuresample.checks import one_of, sizes
from gpuresample.containers import Container, unwrap
from gpuresample.engines.threads import get_num_threads
from gpuresample.ops.resample import ROUNDINGS, plan
from gpuresample.planning.filters import SINCS, get_filter
from gpuresample.planning.grid import Grid
from gpuresample.verification.judging import Judge
from gpuresample.verification.pairs import FACTOR, FILTERS, SIGMA, pair_of
from gpuresample.verification.results import Row as Row
from gpuresample.verification.results import Verification as Verification
from gpuresample.verification.samples import CLASSES, MOST_CHANNELS, Sample, samples_of

# New spacing over old, along x, y, z: fewer voxels in the plane, more of them across, as thick slices are resampled;
# with four odd digits, so that no sample falls on a voxel or halfway between two, where round-off decides.
STEPS = (1.2843, 1.2843, 0.7109)
# Voxels of the box that is compared, and how many times fewer for what SimpleITK takes microseconds a voxel for.
VOXELS, SLOWER = 1 << 21, 32
SLOW = ("gaussian", *SINCS, *LABEL_MODES)
INTERPOLATIONS = tuple(name for name in ENUMERATORS if name != "bspline3")  # which is "bspline"


def verify(
    image: Any,
    *,
    spacing: float | Sequence[float] | None = None,
    size: Sequence[int] | None = None,
    like: Any = None,
    input_spacing: float | Sequence[float] | None = None,
    transform: Any = None,
    interpolations: Sequence[str | int] | None = None,
    filters: Sequence[str] | None = None,
    engines: Sequence[str] | None = None,
    rounding: str = "nearest",
    voxels: int = VOXELS,
    whole: bool = False,
    runs: int = 3,
    progress: Callable[[str], None] | None = None,
) -> Verification:
    """Compare with SimpleITK on this machine and this image: every interpolation, every engine, error and speed.

    Parameters
    ----------
    image : SimpleITK.Image, Volume, nibabel image or array
        As for `resample`. If it has more than 4 volumes or channels, 4 of them are compared.
    spacing, size, like, input_spacing, transform
        The grid to resample onto, as for `resample`. By default the origin stays, and every axis gets a spacing that is
        no multiple of the old one: 1.2843 times the old one in the plane, 0.7109 times across.
    interpolations : sequence of str or SimpleITK enumerator, optional
        Which interpolations to compare; all unless given. If the image is no label map, the label modes get its values
        sorted into 8 classes.
    filters : sequence of str, optional
        Which filters to compare: "gaussian_discrete", "gaussian_recursive" (sigma 1.5 voxels), "shrink", "bin_shrink"
        (by 2); all unless given.
    engines : sequence of str, optional
        "cpu", "cuda", "cuda:N". Unless given, the CPU, and the GPU if there is a usable one.
    rounding : {"nearest", "truncate"}
        "nearest" compares integers with SimpleITK's float64 result rounded to nearest, "truncate" with SimpleITK's own
        integers.
    voxels : int
        If the image or the result is larger, only a box of about so many voxels about the image's centre is compared.
        The box is 32 times smaller for the Gaussian, the windowed sincs and the label modes, because SimpleITK takes
        microseconds a voxel for them.
    whole : bool
        Compare all voxels, however long that takes.
    runs : int
        How often each library is timed, in turns; slow calls are timed less often.
    progress : callable, optional
        Called with a few words on what comes next.

    Returns
    -------
    Verification
        `print` it. `ok` says whether the numeric contract holds, `rows` has the figures, `write` makes an HTML page.

    Raises
    ------
    ValueError, TypeError
        For arguments out of range; the message names the argument, its value and what is allowed.
    RuntimeError
        For an engine of `engines` that cannot be used.

    Notes
    -----
    Errors are differences between our float result and SimpleITK's float64 result. Their unit is the image's range, or
    its largest magnitude if that is more than twice the range. Copied voxels and labels must be equal, except at exact
    ties, which round-off decides. A voxel counts as a tie if SimpleITK gives our answer too once the grid is moved
    by a billionth of a voxel (a millionth for "label_gaussian"). The report tells how many ties there were.

    Examples
    --------
    >>> import numpy as np, gpuresample as gr
    >>> report = gr.verify(np.arange(8000, dtype=np.int16).reshape(20, 20, 20), interpolations=["linear"], filters=[])
    >>> report.ok
    True
    """
    one_of("rounding", rounding, ROUNDINGS)
    (voxels,), (runs,) = sizes("voxels", [voxels], 1), sizes("runs", [runs], 1)
    names = _names(interpolations, filters)
    usable, missing = _usable(engines)
    container = unwrap(image, input_spacing)
    target = _target(image, container, spacing, size, like, input_spacing, transform)
    limits = (None, None) if whole else (voxels, max(1, voxels // SLOWER))
    sample, small = samples_of(container, target, transform, limits)
    rows: list[Row] = []
    for name in names:
        judge = Judge(pair_of(name, small if name in SLOW else sample, rounding), runs)
        for engine in usable:
            if progress is not None:
                progress(f"{name}, {engine} and SimpleITK")
            rows.append(judge.row(engine))
    rows += [Row("all", engine, state="not run", note=reason) for engine, reason in missing.items()]
    machine = measure.machine(get_num_threads())
    notes = tuple(_notes(container, target, sample, small, names))
    return Verification(tuple(rows), _about(container, target, sample), machine, rounding, notes)


def _names(interpolations: Sequence[str | int] | None, filters: Sequence[str] | None) -> list[str]:
    """What to compare, each once."""
    for what, given in (("interpolations", interpolations), ("filters", filters)):
        if isinstance(given, (str, int)):
            raise TypeError(f"{what} must be a sequence of names, got {given!r}")
    asked: list[str] = []
    for value in INTERPOLATIONS if interpolations is None else interpolations:
        name = get_filter(value).name
        asked.append("bspline" if name == "bspline3" else name)
    asked += [one_of("filters", value, FILTERS) for value in (FILTERS if filters is None else filters)]
    if not asked:
        raise ValueError("interpolations and filters must not both be empty: nothing would be compared")
    return list(dict.fromkeys(asked))


def _usable(asked: Sequence[str] | None) -> tuple[list[str], dict[str, str]]:
    """Engines that can be used, and why others cannot."""
    if isinstance(asked, str):
        raise TypeError(f"engines must be a sequence of names, got {asked!r}")
    if asked is not None:
        for name in asked:
            if engines.check_device(name) == "auto":
                raise ValueError("engines must be of 'cpu', 'cuda', 'cuda:N', got 'auto'")
            engines.check_engine(name)
        if not asked:
            raise ValueError("engines must not be empty")
        return list(dict.fromkeys(asked)), {}
    from gpuresample.engines.cuda import engine as cuda

    try:
        cuda.usable()
    except RuntimeError as error:
        return ["cpu"], {"cuda": f"{error}; gpuresample.doctor() says what is missing"}
    return ["cpu", "cuda"], {}


def _target(
    image: Any, container: Container, spacing: Any, size: Any, like: Any, input_spacing: Any, transform: Any
) -> Grid:
    """The grid to resample onto."""
    if spacing is None and size is None and like is None and transform is None:
        old = container.grid.spacing
        steps = STEPS if len(old) == 3 else (STEPS[0], STEPS[2])
        spacing = container.order(tuple(s * f for s, f in zip(old, steps, strict=True)))
    made = plan(
        image, spacing=spacing, size=size, like=like, input_spacing=input_spacing, transform=transform,
        interpolation="nearest",
    )  # fmt: skip
    return made.target


def _times(values: Sequence[float], unit: str = "") -> str:
    return " x ".join(f"{v:.5g}" for v in values) + unit


def _about(container: Container, target: Grid, sample: Sample) -> dict[str, Any]:
    low, high = sample.span
    grid, channels = container.grid, int(np.prod(container.shape[: -container.grid.dimension]))
    several = f", {channels} volumes" if channels > 1 else ""
    return {
        "size": _times(grid.size) + several,
        "spacing": _times(grid.spacing),
        "voxels": str(container.dtype),
        "compared": _times(sample.geometry.source.size),
        "range": f"{low:g} to {high:g}",
        "target": f"{_times(target.size)} at {_times(target.spacing)}",
    }


def _notes(container: Container, target: Grid, sample: Sample, small: Sample, names: Sequence[str]) -> list[str]:
    """What holds for all rows."""
    notes = []
    for part, of in ((sample, "of the image"), (small, "for the Gaussian, the windowed sincs and the label modes")):
        g = part.geometry
        if (g.source.size, g.target.size) == (container.grid.size, target.size) or (part is small and small is sample):
            continue
        notes.append(
            f"Compared {of}: a box of {_times(g.source.size)} voxels, resampled to {_times(g.target.size)}; whole=True "
            "(--whole) compares all."
        )
    channels = int(np.prod(container.shape[: -container.grid.dimension]))
    if channels > MOST_CHANNELS:
        notes.append(f"Of {channels} volumes, {MOST_CHANNELS} were compared.")
    low, high = sample.span
    if unit_of(low, high) != high - low:
        notes.append(
            f"Errors are in units of the largest magnitude, {max(abs(low), abs(high)):g}, more than twice the range."
        )
    if any(name in LABEL_MODES for name in names) and not small.labels()[1]:
        notes.append(f"The label modes were given the image's values in {CLASSES} classes.")
    if any(name in FILTERS for name in names):
        notes.append(f"Blurs have a sigma of {SIGMA:g} voxels on every axis; shrinking is by {FACTOR}.")
    return notes

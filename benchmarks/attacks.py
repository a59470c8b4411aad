"""What `attack.py` draws: calls with far positions, odd arguments, and arrays between pages that nobody may touch.

A kind of attack is a function of a random generator. It draws a case and gives its text and what runs it, which returns
"answered" or "refused", and raises whatever should not have happened.
"""

from __future__ import annotations

import contextlib
import ctypes
import decimal
import fractions
import itertools
import mmap
import random
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import SimpleITK as sitk

import gpuresample as gr
from gpuresample.checks import shown
from gpuresample.planning.filters import FILTERS
from gpuresample.planning.taps import BOUNDARIES

Case = tuple[str, Callable[[], str]]

EYE = {2: (1.0, 0.0, 0.0, 1.0), 3: (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)}
TURNED = {
    2: (0.96, -0.28, 0.28, 0.96),
    3: (0.96, -0.28, 0.0, 0.28, 0.96, 0.0, 0.0, 0.0, 1.0),
}
# A kernel is compiled for each pair of types: few are drawn, so that the time goes into calls.
DTYPES = ("uint8", "int16", "float32", "float64")
# With checked indices each takes half a minute: of the kernels, both that round and that do not.
BOUNDS_DTYPES = ("int16", "float32")
# How far sums may swing beyond the voxels, in multiples of their largest: splines and windowed sincs overshoot.
OVERSHOOT = 20.0


class Found(Exception):  # noqa: N818  # it is what was looked for
    """A call did what it should not."""


def asked(call: Callable[[], Any], names: tuple[str, ...]) -> Any:
    """What a call gives; None if it was refused by name.

    Raises
    ------
    Found
        If it was refused without the name of what is wrong.
    """
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return call()
    except (ValueError, TypeError) as error:
        if not any(re.search(rf"\b{name}\b", str(error)) for name in names):
            raise Found(f"{type(error).__name__} that names none of {', '.join(names)}: {error}") from error
        return None


# --------------------------------------------------------------------------------------------------- far positions


def far(rng: random.Random) -> Case:
    """A grid 1e3 to 1e300 voxels away from the image: refused, or voxels within the filter's reach."""
    d, n = rng.choice([2, 3]), rng.randint(1, 9)
    name, boundary = rng.choice(list(FILTERS)), rng.choice([None, *BOUNDARIES])
    dtype = rng.choice(DTYPES)
    distance = rng.choice([-1, 1]) * rng.uniform(1, 9) * 10.0 ** rng.choice([rng.uniform(3, 20), rng.uniform(3, 299)])
    how = rng.choice(["spacing", "like", "input spacing", "translation", "turned"])
    voxels = np.random.default_rng(n).integers(1, 5, (n,) * d).astype(dtype)
    image = gr.Volume(voxels, (1.0,) * d, (0.0,) * d, EYE[d])
    # A kernel for turned grids is compiled anew for every type: half of the types are enough there.
    if how == "turned":
        image = gr.Volume(voxels.astype(DTYPES[DTYPES.index(dtype) // 2 * 2]), (1.0,) * d, (0.0,) * d, EYE[d])
    there = (distance,) * d

    def call() -> Any:
        options: dict[str, Any] = {"interpolation": name, "boundary": boundary, "device": "cpu"}
        if how == "spacing":
            return gr.resample(voxels, spacing=abs(distance), anchor="edge", **options)
        if how == "translation":
            return gr.resample(image, transform=sitk.TranslationTransform(d, there), **options)
        if how == "input spacing":
            fine = gr.Volume(voxels, (1 / abs(distance),) * d, (0.0,) * d, EYE[d])
            return gr.resample(fine, like=gr.Grid((3,) * d, (1.3,) * d, (1.0,) * d, EYE[d]), **options)
        direction = TURNED[d] if how == "turned" else EYE[d]
        return gr.resample(image, like=gr.Grid((3,) * d, (1.3,) * d, there, direction), **options)

    def run() -> str:
        result = asked(call, ("grid", "spacing"))
        if result is None:
            return "refused"
        got = np.asarray(getattr(result, "array", result), np.float64)
        if not np.isfinite(got).all() or np.abs(got).max() > OVERSHOOT:
            raise Found(f"voxels of 1 to 4 became {got.min()} to {got.max()}")
        return "answered"

    text = f"{how}, {distance:.17g} away, {d}-D, {n} voxels of {dtype}, {name}, boundary {boundary}"
    return text, run


# ------------------------------------------------------------------------------------------------- odd arguments

ODD: tuple[Any, ...] = (
    10**400, -(10**400), 2**31, 2**31 - 1, 2**32, 2**63, 2**64, -1, 0, 1, 2, True, False, None, 5e-324, 1e-310, 1e-9,
    0.5, 1.5, 1e6, 1e300, -1e300, 1.7e308, float("inf"), float("-inf"), float("nan"), "", "x", "lineer", "1", "auto",
    b"x", (), [], {}, set(), object(), object, print, fractions.Fraction(1, 3), fractions.Fraction(10**400, 3),
    decimal.Decimal("1e400"), decimal.Decimal(1), 1j, np.float64("nan"), np.float32(2), np.int8(2),
    np.uint64(2**64 - 1), np.bool_(True), np.array(2), np.array([2, 2, 2]), np.array([[1, 2], [3, 4]]),
    np.array(["a"]), np.array([None]), np.zeros(0), np.datetime64(0, "s"), range(3), range(10**12), iter((1, 1, 1)),
    "\0", "\udcff", "\xe9" * 50, 1 << 20, slice(3), ..., np.zeros((2, 2, 2)), itertools.count(1), 10**5000,
)  # fmt: skip
PARAMETERS = {
    "resample": (
        "spacing size like input_spacing transform interpolation anchor boundary antialias default_value rounding "
        "convention dtype device out image"
    ),
    "plan": (
        "spacing size like input_spacing interpolation anchor boundary antialias default_value dtype image_or_shape"
    ),
    "gaussian": (
        "sigma kind order truncate max_error max_radius boundary input_spacing rounding dtype device out image"
    ),
    "shrink": "factors device out image",
    "bin_shrink": "factors reduce device out image",
    "expand": "factors interpolation device out image",
    "downsample": "factors sigma kind rounding dtype device out image",
    "upsample": "factors size interpolation rounding dtype device out image",
    "pyramid": "levels factors schedule kind sigma rounding device image",
    "laplacian": "levels factors schedule sigma interpolation device image",
    "ensemble": (
        "logits like size input_spacing anchor activation weights interpolation output labels threshold regions device"
    ),
    "Volume": "array spacing origin direction",
    "Grid": "size spacing origin direction",
    "set_num_threads": "n",
    "cost": "channels volumes read write file_bytes storage",
    "block": "dst_slices",
}  # fmt: skip
# What a refusal may call an argument whose own name it does not say.
CALLED = {
    "image_or_shape": ("image", "shape", "size"),
    "array": ("image", "voxels", "spacing"),
    "logits": ("image", "scores"),
    "like": ("grid", "image"),
    "transform": ("grid",),
    "spacing": ("grid", "size"),
    "input_spacing": ("grid", "spacing", "sigma"),
    "origin": ("grid",),
    "dst_slices": ("slices",),
    "out": ("output",),
    "factors": ("factor", "schedule", "size"),
    "schedule": ("factors",),
    "convention": ("interpolation",),
    "dtype": ("default_value", "type"),
}


def base(call: str, rng: random.Random) -> dict[str, Any]:
    """Arguments with which a call works."""
    voxels = np.random.default_rng(1).integers(0, 9, (5, 6, 7)).astype(rng.choice(DTYPES[1:3]))
    first: dict[str, dict[str, Any]] = {
        "resample": {"size": (4, 5, 6)},
        "plan": {"size": (4, 5, 6)},
        "gaussian": {"sigma": 1.0},
        "pyramid": {"levels": 2},
    }
    if call in ("shrink", "bin_shrink", "expand", "downsample", "upsample"):
        first[call] = {"factors": 2}
    if call == "laplacian":
        return {"image": voxels.astype(np.float32), "levels": 2, "device": "cpu"}
    if call == "ensemble":
        return {"logits": [np.ones((3, 5, 6, 7), np.float32)], "size": (4, 5, 6), "device": "cpu"}
    if call == "Volume":
        return {"array": voxels, "spacing": (1, 1, 1)}
    if call == "Grid":
        return {"size": (3, 3, 3), "spacing": (1, 1, 1), "origin": (0, 0, 0), "direction": EYE[3]}
    if call in ("set_num_threads", "cost", "block"):
        return {}
    return {"image_or_shape" if call == "plan" else "image": voxels, "device": "cpu", **first[call]}


def spread(value: Any, rng: random.Random) -> Any:
    """An odd value, alone or among sound ones."""
    how = rng.randrange(5)
    if how == 0:
        return [value] * 3
    if how == 1:
        return [1, value, 2]
    if how == 2:
        return (value,)
    return value


def fresh(value: Any) -> Any:
    """An iterator that nobody has walked, in an iterator's place."""
    return iter((1, 1, 1)) if isinstance(value, type(iter(()))) else value


def odd(rng: random.Random) -> Case:
    """One or two odd arguments: an answer, or a refusal that names one of them."""
    call = rng.choice(list(PARAMETERS))
    arguments = base(call, rng)
    names = rng.sample(PARAMETERS[call].split(), k=min(rng.choice([1, 1, 2]), len(PARAMETERS[call].split())))
    for name in names:
        value = rng.choice(ODD)
        arguments[name] = fresh(spread(value, rng))
    allowed = tuple(itertools.chain(names, *(CALLED.get(name, ()) for name in names)))

    def run() -> str:
        try:
            done = asked(lambda: called(call, arguments), allowed)
        except RuntimeError as error:
            if "device" in names and arguments["device"] == "cuda":
                return "refused"
            raise Found(f"RuntimeError: {error}") from error
        finally:
            if call == "set_num_threads":
                gr.set_num_threads(None)
        return "refused" if done is None else "answered"

    shown = {k: v for k, v in arguments.items() if k in names}
    return f"{call}({', '.join(f'{k}={_short(v)}' for k, v in shown.items())})", run


def called(call: str, arguments: dict[str, Any]) -> Any:
    """The call's result, or "done"."""
    if call in ("cost", "block"):
        plan = gr.plan((5, 6, 7), size=(4, 5, 6))
        return plan.cost(**arguments) if call == "cost" else plan.input_region(arguments.get("dst_slices", slice(0)))
    result = getattr(gr, call)(**arguments)
    return "done" if result is None else result


def _short(value: Any) -> str:
    text = " ".join(shown(value).split())
    return text if len(text) < 80 else f"{text[:40]}...{text[-20:]}"


# ------------------------------------------------------------------------------------------------- guarded memory


class Guarded:
    """Memory between two pages that nobody may touch: who does ends the process."""

    def __init__(self, n_bytes: int) -> None:
        page = mmap.PAGESIZE
        self.inside = max(1, -(-n_bytes // page)) * page
        self.memory = mmap.mmap(-1, self.inside + 2 * page)
        self.start = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        for at in (self.start, self.start + page + self.inside):
            if ctypes.CDLL(None, use_errno=True).mprotect(ctypes.c_void_p(at), ctypes.c_size_t(page), 0):
                raise OSError(ctypes.get_errno(), "no page could be guarded")

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any], at_end: bool) -> np.ndarray[Any, Any]:
        """An array whose last byte is the last before a guard, or its first the first behind one."""
        n_bytes = int(np.prod(shape)) * dtype.itemsize
        offset = mmap.PAGESIZE + (self.inside - n_bytes if at_end else 0)
        return np.frombuffer(self.memory, dtype, int(np.prod(shape)), offset).reshape(shape)


@contextlib.contextmanager
def guarded_copy(array: np.ndarray[Any, Any], at_end: bool) -> Iterator[np.ndarray[Any, Any]]:
    """A copy of an array in guarded memory."""
    copy = Guarded(array.nbytes).array(array.shape, array.dtype, at_end)
    copy[...] = array
    yield copy


def guarded(rng: random.Random, dtypes: tuple[str, ...] = DTYPES) -> Case:
    """Input and output in guarded memory, the output poisoned before: no fault, and the bits of the plain call."""
    d = rng.choice([2, 3, 3, 3])
    shape = tuple(rng.choice([1, 1, 2, 3, 5, 8, 17]) for _ in range(d))
    dtype = rng.choice(dtypes)
    dtype_out = np.dtype(rng.choice([dtype, "float32"]) if dtypes is DTYPES else dtype)
    voxels = np.random.default_rng(rng.randrange(99)).integers(0, 9, shape).astype(dtype)
    name, boundary = rng.choice(list(FILTERS)), rng.choice([None, *BOUNDARIES])
    turned = rng.random() < 0.3 and dtype in ("int16", "float32")
    size = tuple(rng.choice([1, 2, 3, 7, 16, 33]) for _ in range(d))
    spacing = tuple(rng.choice([0.31, 0.77, 1.0, 2.0, 9.3]) for _ in range(d))
    origin = tuple(rng.choice([-40.0, -3.3, -0.5, 0.0, 0.25, 1.0, 60.0]) for _ in range(d))
    target = gr.Grid(size, spacing, origin, TURNED[d] if turned else EYE[d])
    verb = rng.choice(["resample", "resample", "resample", "gaussian", "downsample"])
    sigma, kind = rng.choice([0.5, 2.0, 30.0]), rng.choice(["discrete", "sampled", "recursive"])
    if verb != "resample":
        dtype_out = np.dtype(dtype)
    at_end = rng.random() < 0.5

    def call(image: np.ndarray[Any, Any], out: np.ndarray[Any, Any] | None) -> np.ndarray[Any, Any]:
        if verb == "gaussian":
            return gr.gaussian(image, sigma, kind=kind, device="cpu", out=out)
        if verb == "downsample":
            return gr.downsample(image, 2, sigma=sigma, device="cpu", out=out)
        volume = gr.Volume(image, (1.0,) * d, (0.0,) * d, EYE[d])
        into = None if out is None else gr.Volume(out, spacing, origin, target.direction)
        options: dict[str, Any] = {"interpolation": name, "boundary": boundary, "dtype": dtype_out, "out": into}
        return gr.resample(volume, like=target, device="cpu", **options).array

    def run() -> str:
        plain = asked(lambda: call(voxels, None), ("image", "kind"))
        if plain is None:
            return "refused"
        with guarded_copy(voxels, at_end) as image, guarded_copy(np.empty_like(plain), at_end) as out:
            out.view(np.uint8).reshape(-1)[...] = 0xA5
            call(image, out)
            if out.tobytes() != plain.tobytes():
                raise Found("other voxels than without guards")
            if image.tobytes() != voxels.tobytes():
                raise Found("the input was written to")
        return "answered"

    how = f"{name}, boundary {boundary}" if verb == "resample" else f"sigma {sigma}, {kind}"
    where = f"{'turned, ' if turned else ''}spacing {spacing}, origin {origin}"
    text = f"{verb} of {shape} {dtype} to {dtype_out} {size}, {where}, {how}, {'end' if at_end else 'start'} guarded"
    return text, run


def bounds(rng: random.Random) -> Case:
    """`guarded`, for kernels that check every index."""
    return guarded(rng, BOUNDS_DTYPES)


def words(rng: random.Random) -> Case:
    """A command line; see `attack_words.py`, which needs the extra gpuresample[cli]."""
    from benchmarks.attack_words import command_lines

    return command_lines(rng)


KINDS: dict[str, Callable[[random.Random], Case]] = {
    "guarded": guarded, "bounds": bounds, "odd": odd, "far": far, "words": words,
}  # fmt: skip

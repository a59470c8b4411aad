"""Cases of filters: blurs against sigma, pyramids, block means and modes. Sigma is in voxels.

"discrete" stands against SimpleITK's DiscreteGaussian (the same kernel, cut at the same error, with no limit to its
radius), "recursive" against its SmoothingRecursiveGaussian, "sampled" against scipy.ndimage.gaussian_filter; all make
float32. ITK's Bessel values go wrong above some 6 voxels: there "discrete" is judged by sums in float64 alone.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import SimpleITK as sitk

import gpuresample as gr
from gpuresample.bench import exact, measure
from gpuresample.bench.cases import Array
from gpuresample.bench.devices import synchronised
from gpuresample.bench.peers import Call
from gpuresample.bench.tasks import Case, Doer, Error

Shape = tuple[int, int, int]
Make = Callable[[Shape], Array]
Reference = Callable[[Array], Error | None]

# The share of weight that "discrete" may cut off: SimpleITK's default where it is the judge, else ours.
MAX_ERROR, DEFAULT_ERROR = 0.01, 1e-4
ITK_LIMIT = 6.0
LEVELS = 4


def _have(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _ours(prepare: Callable[[Array], Call], expected: str | None, **more: Any) -> Doer:
    return Doer("gpuresample", "gpuresample", prepare, gr.__version__, expected=expected, **more)


def _on_device(call: Callable[[Any], Any], expected: str | None, **more: Any) -> list[Doer]:
    """Ours on a GPU: device arrays in and out."""

    def kernels(array: Array) -> Call:
        import cupy

        source = cupy.asarray(array)
        return synchronised(lambda: call(source))

    return [_ours(kernels, expected, device="cuda:0", scope="kernel", **more)]


def _theirs(key: str, label: str, package: str, prepare: Callable[[Array], Call], **more: Any) -> Doer:
    return Doer(key, label, prepare, measure.version(package), **more)


def _floats(array: Array) -> sitk.Image:
    return sitk.Cast(sitk.GetImageFromArray(array), sitk.sitkFloat32)


# --- blurs ----------------------------------------------------------------------------------------------------------


def _discrete(sigma: float) -> Callable[[Array], Call]:
    def prepare(array: Array) -> Call:
        image = _floats(array)
        return lambda: sitk.DiscreteGaussian(image, sigma * sigma, 1000, MAX_ERROR, False)

    return prepare


def _recursive(sigma: float) -> Callable[[Array], Call]:
    def prepare(array: Array) -> Call:
        image = sitk.GetImageFromArray(array)
        return lambda: sitk.SmoothingRecursiveGaussian(image, sigma)

    return prepare


def _scipy(sigma: float) -> Callable[[Array], Call]:
    from scipy import ndimage

    # It filters in the output's type; its own passes from int16 would round.
    return lambda array: lambda: ndimage.gaussian_filter(array, sigma, output=np.float32)


def _cupyx(sigma: float) -> Callable[[Array], Call]:
    def prepare(array: Array) -> Call:
        import cupy
        from cupyx.scipy import ndimage

        source = cupy.asarray(array)
        return synchronised(lambda: ndimage.gaussian_filter(source, sigma, output=np.float32))

    return prepare


def _peers_of_blur(kind: str, sigma: float, gpu: bool, reference: Reference) -> Iterator[Doer]:
    if kind == "recursive":
        yield _theirs("simpleitk", "SimpleITK SmoothingRecursiveGaussian", "SimpleITK", _recursive(sigma), judge=True)
    elif kind == "discrete" and sigma <= ITK_LIMIT:
        yield _theirs("simpleitk", "SimpleITK DiscreteGaussian", "SimpleITK", _discrete(sigma), judge=True,
                      reference=reference)  # fmt: skip
    elif kind == "sampled" and _have("scipy"):
        yield _theirs("scipy", "SciPy gaussian_filter", "scipy", _scipy(sigma), judge=True, reference=reference)
        if gpu and _have("cupyx"):
            yield _theirs("cupyx", "cupyx gaussian_filter", "cupy", _cupyx(sigma), device="cuda:0", scope="kernel",
                          expected="scipy", reference=reference)  # fmt: skip


def blur(kind: str, sigma: float, shape: Shape, make: Make, gpu: bool, dtype: str = "int16") -> Case:
    """A Gaussian of a kind and a sigma in voxels, to float32."""
    max_error = MAX_ERROR if sigma <= ITK_LIMIT else DEFAULT_ERROR
    reference = exact.gaussian(kind, sigma, max_error)
    theirs = tuple(_peers_of_blur(kind, sigma, gpu, reference))
    judge = theirs[0].key if theirs else None

    def ours(array: Any, device: str = "auto") -> Any:
        return gr.gaussian(array, sigma, kind=kind, max_error=max_error, dtype=np.float32, device=device)

    mine = [_ours(lambda array: lambda: ours(array, "cpu"), judge, reference=reference)]
    if gpu:
        mine += _on_device(ours, judge, reference=reference)
    return Case(
        f"gaussian-{kind}-{sigma:g}", f'Gaussian, kind="{kind}", sigma {sigma:g} voxels, {dtype} to float32',
        lambda: make(shape), lambda a: a, (*mine, *theirs), shape, shape, dtype, "float32",
    )  # fmt: skip


# --- pyramids and blocks --------------------------------------------------------------------------------------------


def _itk_pyramid(levels: int) -> Callable[[Array], Call]:
    """ITK's recursive pyramid, put together from SimpleITK's filters."""

    def prepare(array: Array) -> Call:
        first = sitk.GetImageFromArray(array)

        def call() -> list[sitk.Image]:
            found = [first]
            for _ in range(levels - 1):
                found.append(sitk.Shrink(sitk.DiscreteGaussian(found[-1], 1.0, 32, 0.1, False), (2, 2, 2)))
            return found

        return call

    return prepare


def _two_steps(array: Array) -> Call:
    """A whole blur, then every second voxel."""

    def call() -> list[Array]:
        blurred = gr.gaussian(array, 1.0, kind="discrete", max_error=0.1, max_radius=32, device="cpu")
        return [array, gr.shrink(blurred, 2, device="cpu")]

    return call


def pyramid(levels: int, shape: Shape, make: Make, gpu: bool) -> Case:
    """ITK's recursive pyramid of float32; of two levels, one blur and every second voxel."""

    def ours(array: Any, device: str = "auto") -> Any:
        return gr.pyramid(array, levels, kind="itk_recursive", device=device)

    doers = [_ours(lambda array: lambda: ours(array, "cpu"), "simpleitk")]
    if levels == 2:
        doers.append(
            Doer("gpuresample-two-steps", "gpuresample, in two steps", _two_steps, gr.__version__, expected="simpleitk")
        )
    if gpu:
        doers += _on_device(ours, "simpleitk")
    doers.append(
        _theirs("simpleitk", "SimpleITK DiscreteGaussian, Shrink", "SimpleITK", _itk_pyramid(levels), judge=True)
    )
    made = [tuple(n // 2**k for n in shape) for k in range(1, levels)]
    z, y, x = made[-1]
    name, what = ("pyramid", f"Pyramid of {levels} levels, ITK's recursive one, float32")
    if levels == 2:
        name, what = "downsample", "Blur (sigma 1) and every second voxel, float32"
    return Case(
        name, what, lambda: make(shape).astype(np.float32), lambda a: a, tuple(doers), shape, (z, y, x), "float32",
        "float32", several=sum(math.prod(n) for n in made),
    )  # fmt: skip


def _bin_shrink(array: Array) -> Call:
    image = sitk.GetImageFromArray(array)
    return lambda: sitk.BinShrink(image, (2, 2, 2))


def _local_mean(array: Array) -> Call:
    from skimage.transform import downscale_local_mean

    return lambda: downscale_local_mean(array, (2, 2, 2))


def block_means(shape: Shape, make: Make, gpu: bool) -> Case:
    """Means of 2x2x2 voxels, int16."""
    shape = (shape[0] // 2 * 2, shape[1] // 2 * 2, shape[2] // 2 * 2)
    theirs = [_theirs("simpleitk", "SimpleITK BinShrink", "SimpleITK", _bin_shrink, judge=True)]
    if _have("skimage"):
        theirs.append(_theirs("skimage", "scikit-image downscale_local_mean", "scikit-image", _local_mean,
                              expected="gpuresample"))  # fmt: skip
    mine = [_ours(lambda array: lambda: gr.bin_shrink(array, 2, device="cpu"), "simpleitk")]
    if gpu:
        mine += _on_device(lambda array: gr.bin_shrink(array, 2), "simpleitk")
    z, y, x = (n // 2 for n in shape)
    return Case(
        "block-means", "Means of 2x2x2 voxels, int16", lambda: make(shape), lambda a: a, (*mine, *theirs), shape,
        (z, y, x), "int16", "int16",
    )  # fmt: skip


def block_modes(shape: Shape, make: Make, gpu: bool) -> Case:
    """The most frequent of 2x2x2 labels, by us and by NumPy: no peer has it for whole volumes."""
    shape = (shape[0] // 2 * 2, shape[1] // 2 * 2, shape[2] // 2 * 2)
    mine = [_ours(lambda array: lambda: gr.bin_shrink(array, 2, reduce="mode", device="cpu"), "numpy")]
    if gpu:
        mine += _on_device(lambda array: gr.bin_shrink(array, 2, reduce="mode"), "numpy")
    theirs = _theirs("numpy", "NumPy, counting", "numpy", lambda array: lambda: _modes(array), judge=True)
    z, y, x = (n // 2 for n in shape)
    return Case(
        "block-modes", "Modes of 2x2x2 labels, uint8", lambda: make(shape), lambda a: a, (*mine, theirs), shape,
        (z, y, x), "uint8", "uint8", exact=True,
    )  # fmt: skip


def _modes(array: Array) -> Array:
    """Votes for every label, and the smallest of those with most."""
    blocks = [array[i::2, j::2, k::2] for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    best, most = blocks[0].copy(), np.zeros(blocks[0].shape, np.uint8)
    for label in np.unique(array).tolist():
        votes = np.zeros(best.shape, np.uint8)
        for block in blocks:
            votes += block == label
        more = votes > most
        best[more], most[more] = label, votes[more]
    return best

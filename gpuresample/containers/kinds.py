"""Arrays of any library: their voxels as the engines take them, and new arrays of the same kind.

Voxels in host memory are seen as a NumPy array, those on a GPU as a CuPy array; neither is copied. NumPy and CuPy
arrays are known by their types, everything else by what it offers: DLPack (`__dlpack__`), else
`__cuda_array_interface__`. New arrays are made by NumPy or CuPy and handed to the library by its own `from_dlpack`;
where it has none (Numba, say), the result stays a NumPy or CuPy array.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from gpuresample.containers.voxels import overlaps_itself
from gpuresample.memory import available_memory

# DLPack's numbers for devices.
HOST = {1: "CPU", 3: "pinned host memory"}
CUDA = {2: "CUDA", 13: "managed CUDA memory"}
OTHERS = {4: "OpenCL", 7: "Vulkan", 8: "Metal", 9: "VPI", 10: "ROCm", 14: "oneAPI", 16: "Hexagon"}

ARRAYS = "an array (NumPy, CuPy, or anything with DLPack or __cuda_array_interface__)"


# Libraries of arrays that are computed or read block by block, and their class.
LAZY = {"dask.array": "Array", "zarr": "Array"}


def lazy_kind(array: object) -> str | None:
    """The library, "dask" or "zarr", of an array that is not in memory; None for all others."""
    for module, name in LAZY.items():
        library = sys.modules.get(module)
        if library is not None and isinstance(array, getattr(library, name, ())):
            return module.split(".")[0]
    return None


class Held:
    """One array, and its library.

    Attributes
    ----------
    array : object
        As the caller gave it.
    voxels : numpy.ndarray or cupy.ndarray
        The same memory.
    where : str
        "cpu" or "cuda:N".
    """

    def __init__(self, array: Any, voxels: Any, where: str, make: Callable[[Any], Any] | None = None) -> None:
        self.array, self.voxels, self.where = array, voxels, where
        self._make = make

    @property
    def kind(self) -> str:
        """The library's name for it, as messages say it."""
        made = self.array if self._make is not None else self.voxels
        cls = np.ndarray if isinstance(made, np.ndarray) and self.where == "cpu" else type(made)
        return f"{cls.__module__.split('.')[0]}.{cls.__name__}"

    @property
    def library(self) -> object:
        """What outputs of this kind must have in common with it."""
        return self._make or self.where.split(":")[0]

    def new(self, shape: Sequence[int], dtype: np.dtype[Any]) -> tuple[Any, Any]:
        """A new array of this kind, where this one is, and its voxels.

        Raises
        ------
        TypeError
            If the library has no such voxels.
        """
        voxels = np.empty(shape, dtype) if self.where == "cpu" else _on_gpu(self.where, shape, dtype)
        if self._make is None:
            return voxels, voxels
        try:
            return self._make(voxels), voxels
        except (TypeError, ValueError, RuntimeError, BufferError) as error:
            raise TypeError(f"dtype must be a type that {self.kind} has, got {dtype} ({error})") from None

    def adopt(self, out: object, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """The voxels of `out`, to be written to; refuse it unless it fits.

        Raises
        ------
        TypeError, ValueError
            For another kind, place, shape or type; for memory that cannot be written to or is the input's.
        """
        given = hold(out, "out", writing=True)
        if given is None or given.library != self.library:
            raise TypeError(f"out must be a {self.kind} like the input, got {type(out).__name__}")
        if given.where != self.where:
            raise ValueError(f"out must lie where the input does, on {self.where}, got {given.where}")
        voxels = given.voxels
        _check_out(voxels, shape, dtype)
        if _overlap(voxels, self.voxels):
            raise ValueError("out must not share memory with the input")
        return voxels

    def written(self, voxels: Any) -> None:
        """To be called once kernels that write an output were launched.

        The library's own stream comes after ours: handing it the memory once more says so, by DLPack's rules.
        """
        if self.where != "cpu" and self._make is not None:
            self._make(voxels)

    def free(self) -> int:
        """Bytes that an output can still have."""
        if self.where == "cpu":
            return available_memory()
        from gpuresample.engines.cuda import engine as cuda

        runtime = cuda.engine().runtime
        with runtime.use(int(self.where[5:])):
            return runtime.free_memory()


def hold(array: object, name: str = "image", writing: bool = False) -> Held | None:
    """What there is to know about an array; None for what is no array.

    Raises
    ------
    TypeError
        For masked arrays, arrays on devices that are neither the CPU nor CUDA, and voxels that DLPack or NumPy lack.
    RuntimeError
        For arrays on a GPU where CuPy cannot use it.
    """
    # Whoever has such an array has loaded its library; another thread may be loading it at this moment.
    check_unmasked(array, name)
    on_gpu: Any = getattr(sys.modules.get("cupy"), "ndarray", ())
    if isinstance(array, on_gpu):
        return Held(array, array, f"cuda:{array.device.id}")
    if isinstance(array, np.ndarray):
        # An array of another class is read by its memory alone: a matrix has two axes, whatever view is asked of it.
        return Held(array, array if type(array) in (np.ndarray, np.memmap) else np.asarray(array), "cpu")
    if hasattr(array, "__dlpack__") and hasattr(array, "__dlpack_device__"):
        return _by_dlpack(array, name, writing)
    if hasattr(array, "__cuda_array_interface__"):
        return _by_interface(array, name)
    return None


def check_unmasked(array: object, name: str) -> None:
    """Refuse an array of NumPy's with a mask, which no engine would see.

    Raises
    ------
    TypeError
    """
    if isinstance(array, getattr(sys.modules.get("numpy.ma"), "MaskedArray", ())):
        raise TypeError(f"{name} must not be a masked array, whose mask would be lost; fill it first ({name}.filled())")


def shape_of(array: Any) -> tuple[int, ...] | None:
    """An array's shape, whatever its voxels are; None for what is no array."""
    shape = getattr(array, "shape", None)
    if shape is None and hasattr(array, "__cuda_array_interface__"):
        shape = array.__cuda_array_interface__["shape"]
    known = (
        isinstance(array, np.ndarray)
        or lazy_kind(array) is not None
        or any(hasattr(array, protocol) for protocol in ("__dlpack__", "__cuda_array_interface__"))
    )
    return tuple(shape) if known and shape is not None else None


def _by_dlpack(array: Any, name: str, writing: bool) -> Held:
    try:
        device, number = (int(n) for n in array.__dlpack_device__())
    except (TypeError, ValueError, BufferError) as error:
        raise TypeError(f"{name} cannot be read by DLPack: {error}") from None
    if device not in HOST and device not in CUDA:
        raise TypeError(
            f"{name} must be in host memory or on a CUDA GPU, got {type(array).__name__} on "
            f"{OTHERS.get(device, f'device type {device}')}; copy it first"
        )
    make = _maker(array)
    source = _without_signs_turned(array, name, writing)
    try:
        if device in CUDA:
            return Held(array, _cupy(name).from_dlpack(source), f"cuda:{number}", make)
        voxels = np.from_dlpack(source)
    except (TypeError, ValueError, BufferError) as error:
        raise TypeError(f"{name} cannot be read by DLPack: {error}") from None
    except RuntimeError as error:
        # NumPy says so of types that it lacks; CuPy's own errors are the device's.
        if device in CUDA:
            raise
        dtype = getattr(array, "dtype", "its")
        raise TypeError(f"{name} must have voxels of a type that NumPy has, got {dtype} ({error})") from None
    if writing and not voxels.flags.writeable:
        # Before NumPy 2.1 all DLPack imports were read-only; the library's own view says what is true.
        own = np.asarray(array)
        if own.flags.writeable and own.__array_interface__["data"] == (voxels.__array_interface__["data"][0], False):
            voxels = own
    return Held(array, voxels, "cpu", make)


def _without_signs_turned(array: Any, name: str, writing: bool) -> Any:
    """A tensor of torch's that is what its memory holds: `z.conj().imag` is not, and torch hands out its memory."""
    tensor: Any = getattr(sys.modules.get("torch"), "Tensor", ())
    if not (isinstance(array, tensor) and array.is_neg()):
        return array
    if writing:
        raise ValueError(f"{name} must not be a view that turns signs, such as z.conj().imag; give a tensor of its own")
    return array.resolve_neg()


def _by_interface(array: Any, name: str) -> Held:
    if array.__cuda_array_interface__.get("mask") is not None:
        raise TypeError(f"{name} must not be a masked array, whose mask would be lost; fill it first")
    voxels = _cupy(name).asarray(array)
    return Held(array, voxels, f"cuda:{voxels.device.id}")


def _maker(array: Any) -> Callable[[Any], Any] | None:
    """The `from_dlpack` of an array's library."""
    if hasattr(array, "__array_namespace__"):
        make = getattr(array.__array_namespace__(), "from_dlpack", None)
        if make is not None:
            return make
    for cls in type(array).__mro__:
        make = getattr(sys.modules.get(cls.__module__.split(".")[0]), "from_dlpack", None)
        if make is not None:
            return make
    return None


def _cupy(name: str) -> Any:
    from gpuresample.engines import install_hint
    from gpuresample.engines.cuda import engine as cuda

    try:
        return cuda.usable()
    except RuntimeError as error:
        raise RuntimeError(f"{name} is on a GPU, which is reached through CuPy: {error}. {install_hint()}") from None


def _on_gpu(where: str, shape: Sequence[int], dtype: np.dtype[Any]) -> Any:
    from gpuresample.engines.cuda import engine as cuda

    runtime = cuda.engine().runtime
    with runtime.use(int(where[5:])):
        return runtime.empty(shape, dtype)


def _check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if out.shape != shape:
        raise ValueError(f"out must have shape {shape}, got {out.shape}")
    if out.dtype != dtype:
        raise TypeError(f"out must have dtype {dtype}, got {out.dtype}")
    host = isinstance(out, np.ndarray) and hasattr(out.flags, "writeable")
    if host and not out.flags.writeable:
        raise ValueError("out must be writable, got a read-only array")
    if not out.dtype.isnative or _start(out) % out.itemsize or not _reach(out.shape, out.strides, out.itemsize)[2]:
        raise ValueError("out must be in native byte order, aligned and strided by whole voxels")
    if overlaps_itself(out):
        raise ValueError(f"out must have no two voxels in one place, got strides {out.strides} for shape {out.shape}")


def _start(array: Any) -> int:
    """Where an array's first element is."""
    address = getattr(array.data, "ptr", None)
    return int(array.__array_interface__["data"][0] if address is None else address)


@lru_cache(maxsize=256)
def _reach(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> tuple[int, int, bool]:
    """The first byte that an array uses and the one after the last, from its first element on; if strides are whole."""
    reach = [s * (n - 1) for s, n in zip(strides, shape, strict=True)]
    low, high = sum(r for r in reach if r < 0), sum(r for r in reach if r > 0) + itemsize
    return low, high, not any(s % itemsize for s in strides)


def _extent(array: Any) -> tuple[int, int]:
    """The first byte that an array uses, and the one after the last."""
    start = _start(array)
    low, high, _ = _reach(array.shape, array.strides, int(array.itemsize))
    return start + low, start + high


def shares_memory(a: Any, b: Any) -> bool:
    """Whether two arrays have memory in common; those that interleave, as halves of complex ones do, have none."""
    if not _overlap(a, b):
        return False
    if not (isinstance(a, np.ndarray) and isinstance(b, np.ndarray)):
        return _start(a) == _start(b)
    try:
        return np.shares_memory(a, b, max_work=10_000)  # type: ignore[arg-type]  # as documented
    except np.exceptions.TooHardError:
        return True


def _overlap(a: Any, b: Any) -> bool:
    """Whether two arrays may share memory; those that interleave count as if they did."""
    (a0, a1), (b0, b1) = _extent(a), _extent(b)
    return a0 < b1 and b0 < a1

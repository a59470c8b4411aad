"""The engines: whoever runs a plan's work on arrays. `interface` says what they are asked for; here one is chosen."""

from __future__ import annotations

import importlib.util
import re
import sys
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy.typing as npt

from gpuresample.checks import shown
from gpuresample.engines.cuda import forks
from gpuresample.engines.interface import Engine, Store
from gpuresample.engines.threads import get_num_threads, importing
from gpuresample.installation import callers_level
from gpuresample.planning.works import Gather, Work

INSTALL_CUDA = 'pip install "gpuresample[cuda13x]" (CUDA 13 drivers) or "gpuresample[cuda12x]" (CUDA 12 drivers)'

# The rule of device="auto" for images in host memory. Results are the same numbers within 1e-6 of the range, so only
# speed decides: the GPU is taken where the CPU engine's threads would need longer than the way there and back by PCIe.
# Seconds, times threads, that the CPU engine takes per voxel of input and output, by tables and by a gather; seconds
# that the GPU's way takes per voxel and per call. Fitted to the last table of
# benchmarks/results/nvidia-h200-2026-11-27/kernels.md (pageable memory, 16 threads). Beside many cores tables stay on
# the CPU, at any size. The first call pays a second more, for CuPy's import and CUDA's start. Copies (nearest, shrink)
# stay on the CPU, for the bus is no faster than its memory; so do votes for labels, for engines may break ties in two
# ways.
CPU_TABLES, CPU_GATHER = 2e-9, 28e-9
GPU_VOXEL, GPU_CALL = 2e-10, 1e-3


def install_hint() -> str:
    """What to do about a CUDA engine that cannot be used."""
    return f"The CUDA engine installs by {INSTALL_CUDA}; gpuresample.doctor() says what is missing"


def check_device(device: object) -> str:
    """`device` if it is a word we know.

    Raises
    ------
    ValueError, TypeError
        For anything but "auto", "cpu", "cuda", "cuda:N".
    """
    if not isinstance(device, str):
        raise TypeError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got {shown(device)}")
    if device not in ("auto", "cpu", "cuda") and not re.fullmatch(r"cuda:\d+", device):
        hint = "; did you mean 'cuda'?" if device.lower().startswith(("cu", "gpu")) else ""
        raise ValueError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got {shown(device)}{hint}")
    return device


def pays(voxels: int, gathers: bool) -> bool:
    """Whether a GPU would be faster than the CPU engine's threads, for an image in host memory.

    Parameters
    ----------
    voxels : int
        Of input and output together.
    gathers : bool
        Whether the output's grid is rotated or deformed, so that no tables serve it.
    """
    on_cpu, on_gpu = voxels * (CPU_GATHER if gathers else CPU_TABLES), GPU_CALL + voxels * GPU_VOXEL
    # Of few voxels it is known without the number of threads.
    return on_cpu > on_gpu and on_cpu / get_num_threads() > on_gpu


def select(device: str, where: str = "cpu", voxels: int = 0, copies: bool = False, gathers: bool = False) -> Engine:
    """The engine for a device word, and for where an image is.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "cuda:N"}
        "auto" follows the data: an image on a GPU is resampled there; one in host memory where that is faster.
    where : str
        Where the voxels are, "cpu" or "cuda:N".
    voxels : int
        Of input and output together.
    copies : bool
        Whether voxels are chosen, not summed.
    gathers : bool
        See `pays`.

    Raises
    ------
    RuntimeError
        If a CUDA device is asked for that cannot be used: the reason, and what to install. In a child forked after
        CUDA was used: the ways out.
    ValueError
        For an image on another device than asked for.
    """
    check_device(device)
    if where != "cpu":
        if device not in ("auto", "cuda", where):
            raise ValueError(
                f"device must be 'auto', 'cuda' or '{where}' for an image on {where}, got {device!r}; images are not "
                f"moved between devices, copy it first"
            )
        return _cuda(device)
    if device.startswith("cuda"):
        return _cuda(device, host=True)
    if device == "auto" and not copies and pays(voxels, gathers) and _gpu_is_there():
        return _cuda("cuda", host=True)
    with importing:
        from gpuresample.engines.cpu import engine as cpu
    return cpu


def check_engine(device: str, where: str = "cpu") -> None:
    """Refuse, before any work, a device that cannot be used or that an image does not lie on; errors as `select`."""
    select(device, where)


def ready(
    device: str, work: Work, src: npt.NDArray[Any], dst: npt.NDArray[Any], store: Store
) -> Callable[[npt.NDArray[Any], npt.NDArray[Any]], None] | None:  # fmt: skip
    """A work for many small host arrays like these: what its call fills an array with, from another.

    None where nothing is saved by it: the work is then to be run as always.
    """
    with importing:
        from gpuresample.engines.cpu import engine as cpu
    engine = select(device, "cpu", src.size + dst.size, store.exact, isinstance(work, Gather))
    return cpu.ready(work, src, dst, store) if engine is cpu else None


def _cuda(device: str, host: bool = False) -> Engine:
    with importing:
        from gpuresample.engines.cuda import engine as cuda
    try:
        return cuda.find(device) if host else cuda.engine()
    except forks.ForkedError as error:
        raise forks.ForkedError(f"device={device!r}: {error}") from None
    except RuntimeError as error:
        raise RuntimeError(f'device={device!r}: {error}. Use device="cpu" or "auto". {install_hint()}') from None


def _gpu_is_there() -> bool:
    """Whether "auto" may use a GPU in this process."""
    return not forks.is_child() and _usable()


@lru_cache(maxsize=1)
def _usable() -> bool:
    """Asked once per process. A GPU is expected where CuPy is installed: only then is its absence worth a word."""
    if "cupy" not in sys.modules and importlib.util.find_spec("cupy") is None:
        return False
    with importing:
        from gpuresample.engines.cuda import engine as cuda
    try:
        cuda.usable()
    except RuntimeError as error:
        warnings.warn(
            f'device="auto" resamples on the CPU: {error}. device="cpu" says so without this warning', RuntimeWarning,
            stacklevel=callers_level(),
        )  # fmt: skip
        return False
    return True

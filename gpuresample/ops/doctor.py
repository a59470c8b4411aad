"""What this machine can do, and the fix for what it cannot."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from gpuresample.engines import threads
from gpuresample.engines.cpu import ahead, shipped, store
from gpuresample.engines.cuda import forks
from gpuresample.ops.resample import plan

DRIVER = "https://www.nvidia.com/drivers has drivers; in a container, start it with --gpus all"
SELF_TEST_SHAPE, SELF_TEST_SIZE = (40, 128, 128), (50, 100, 100)
# The stated bound between engines, of the range.
AGREEMENT = 1e-6


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    name : str
        What.
    state : {"ok", "missing", "broken"}
        "missing" is something optional that is not there; "broken" something that is there and does not work.
    text : str
        What was found.
    fix : str
        The line that mends it, if something is to be mended.
    """

    name: str
    state: str
    text: str
    fix: str = ""


@dataclass(frozen=True)
class Report:
    """What `doctor` found.

    Attributes
    ----------
    findings : list of Finding
    """

    findings: list[Finding] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """Whether everything works that is there; a machine without a GPU may well be healthy."""
        return all(finding.state != "broken" for finding in self.findings)

    @property
    def cuda(self) -> bool:
        """Whether a GPU gave right results."""
        return any(f.name.startswith("self-test cuda") and f.state == "ok" for f in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"healthy": self.healthy, "cuda": self.cuda, "findings": [asdict(f) for f in self.findings]}

    def __str__(self) -> str:
        lines = []
        for f in self.findings:
            lines.append(f"{f.state:8}{f.name:22}{f.text}")
            if f.fix:
                lines.append(f"{'':30}fix: {f.fix}")
        return "\n".join(lines)


def doctor() -> Report:
    """Look at everything that resampling needs, on the CPU and on GPUs, and try it.

    Returns
    -------
    Report
        `print` it. `healthy` and `cuda` sum it up. For everything that is missing, it has the line that installs it.

    Examples
    --------
    >>> import gpuresample as gr
    >>> report = gr.doctor()
    >>> report.healthy
    True
    """
    return Report([*_host(), *_device()])


# --- the CPU -----------------------------------------------------------------------------------------------------


def _host() -> Iterator[Finding]:
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield Finding("gpuresample", "ok", f"{sys.modules['gpuresample'].__version__} in {Path(__file__).parents[1]}")
    for name in ("numpy", "numba", "SimpleITK"):
        try:
            yield Finding(name, "ok", metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(name, "broken", "not installed", f"pip install {name}")
    yield _threads()
    yield _kernels()
    yield _kernel_cache()
    yield _tried("self-test cpu", lambda: _self_test("cpu"), 'pip install --force-reinstall "gpuresample"')


def _threads() -> Finding:
    """How many threads, and why as many."""
    asked = os.environ.get("GPURESAMPLE_NUM_THREADS")
    why = f"of {os.cpu_count()} cores" if asked is None else f"set by GPURESAMPLE_NUM_THREADS={asked}"
    return Finding("CPU threads", "ok", f"{threads.get_num_threads()} {why}")


def _kernels() -> Finding:
    """How many of the common kernels need no compiler any more."""
    wanted = [(ahead.kernel_of(name), signature) for name, signature in ahead.recorded()]
    unshipped = [one for one in wanted if shipped.load(*one) is None]
    left = sum(not store.is_kept(*one) for one in unshipped)
    library = shipped.present()
    brought = "none shipped" if library is None else f"{len(wanted) - len(unshipped)} shipped for {library.level}"
    text = (
        f"{len(wanted) - left} of {len(wanted)} for common voxel types are compiled: {brought}, "
        f"{len(unshipped) - left} kept on this machine"
    )
    if left == 0:
        return Finding("kernels", "ok", text)
    fix = 'python -c "import gpuresample; gpuresample.warmup()"'
    return Finding("kernels", "missing", f"{text}; the others compile when they are first called", fix)


def _kernel_cache() -> Finding:
    """Whether compiled kernels are kept from process to process."""
    folders = store.folders(ahead.kernel_of("table_kernels.separable_block"))
    for folder in folders:
        if _writable(folder):
            return Finding("kernel cache", "ok", str(folder))
    fix = "export NUMBA_CACHE_DIR=/a/folder/you/may/write"
    return Finding("kernel cache", "broken", f"{folders[0]} cannot be written: every process compiles anew", fix)


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _tried(name: str, act: Callable[[], str], fix: str) -> Finding:
    try:
        return Finding(name, "ok", act())
    except Exception as error:  # whatever it is, it is the finding
        return Finding(name, "broken", f"{type(error).__name__}: {error}", fix)


def _phantom() -> Any:
    z, y, x = np.meshgrid(*[np.arange(n, dtype=np.float32) for n in SELF_TEST_SHAPE], indexing="ij", sparse=True)
    return (500 * np.sin(x / 5) + 400 * np.cos(y / 7 + z / 3)).astype(np.int16)


def _self_test(device: str) -> str:
    """Resample a volume twice; the second call is timed. On a GPU, results are compared with the CPU engine's."""
    volume = _phantom()
    worst = 0.0
    for interpolation in ("nearest", "linear", "bspline"):
        made = plan(volume, size=SELF_TEST_SIZE, interpolation=interpolation, dtype="float32", device=device)
        result = made.run(volume)
        if device == "cpu":
            continue
        right = replace(made, device="cpu").run(volume)
        worst = max(worst, float(np.abs(result - right).max()) / float(np.ptp(volume)))
    start = time.perf_counter()
    again = made.run(volume)
    taken = time.perf_counter() - start
    if not np.array_equal(result, again):
        raise RuntimeError("the same call gave other bits")
    if worst > AGREEMENT:
        raise RuntimeError(f"results differ from the CPU engine's by {worst:.2g} of the range")
    within = "" if device == "cpu" else f", within {worst:.1g} of the range of the CPU engine"
    sizes = "x".join(map(str, SELF_TEST_SHAPE)), "x".join(map(str, SELF_TEST_SIZE))
    return f"cubic B-spline, {sizes[0]} to {sizes[1]}, in {1e3 * taken:.1f} ms{within}"


# --- GPUs --------------------------------------------------------------------------------------------------------


def _device() -> Iterator[Finding]:
    driver = _driver()
    yield driver
    if "cupy" not in sys.modules and importlib.util.find_spec("cupy") is None:
        wheel = "cuda12x" if driver.text.startswith("CUDA 12") else "cuda13x"
        yield Finding("CuPy", "missing", "not installed: no CUDA engine", f'pip install "gpuresample[{wheel}]"')
        return
    with warnings.catch_warnings():
        # Of a missing toolkit, which is one of the findings.
        warnings.simplefilter("ignore")
        try:
            import cupy
        except ImportError as error:
            yield Finding("CuPy", "broken", f"cannot be imported: {error}", 'pip install "gpuresample[cuda13x]"')
            return
    wheel, major = _wheel()
    yield Finding("CuPy", "ok", f"{cupy.__version__}, {wheel}, for CUDA {major}")
    yield _nvrtc(major)
    yield _compile_cache()
    try:
        forks.check()
        count = int(cupy.cuda.runtime.getDeviceCount())
        if count:
            forks.note_use()
    except RuntimeError as error:
        state = "missing" if driver.state == "missing" else "broken"
        yield Finding("GPUs", state, f"none can be used: {error}", driver.fix or _driver_fix(str(error)))
        return
    for number in range(count):
        properties = cupy.cuda.runtime.getDeviceProperties(number)
        name = properties["name"].decode() if isinstance(properties["name"], bytes) else properties["name"]
        with cupy.cuda.Device(number):
            free, total = cupy.cuda.runtime.memGetInfo()
        capability = f"{properties['major']}.{properties['minor']}"
        text = f"{name}, compute capability {capability}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
        old = (properties["major"], properties["minor"]) < (7, 5)
        fix = 'kernels are tested from compute capability 7.5 on; use device="cpu"' if old else ""
        yield Finding(f"GPU {number}", "missing" if old else "ok", text, fix)
        device = f"cuda:{number}"
        yield _tried(f"self-test {device}", partial(_self_test, device), _self_test_fix(major))


def _driver() -> Finding:
    """NVIDIA's driver, without CuPy: the library that it installs."""
    import ctypes

    name = {"win32": "nvcuda.dll"}.get(sys.platform, "libcuda.so.1")
    try:
        library = ctypes.CDLL(name)
    except OSError:
        where = "" if shutil.which("nvidia-smi") is None else " (though nvidia-smi is there)"
        return Finding("NVIDIA driver", "missing", f"{name} is not there{where}: no GPU can be used", DRIVER)
    version = ctypes.c_int()
    if library.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return Finding("NVIDIA driver", "broken", f"{name} does not say its version", DRIVER)
    return Finding("NVIDIA driver", "ok", f"CUDA {version.value // 1000}.{version.value % 1000 // 10}")


def _driver_fix(error: str) -> str:
    if "InsufficientDriver" in error:
        return f'a newer driver ({DRIVER}), or CuPy for the one there is: pip install "gpuresample[cuda12x]"'
    return DRIVER


def _wheel() -> tuple[str, str]:
    """CuPy's package, and the CUDA version that it is for."""
    for name in ("cupy-cuda13x", "cupy-cuda12x", "cupy-cuda11x", "cupy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            metadata.version(name)
            return name, name[9:11] if name != "cupy" else "of the system"
    return "built from source", "of the system"


def _nvrtc(major: str) -> Finding:
    """The compiler that CuPy calls."""
    wheel = f"cupy-cuda{major}x[ctk]" if major.isdigit() else "cupy-cuda13x[ctk]"
    fix = f'pip install "{wheel}"'
    try:
        from cupy.cuda import nvrtc

        version = nvrtc.getVersion()
    except Exception as error:  # whatever a missing library raises
        return Finding("NVRTC", "broken", str(error).strip().splitlines()[0], fix)
    return Finding("NVRTC", "ok", ".".join(map(str, version)))


def _compile_cache() -> Finding:
    """CuPy's folder of compiled kernels."""
    folder = Path(os.environ.get("CUPY_CACHE_DIR", Path.home() / ".cupy" / "kernel_cache"))
    if _writable(folder):
        return Finding("compile cache", "ok", str(folder))
    fix = "export CUPY_CACHE_DIR=/a/folder/you/may/write"
    return Finding("compile cache", "broken", f"{folder} cannot be written: every process compiles anew", fix)


def _self_test_fix(major: str) -> str:
    wheel = f"cuda{major}x" if major.isdigit() else "cuda13x"
    return f'pip install --force-reinstall "gpuresample[{wheel}]"; if it stays, please report it with this table'

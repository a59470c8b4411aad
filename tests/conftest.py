"""Fixtures that every test may use."""

import gc
import os
import signal
import sys
import threading
from functools import lru_cache
from pathlib import Path

import pytest
import SimpleITK as sitk
from hypothesis import settings

# Derandomised: a red run is red again. No deadline: the first call of a kernel compiles it.
settings.register_profile("gpuresample", deadline=None, derandomize=True, database=None, max_examples=25)
settings.load_profile("gpuresample")

# What a shell starts in the background ignores Ctrl-C, and so would the processes that tests interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Python would spend a quarter of the time of collecting on looking for garbage among the tests, which stay.
gc.disable()

REASON = pytest.StashKey[str]()
LAUNCHES = "kernel launches"


def pytest_collection_modifyitems(config, items):
    """Skip the GPU's tests where there is none, kernels without g++, slow ones unless GPURESAMPLE_SLOW is set."""
    for item in items:
        if item.get_closest_marker("slow") and not os.environ.get("GPURESAMPLE_SLOW"):
            item.add_marker(pytest.mark.skip(reason="slow; set GPURESAMPLE_SLOW=1"))
        if item.get_closest_marker("kernels") and (reason := why_no_compiler()):
            item.add_marker(pytest.mark.skip(reason=reason))
        if item.get_closest_marker("gpu") is None:
            continue
        if REASON not in config.stash:
            config.stash[REASON] = why_no_gpu()
        if config.stash[REASON]:
            item.add_marker(pytest.mark.skip(reason=config.stash[REASON]))


def pytest_collection_finish():
    """From here on garbage is looked for, but not among what was collected."""
    gc.enable()
    gc.freeze()


@lru_cache
def why_no_compiler() -> str:
    """Why kernels cannot be built for the CPU; nothing if they can."""
    from gpuresample.engines.cuda.host import compiler

    try:
        compiler()
    except RuntimeError as error:
        return str(error)
    return ""


def why_no_gpu() -> str:
    """Why no GPU can be used; nothing if one can."""
    from gpuresample.engines.cuda import engine as cuda

    try:
        cuda.usable()
    except RuntimeError as error:
        return str(error)
    return ""


def pytest_terminal_summary(terminalreporter, config):
    """Say what became of the GPU's tests: they must not pass for run where they were skipped."""
    reports = [r for kind in ("passed", "failed", "skipped") for r in terminalreporter.stats.get(kind, [])]
    of_gpu = [r for r in reports if "gpu" in getattr(r, "keywords", {})]
    skipped = sum(r.skipped for r in of_gpu)
    ran = sum(r.when == "call" and not r.skipped for r in of_gpu)
    if not of_gpu:
        return
    # Where tests run in several processes, this one has collected none itself.
    reason = config.stash[REASON] if REASON in config.stash else why_no_gpu()
    if reason:
        terminalreporter.write_line(f"gpu: {skipped} tests skipped: {reason}")
        return
    import cupy

    name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    left = f", {skipped} skipped" if skipped else ""
    # The property of a test travels with the reports of its worker; the last report of a test has all of them.
    ends = [r for kind in ("", "error") for r in terminalreporter.stats.get(kind, []) if r.when == "teardown"]
    launches = sum(value for r in ends for key, value in r.user_properties if key == LAUNCHES)
    terminalreporter.write_line(f"gpu: {ran} ran on {name}, {launches} kernel launches{left}")


@pytest.fixture
def gpu(request):
    """CuPy, for a test that must have run kernels on the GPU by its end."""
    import cupy

    from gpuresample.engines.cuda import engine as cuda

    launches = cuda._engine().runtime.launches
    before = launches.total()
    yield cupy
    cupy.cuda.runtime.deviceSynchronize()
    after = cuda._engine().runtime.launches.total()
    assert after > before, "no kernel was launched"
    request.node.user_properties.append((LAUNCHES, after - before))


@pytest.fixture
def torch():
    """torch, if it has CUDA; asked for before `gpu`, which wants to see launches."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    return torch


@pytest.fixture
def cupy(monkeypatch):
    """CuPy's stand-in, as of a machine with two GPUs that nothing has used yet."""
    from fake_cupy import FAKE

    import gpuresample as gr
    from gpuresample import engines
    from gpuresample.engines.cuda import engine as cuda

    def forget():
        cuda._engine.cache_clear()
        engines._usable.cache_clear()
        gr.clear_caches()

    FAKE.reset()
    monkeypatch.setitem(sys.modules, "cupy", FAKE)
    forget()
    yield FAKE
    forget()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real volumes; tests that need it are skipped where it is absent."""
    default = Path(__file__).parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("GPURESAMPLE_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no folder of real volumes at {folder}; set GPURESAMPLE_DATA")
    return folder


@pytest.fixture(scope="session")
def read(data_dir):
    """`read(name, start, size)`: a real volume, cut to a box (x, y, z) where one is given."""
    kept = {}

    def read(name, start=None, size=None):
        if name not in kept:
            path = data_dir / name
            if not path.is_file():
                pytest.skip(f"{name} is not among the real volumes in {data_dir}")
            kept[name] = sitk.ReadImage(str(path))
        image = kept[name]
        return image if start is None else sitk.RegionOfInterest(image, size, start)

    return read


@pytest.fixture
def threads():
    """`set_num_threads`, undone afterwards."""
    import gpuresample as gr

    yield gr.set_num_threads
    gr.set_num_threads(None)


@pytest.fixture
def own_threads(threads):
    """Threads of both libraries may be set; that ends with the test."""
    n = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    yield
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(n)


@pytest.fixture(scope="session")
def scheduler(tmp_path_factory):
    """Address of a cluster whose one worker is a process of its own."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1, threads_per_worker=4, processes=True, host="127.0.0.1", memory_limit=0, dashboard_address=":0",
        local_directory=str(tmp_path_factory.mktemp("dask")), silence_logs="CRITICAL",
    ) as cluster:  # fmt: skip
        yield cluster.scheduler_address


@pytest.fixture
def run(capsys):
    """`run(*arguments)`: exit code, standard output, standard error of the command line."""
    from gpuresample.cli import main

    def run(*arguments):
        code = main([str(a) for a in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run

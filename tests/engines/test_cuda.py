"""The CUDA engine behind the public call: what it says without a GPU, and its dealings with CuPy, on a stand-in."""

import builtins
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from fake_cupy import Array, Stream
from scipy import ndimage
from support import flat, labels, noise, rotation, same_bits

import gpuresample as gr
from gpuresample import engines
from gpuresample.engines.cuda import engine as cuda
from gpuresample.engines.cuda import forks


def refusal(device):
    with pytest.raises(RuntimeError) as caught:
        engines.select(device)
    return str(caught.value)


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_without_cupy_the_reason_and_the_install_line(device, monkeypatch):
    real = builtins.__import__

    def importing(name, *rest):
        if name == "cupy":
            raise ModuleNotFoundError("No module named 'cupy'")
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(builtins, "__import__", importing)
    message = refusal(device)
    assert message.startswith(f"device='{device}': CuPy cannot be imported (No module named 'cupy').")
    assert 'pip install "gpuresample[cuda13x]"' in message
    assert "gpuresample.doctor()" in message


def test_without_a_gpu_the_reason_and_the_install_line(cupy, monkeypatch):
    def none():
        raise RuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")

    monkeypatch.setattr(cupy.cuda.runtime, "getDeviceCount", none)
    message = refusal("cuda")
    assert message.startswith("device='cuda': CuPy finds no usable GPU (cudaErrorInsufficientDriver")
    assert 'pip install "gpuresample[cuda13x]"' in message


def test_a_gpu_that_is_not_there(cupy):
    assert "device='cuda:2': there are 2 GPUs, numbered from 0" in refusal("cuda:2")


@pytest.mark.kernels
@pytest.mark.parametrize("interpolation", ["nearest", "linear", "bspline", "hamming", "label_linear"])
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_host_arrays_go_there_and_back(cupy, device, interpolation):
    src = labels((9, 34, 41), "int16")
    out = gr.resample(src, size=(7, 40, 33), interpolation=interpolation, device=device)
    expected = gr.resample(src, size=(7, 40, 33), interpolation=interpolation, device="cpu")
    assert type(out) is np.ndarray
    assert same_bits(out, expected)
    assert cuda._engine().runtime.launches.total() > 0
    assert cupy.calls["get"] == 1
    assert cupy.current == 0


@pytest.mark.kernels
def test_conventions_go_there(cupy):
    # Doubling with corners aligned puts samples halfway: every second voxel is a tie, which SciPy takes away from zero.
    src = noise((3, 4, 40), "int16")
    options = {"size": (3, 4, 79), "interpolation": "linear", "convention": "scipy"}
    out = gr.resample(src, device="cuda", **options)
    assert same_bits(out, gr.resample(src, device="cpu", **options))
    assert (out != gr.resample(src, device="cuda", size=(3, 4, 79), interpolation="linear", anchor="center")).any()
    halves = np.arange(-8, 8, dtype=np.float32).reshape(1, 1, 16) / 2
    options = {"size": (1, 1, 31), "interpolation": "nearest", "convention": "scipy", "dtype": "int8"}
    whole = ndimage.zoom(halves, (1, 1, 31 / 16), order=0, output="int8")
    for device in ("cuda", "cpu"):
        assert same_bits(gr.resample(halves, device=device, **options), whole)
    assert len(gr.resample(cupy.asarray(src), size=(3, 4, 79), convention="nnunet")) == 3


@pytest.mark.kernels
@pytest.mark.parametrize("interpolation", ["linear", "bspline"])
def test_voxels_without_data_are_ignored_there_too(cupy, interpolation):
    src = noise((9, 34, 41), "int16")
    src[:4, 10:] = -2000
    volume, turned = gr.Volume(src, (1, 1, 1)), gr.Affine(rotation(4, 7, -5), (0.3, 0.2, 0.1))
    for keywords in ({"size": (33, 40, 7)}, {"transform": turned, "default_value": 5}):
        options = {"interpolation": interpolation, "ignore": -2000, **keywords}
        before = cuda._engine().runtime.launches.total()
        out = gr.resample(volume, device="cuda", **options).array
        assert cuda._engine().runtime.launches.total() > before
        expected = gr.resample(volume, device="cpu", **options).array
        assert (out == -2000).any()
        assert (out != expected).mean() <= 1e-3


@pytest.mark.kernels
def test_strided_outputs_and_other_byte_orders(cupy):
    src = noise((9, 34, 41), "int16")
    expected = gr.resample(src, size=(7, 40, 33), device="cpu")
    out = np.zeros((7, 40, 66), np.int16)[..., ::2]
    gr.resample(src.astype(">i2"), size=(7, 40, 33), device="cuda", out=out)
    assert np.abs(out.astype(int) - expected).max() <= 1
    assert (out != expected).mean() < 0.001


@pytest.mark.kernels
def test_arrays_on_the_gpu_stay_there(cupy):
    plan = gr.plan(noise((9, 34, 41), "float32"), size=(7, 40, 33), device="cpu")
    src = noise((9, 34, 41), "float32")
    dst = cupy.empty((7, 40, 33), np.float32)
    cuda._engine().run(plan.work, cupy.asarray(src), dst, plan.store)
    assert isinstance(dst, Array)
    assert cupy.calls["get"] == 0
    assert np.abs(np.asarray(dst) - plan.run(src)).max() <= 1e-6 * np.ptp(src)


@pytest.mark.kernels
def test_tables_made_in_another_stream_are_waited_for(cupy):
    plan = gr.plan(noise((9, 34, 41), "float32"), size=(7, 40, 33), device="cpu")
    engine = cuda._engine()
    src, dst = cupy.asarray(noise((9, 34, 41), "float32")), cupy.empty((7, 40, 33), np.float32)
    engine.run(plan.work, src, dst, plan.store)
    assert not cupy.stream.waited
    uploaded, compiled = cupy.calls["asarray"], cupy.calls["RawModule"]
    cupy.stream = Stream(7)
    engine.run(plan.work, src, dst, plan.store)
    assert cupy.stream.waited
    assert (cupy.calls["asarray"], cupy.calls["RawModule"]) == (uploaded, compiled)


# --- device="auto" ------------------------------------------------------------------------------------------------

IMAGE = noise((9, 34, 41), "int16")


@pytest.fixture
def small(monkeypatch):
    """Any volume is large enough."""
    monkeypatch.setattr(engines, "pays", lambda voxels, gathers: True)


def ran():
    return cuda._engine().runtime.launches.total()


@pytest.mark.kernels
def test_auto_takes_large_sums_to_the_gpu(cupy, small):
    gr.resample(IMAGE, size=(7, 40, 33))
    assert ran() > 0


@pytest.mark.kernels
def test_auto_leaves_copies_and_small_volumes_on_the_cpu(cupy, monkeypatch):
    gr.resample(IMAGE, size=(7, 40, 33))
    asked = []
    monkeypatch.setattr(engines, "pays", lambda *job: asked.append(job) or True)
    gr.resample(IMAGE, size=(7, 40, 33), interpolation="nearest")
    gr.shrink(IMAGE, 2)
    gr.resample(IMAGE, size=(7, 40, 33), device="cpu")
    assert ran() == 0
    gr.resample(IMAGE, size=(7, 40, 33))
    assert ran() > 0
    gr.resample(IMAGE, like=gr.Grid((7, 40, 33), (1.0,) * 3, (0.0,) * 3, flat(rotation(0, 0, 20))))
    n = IMAGE.size + 7 * 40 * 33
    # No voxels: whether the word is one.
    assert [job for job in asked if job[0]] == [(n, False), (n, True)]


@pytest.mark.parametrize("threads", [1, 2, 8, 16, 64])
def test_auto_goes_by_threads_voxels_and_what_is_done(threads, monkeypatch):
    monkeypatch.setattr(engines, "get_num_threads", lambda: threads)
    sizes = [1000 * 2**k for k in range(20)]
    for gathers in (False, True):
        taken = [engines.pays(n, gathers) for n in sizes]
        assert not taken[0]
        assert taken == sorted(taken)
        assert taken[-1] == (gathers or threads < 10)
    assert all(engines.pays(n, True) >= engines.pays(n, False) for n in sizes)


def test_auto_says_once_that_it_falls_back(cupy, small, monkeypatch):
    def none():
        raise RuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")

    monkeypatch.setattr(cupy.cuda.runtime, "getDeviceCount", none)
    expected = gr.resample(IMAGE, size=(7, 40, 33), device="cpu")
    with pytest.warns(RuntimeWarning, match=r'device="auto" resamples on the CPU: CuPy finds no usable GPU') as said:
        out = gr.resample(IMAGE, size=(7, 40, 33))
    assert said[0].filename == __file__
    assert same_bits(out, expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same_bits(gr.resample(IMAGE, size=(7, 40, 33)), expected)


def test_auto_is_silent_where_cupy_is_not_installed(small, monkeypatch):
    engines._usable.cache_clear()
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gr.resample(IMAGE, size=(7, 40, 33))
    assert "cupy" not in sys.modules
    engines._usable.cache_clear()


# --- forks --------------------------------------------------------------------------------------------------------

FORK = """
import os, sys, warnings
warnings.simplefilter("ignore")  # Python warns of forks beside threads
sys.path.insert(0, {tests!r})
from fake_cupy import FAKE
sys.modules["cupy"] = FAKE
import numpy as np
import gpuresample as gr
from gpuresample import engines
engines.pays = lambda voxels, gathers: True
image = np.ones((4, 5, 6), np.float32)
{before}
child = os.fork()
if child == 0:
    code = 1
    try:
        gr.resample(image, size=(3, 4, 5), device={device!r})
        print("done on", gr.resample.__module__, flush=True)
        code = 0
    except RuntimeError as error:
        print(type(error).__name__, error, flush=True)
        code = 3
    os._exit(code)
print("child:", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
USE = "gr.resample(image, size=(3, 4, 5), device='cuda')"
# Asked for in vain: nothing is lost by it.
FAILED = """
from gpuresample.engines.cuda import engine as cuda
count, FAKE.cuda.runtime.getDeviceCount = FAKE.cuda.runtime.getDeviceCount, lambda: 0
try: cuda.usable()
except RuntimeError: pass
FAKE.cuda.runtime.getDeviceCount = count
"""
OTHERS_USE = """
def no(): raise RuntimeError("cudaErrorInitializationError: initialization error")
from gpuresample.engines.cuda import engine as cuda
FAKE.cuda.runtime.getDeviceCount = no
"""


def forked(before, device):
    code = FORK.format(tests=str(Path(__file__).parents[1]), before=before, device=device)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.kernels
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("before", [USE, OTHERS_USE], ids=["used by us", "used by others"])
def test_a_child_forked_after_cuda_was_used_is_told_the_ways_out(before):
    said = forked(before, "cuda")
    assert "child: 3" in said
    assert "ForkedError device='cuda': CUDA was in use before this process was forked" in said
    for way in ('"spawn" or "forkserver"', "in the main process", 'device="cpu" in the workers'):
        assert way in said
    assert "pip install" not in said


@pytest.mark.kernels
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize(("before", "device"), [(USE, "auto"), (USE, "cpu"), ("", "cuda"), (FAILED, "cuda")])
def test_other_children_resample(before, device):
    assert "child: 0" in forked(before, device)


def test_a_fork_error_is_a_runtime_error():
    assert issubclass(forks.ForkedError, RuntimeError)

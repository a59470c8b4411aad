"""The CUDA engine behind the public call: what it says without a GPU, and its dealings with CuPy, on a stand-in."""

import builtins
import sys

import numpy as np
import pytest
from fake_cupy import FAKE, Array, Stream
from support import labels, noise, same_bits

import gpuresample as gr
from gpuresample import engines
from gpuresample.engines import cuda


@pytest.fixture
def cupy(monkeypatch):
    """A machine with two "GPUs"."""
    FAKE.reset()
    monkeypatch.setitem(sys.modules, "cupy", FAKE)
    cuda._engine.cache_clear()
    yield FAKE
    cuda._engine.cache_clear()


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

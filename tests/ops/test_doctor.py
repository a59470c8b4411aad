"""`gr.doctor()` and `gpuresample doctor`: what they find, and the fix they name."""

import json
import sys
import types

import numpy as np
import pytest
from fake_cupy import FAKE

import gpuresample as gr
from gpuresample.engines.cpu import engine as cpu
from gpuresample.engines.cuda import engine as cuda
from gpuresample.ops import doctor


def named(report, name):
    (finding,) = [f for f in report.findings if f.name == name]
    return finding


@pytest.fixture
def bare(monkeypatch):
    """A machine without driver and CuPy."""
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(
        doctor, "_driver", lambda: doctor.Finding("NVIDIA driver", "missing", "not there", doctor.DRIVER)
    )


@pytest.fixture
def gpus(monkeypatch):
    """A machine with two "GPUs"."""
    FAKE.reset()
    nvrtc = types.SimpleNamespace(getVersion=lambda: (12, 9))
    monkeypatch.setitem(sys.modules, "cupy", FAKE)
    monkeypatch.setitem(sys.modules, "cupy.cuda", types.SimpleNamespace(nvrtc=nvrtc))
    monkeypatch.setattr(doctor, "_driver", lambda: doctor.Finding("NVIDIA driver", "ok", "CUDA 12.9"))
    monkeypatch.setattr(doctor, "_wheel", lambda: ("cupy-cuda12x", "12"))
    cuda._engine.cache_clear()
    yield FAKE
    cuda._engine.cache_clear()


def test_a_machine_without_a_gpu_is_healthy(bare):
    report = gr.doctor()
    assert report.healthy
    assert not report.cuda
    assert named(report, "self-test cpu").state == "ok"
    assert named(report, "CuPy").fix == 'pip install "gpuresample[cuda13x]"'
    assert "fix: pip install" in str(report)
    json.dumps(report.as_dict())


def test_the_wheel_is_the_drivers(bare, monkeypatch):
    monkeypatch.setattr(doctor, "_driver", lambda: doctor.Finding("NVIDIA driver", "ok", "CUDA 12.4"))
    assert named(gr.doctor(), "CuPy").fix == 'pip install "gpuresample[cuda12x]"'


@pytest.mark.kernels
def test_every_gpu_is_tried(gpus):
    report = gr.doctor()
    assert report.healthy
    assert report.cuda
    for number in (0, 1):
        assert "Fake H1, compute capability 9.0" in named(report, f"GPU {number}").text
        assert "of the range of the CPU engine" in named(report, f"self-test cuda:{number}").text
    assert cuda._engine().runtime.launches.total() > 0
    assert named(report, "NVRTC").text == "12.9"


@pytest.mark.kernels
def test_wrong_results_are_found(gpus, monkeypatch):
    real = cpu.run

    def wrong(work, src, dst, store):
        real(work, src, dst, store)
        dst += np.array(1, dst.dtype)

    monkeypatch.setattr(cpu, "run", wrong)
    report = gr.doctor()
    assert not report.healthy
    assert not report.cuda
    assert "results differ from the CPU engine's by" in named(report, "self-test cuda:0").text


def test_no_usable_gpu(gpus, monkeypatch):
    def none():
        raise RuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")

    monkeypatch.setattr(gpus.cuda.runtime, "getDeviceCount", none)
    finding = named(gr.doctor(), "GPUs")
    assert finding.state == "broken"
    assert "a newer driver" in finding.fix
    assert 'pip install "gpuresample[cuda12x]"' in finding.fix


def test_no_nvrtc(gpus, monkeypatch):
    def missing():
        raise OSError('Failure finding "libnvrtc.so.12"\nand more')

    monkeypatch.setattr(sys.modules["cupy.cuda"].nvrtc, "getVersion", missing)
    monkeypatch.setattr(gpus.cuda.runtime, "getDeviceCount", lambda: 0)
    finding = named(gr.doctor(), "NVRTC")
    assert (finding.state, finding.fix) == ("broken", 'pip install "cupy-cuda12x[ctk]"')
    assert finding.text == 'Failure finding "libnvrtc.so.12"'


def test_caches_that_cannot_be_written(gpus, monkeypatch, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("CUPY_CACHE_DIR", str(file / "cache"))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(file / "cache"))
    monkeypatch.setattr(gpus.cuda.runtime, "getDeviceCount", lambda: 0)
    report = gr.doctor()
    assert named(report, "compile cache").fix.startswith("export CUPY_CACHE_DIR=")
    assert named(report, "kernel cache").fix.startswith("export NUMBA_CACHE_DIR=")
    assert not report.healthy


@pytest.mark.parametrize(("broken", "code"), [(False, 0), (True, 1)])
def test_the_command(bare, run, monkeypatch, broken, code):
    if broken:
        monkeypatch.setattr(doctor, "_self_test", lambda device: 1 // 0)
    got, said, _ = run("doctor")
    assert got == code
    assert ("ZeroDivisionError" in said) == broken
    assert ("The CPU engine works" in said) != broken
    got, said, _ = run("doctor", "--json")
    assert got == code
    facts = json.loads(said)
    assert facts["healthy"] != broken
    assert facts["cuda"] is False
    assert {f["state"] for f in facts["findings"]} >= {"ok", "missing"}

"""Fixtures of the engines' tests."""

import sys

import pytest
from fake_cupy import FAKE

import gpuresample as gr
from gpuresample import engines
from gpuresample.engines.cuda import engine as cuda


@pytest.fixture
def cupy(monkeypatch):
    """CuPy's stand-in, as of a machine with two GPUs that nothing has used yet."""

    def forget():
        cuda._engine.cache_clear()
        engines._usable.cache_clear()
        gr.clear_caches()

    FAKE.reset()
    monkeypatch.setitem(sys.modules, "cupy", FAKE)
    forget()
    yield FAKE
    forget()

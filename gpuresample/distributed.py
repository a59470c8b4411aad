"""Past one machine and past memory, under one name: arrays block by block (docs/tiles.md), many volumes on Dask workers."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Outcome": "batch.outcomes",
    "Progress": "batch.outcomes",
    "batch": "batch.batches",
    "block_bytes": "chunked.blocks",
    "lazy": "chunked.blocks",
}

__all__ = ["Outcome", "Progress", "batch", "block_bytes", "lazy", "omezarr"]


def __getattr__(name: str) -> Any:
    if name == "omezarr":
        return importlib.import_module("gpuresample.omezarr.writer")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"gpuresample.{_HOMES[name]}"), name)

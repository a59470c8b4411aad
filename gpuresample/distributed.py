"""For what one machine or its memory cannot hold: arrays block by block, and folders of volumes on Dask workers."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "Outcome": "batch.outcomes",
    "Progress": "batch.outcomes",
    "batch": "batch.batches",
    "block_bytes": "chunked.blocks",
    "lazy": "chunked.blocks",
}

__all__ = ["Outcome", "Progress", "batch", "block_bytes", "lazy", "omezarr"]

if TYPE_CHECKING:
    from gpuresample.batch.batches import batch
    from gpuresample.batch.outcomes import Outcome, Progress
    from gpuresample.chunked.blocks import block_bytes, lazy
    from gpuresample.omezarr import writer as omezarr


def __getattr__(name: str) -> Any:
    if name == "omezarr":
        return importlib.import_module("gpuresample.omezarr.writer")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"gpuresample.{_HOMES[name]}"), name)

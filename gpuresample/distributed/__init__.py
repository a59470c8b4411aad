"""Past one machine and past memory: arrays block by block (docs/tiles.md), and many volumes on Dask workers."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Outcome": "outcomes",
    "Progress": "outcomes",
    "batch": "batches",
    "block_bytes": "blocks",
    "lazy": "blocks",
}

__all__ = ["Outcome", "Progress", "batch", "block_bytes", "lazy"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

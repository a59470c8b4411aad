"""Volumes larger than memory: dask and zarr arrays, block by block. See docs/tiles.md."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {"block_bytes": "blocks", "lazy": "blocks"}

__all__ = ["block_bytes", "lazy"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

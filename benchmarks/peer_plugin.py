"""A plugin of pytest for `peer_suites.py`: ours in the place of the library that `GPURESAMPLE_PEER` names."""

from __future__ import annotations

import importlib
import os
from typing import Any

from gpuresample.installation import Installation

# Where ours are that have the library's own names.
OURS = {"monai": "gpuresample.monai", "torchio": "gpuresample.torchio", "SimpleITK": "gpuresample.sitk"}
_HOLDERS = {"monai": "monai.transforms", "torchio": "torchio", "SimpleITK": "SimpleITK"}


def replaced(peer: str) -> dict[str, tuple[Any, Any]]:
    """By their names, what is replaced in a library and by what."""
    ours, theirs = importlib.import_module(OURS[peer]), importlib.import_module(_HOLDERS[peer])
    names = [name for name in dir(ours) if name[0].isupper() and hasattr(theirs, name)]
    pairs = {name: (getattr(theirs, name), getattr(ours, name)) for name in names}
    return {name: (old, new) for name, (old, new) in pairs.items() if old is not new}


def pytest_configure() -> None:
    """Before any test is collected."""
    if peer := os.environ.get("GPURESAMPLE_PEER"):
        if install := getattr(importlib.import_module(OURS[peer]), "install", None):
            install()
            return
        done = Installation(peer)
        for name, (theirs, ours) in replaced(peer).items():
            if not done.replace(theirs, ours):
                raise RuntimeError(f"{peer} has {name} nowhere to replace it")

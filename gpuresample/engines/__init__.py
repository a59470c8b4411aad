"""The engines: whoever runs a plan's work on arrays. `contract` says what they are asked for."""

from __future__ import annotations

import re

from gpuresample.engines.contract import Engine

INSTALL_CUDA = 'pip install "gpuresample[cuda13x]" (CUDA 13 drivers) or "gpuresample[cuda12x]" (CUDA 12 drivers)'


def check_device(device: object) -> str:
    """`device` if it is a word we know.

    Raises
    ------
    ValueError, TypeError
        For anything but "auto", "cpu", "cuda", "cuda:N".
    """
    if not isinstance(device, str):
        raise TypeError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got {device!r}")
    if device not in ("auto", "cpu", "cuda") and not re.fullmatch(r"cuda:\d+", device):
        hint = "; did you mean 'cuda'?" if device.lower().startswith(("cu", "gpu")) else ""
        raise ValueError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got {device!r}{hint}")
    return device


def select(device: str) -> Engine:
    """The engine for a device word; "auto" follows the data, which is in host memory, to the CPU.

    Raises
    ------
    RuntimeError
        If a CUDA device is asked for: this version has no CUDA engine.
    """
    check_device(device)
    if device.startswith("cuda"):
        raise RuntimeError(
            f"device={device!r}: this version of gpuresample has no CUDA engine yet, only the CPU engine. "
            f'Use device="cpu" or "auto" until a release brings it; it will install by {INSTALL_CUDA}'
        )
    from gpuresample.engines import cpu

    return cpu

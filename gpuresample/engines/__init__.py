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
        If a CUDA device is asked for that cannot be used: the reason, and what to install.
    """
    check_device(device)
    if device.startswith("cuda"):
        from gpuresample.engines import cuda

        try:
            return cuda.find(device)
        except RuntimeError as error:
            raise RuntimeError(
                f'device={device!r}: {error}. Use device="cpu" or "auto"; the CUDA engine installs by {INSTALL_CUDA}'
            ) from None
    from gpuresample.engines import cpu

    return cpu

"""The wheel's compiled kernels: a library for each instruction set of this kind of machine.

`GPURESAMPLE_BUILD` says which: `all`, for wheels that others install; `own`, the best that this processor has; names
with commas between them; or `none`. Whoever says what to build gets that or an error. Where nothing is said, the wheel
is for the machine that builds it. Where that is not possible (no compiler, another kind of machine), it is one of
Python alone: kernels compile when they are first called. `GPURESAMPLE_BUILD_LIST` names another list of signatures, a
short one for a test, say.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NUMBA = "numba>=0.60"
INSIDE = "gpuresample/engines/cpu/compiled"


class CompiledKernels(BuildHookInterface):  # type: ignore[type-arg]
    """Compiles kernels, and puts them into a wheel."""

    scratch: str | None = None

    def dependencies(self) -> list[str]:
        """What compiling needs."""
        return [] if self.asked == "none" or self.why_not() else [NUMBA]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Before a wheel is written. A checkout that is installed to be edited compiles when kernels are called."""
        if version == "editable" or self.asked == "none":
            return
        reason = self.why_not()
        if not reason and importlib.util.find_spec("numba") is None:
            reason = "Numba is not installed"
        if not reason:
            self.scratch = tempfile.mkdtemp()
            command = [sys.executable, "-m", "gpuresample.engines.cpu.build", "--to", self.scratch]
            if self.asked != "all":
                command += ["--levels", *(self.asked or "own").split(",")]
            chosen = os.environ.get("GPURESAMPLE_BUILD_LIST")
            if chosen:
                command += ["--list", str(Path(self.root, chosen))]
            done = subprocess.run(command, cwd=self.root, check=False)
            if done.returncode != 0:
                reason = "kernels could not be compiled, see above"
        if reason and self.asked:
            raise RuntimeError(f"GPURESAMPLE_BUILD={self.asked}, but {reason}")
        if reason or self.scratch is None:
            self.app.display_warning(f"no kernels are compiled into this wheel: {reason}")
            return
        for file in sorted(Path(self.scratch).iterdir()):
            build_data["force_include"][str(file)] = f"{INSIDE}/{file.name}"
        system = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        # Any Python of this system: the libraries know nothing of Python but where NumPy's arrays have their fields.
        build_data["pure_python"], build_data["tag"] = False, f"py3-none-{system}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """When the wheel is written."""
        if self.scratch is not None:
            shutil.rmtree(self.scratch, ignore_errors=True)

    @property
    def asked(self) -> str:
        """What the environment says to build; "" for nothing."""
        return os.environ.get("GPURESAMPLE_BUILD", "")

    @staticmethod
    def why_not() -> str:
        """Why nothing can be compiled here; "" if it can."""
        if sys.platform not in ("linux", "darwin"):
            return f"libraries of kernels are not made on {sys.platform}"
        if not any(map(shutil.which, ("cc", "gcc", "clang"))):
            return "there is no compiler driver (cc, gcc or clang), which links them"
        return ""

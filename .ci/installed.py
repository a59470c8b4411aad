"""The installed package, outside its tree: what is in it, and whether a first call is right and loads no compiler.

Run it as `python .ci/installed.py {compiled,pure}`: whether kernels are in the package. Where they are not, the first
call compiles.
"""

import argparse
import pathlib
import sys

import gpuresample as gr


def loaded(*names: str) -> set[str]:
    """Which of some modules are loaded."""
    return set(names) & set(sys.modules)


heavy = loaded("numpy", "numba", "llvmlite", "SimpleITK", "torch", "cupy")
assert not heavy, f"import gpuresample brought {heavy}"

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("kind", choices=("compiled", "pure"))
kind = parser.parse_args().kind

import numpy as np  # noqa: E402
import SimpleITK as sitk  # noqa: E402

where = pathlib.Path(gr.__file__).parent
assert "site-packages" in where.parts, f"{where} is the tree's own"
assert (where / "py.typed").exists()
assert (where / "_kernels" / "common.cuh").exists(), "the wheel lacks the CUDA kernels"
libraries = sorted(p.stem for p in where.glob("engines/cpu/compiled/*") if p.suffix != ".json")
assert (kind == "compiled") == bool(libraries), libraries

volume = np.random.default_rng(0).integers(-1000, 3000, (13, 15, 17)).astype(np.int16)
image = sitk.GetImageFromArray(volume)
image.SetSpacing((0.8, 0.8, 2.5))
made = gr.resample(image, spacing=(1.0, 1.1, 2.0), dtype="float32", device="cpu")
assert (kind == "compiled") != bool(loaded("numba", "llvmlite")), "whether the first call compiled"
right = sitk.Resample(image, made, sitk.Transform(), sitk.sitkBSpline, 0.0, sitk.sitkFloat64)
error = abs(sitk.GetArrayFromImage(made) - sitk.GetArrayFromImage(right)).max() / np.ptp(volume)
assert error < 2e-6, error
kernels = next(f.text for f in gr.doctor().findings if f.name == "kernels")
print(f"gpuresample {gr.__version__}, Python {sys.version.split()[0]}: within {error:.1g} of SimpleITK; {kernels}")

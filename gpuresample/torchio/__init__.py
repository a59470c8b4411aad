"""TorchIO's spatial transforms, computed by gpuresample: the same arguments, draws, grids, labels and history.

    from gpuresample.torchio import RandomAffine, RandomElasticDeformation, Resample
    transform = Resample(1, image_interpolation="bspline")  # wherever TorchIO takes a transform

Every class is a subclass of TorchIO's. TorchIO does everything except the voxels. What gpuresample cannot do, TorchIO
does itself, and one warning for each reason says so.

A class has two names: `Affine` is `GpuAffine`. TorchIO's history finds transforms by class name: so gpuresample replays
what gpuresample did, and TorchIO replays what TorchIO did.
"""

from __future__ import annotations

try:
    import torchio as _torchio  # noqa: F401 - before what builds on it
except ImportError as error:
    raise ImportError('gpuresample.torchio needs TorchIO: pip install "gpuresample[torchio]"') from error

from gpuresample.torchio.resampling import GpuRandomAnisotropy, GpuResample
from gpuresample.torchio.spatial import GpuAffine, GpuElasticDeformation, GpuRandomAffine, GpuRandomElasticDeformation

__all__ = [
    "Affine", "ElasticDeformation", "GpuAffine", "GpuElasticDeformation", "GpuRandomAffine", "GpuRandomAnisotropy",
    "GpuRandomElasticDeformation", "GpuResample", "RandomAffine", "RandomAnisotropy", "RandomElasticDeformation",
    "Resample",
]  # fmt: skip

Affine = GpuAffine
ElasticDeformation = GpuElasticDeformation
RandomAffine = GpuRandomAffine
RandomAnisotropy = GpuRandomAnisotropy
RandomElasticDeformation = GpuRandomElasticDeformation
Resample = GpuResample

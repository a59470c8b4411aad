"""`Resample`: TorchIO does everything except the voxels."""

from __future__ import annotations

from typing import Any

import numpy as np
import SimpleITK as sitk
import torchio

from gpuresample.installation import borrowed
from gpuresample.ops.gaussian import gaussian
from gpuresample.ops.resample import resample
from gpuresample.planning.grid import Grid


class GpuResample(torchio.Resample):
    """Takes and gives what `torchio.Resample` does; gpuresample computes only the voxels.

    The target may have all of TorchIO's forms: spacing, path, image, name, shape and affine. `image_interpolation`,
    `label_interpolation`, `pre_affine_name`, `scalars_only`, `antialias`, `include`, `exclude`, `keep` and `p` mean
    what they mean in TorchIO. TorchIO uses SimpleITK, which truncates integers, so integers are truncated here too. If
    the last bit of a sum decides between two integers, as it does between the voxels of a halved grid, the result may
    be the other one.

    Parameters
    ----------
    *args, **kwargs
        Those of `torchio.Resample`.

    Notes
    -----
    `Resample` is the same class. It has a name of its own because TorchIO's history finds transforms by class name. So
    gpuresample replays what gpuresample did, and TorchIO replays what TorchIO did.
    """

    def _get_resampler(self, interpolator: int, floating: sitk.Image, subject: Any, target: Any) -> Any:
        return _Resampler(super()._get_resampler(interpolator, floating, subject, target))

    @staticmethod
    def _smooth(image: sitk.Image, sigmas: np.ndarray[Any, Any], epsilon: float = 1e-9) -> sitk.Image:
        """Cardoso's blur, on axes that shrink (the others have no sigma), in floats as SimpleITK's filter."""
        with np.errstate(all="warn", under="ignore"):
            return gaussian(image, np.nan_to_num(sigmas).tolist(), kind="recursive", dtype=np.float32)


class _Resampler:
    """What TorchIO asks of a SimpleITK resampler that it has set up."""

    def __init__(self, resampler: sitk.ResampleImageFilter) -> None:
        self._set_up = resampler

    def GetOutputSpacing(self) -> tuple[float, ...]:  # noqa: N802 - SimpleITK's name
        """Spacing of the output, x, y, z."""
        return tuple(self._set_up.GetOutputSpacing())

    def Execute(self, image: sitk.Image) -> sitk.Image:  # noqa: N802 - SimpleITK's name
        """The image on the grid that was set up."""
        s = self._set_up
        if 0 in (*s.GetSize(), *image.GetSize()):
            # TorchIO leaves no voxel of an axis that is shorter than a new one: SimpleITK makes and takes such images.
            return s.Execute(image)
        grid = Grid(s.GetSize(), s.GetOutputSpacing(), s.GetOutputOrigin(), s.GetOutputDirection())
        # TorchIO lets NumPy raise on any rounding to zero or infinity; planning has its own use for infinities.
        with np.errstate(all="warn", under="ignore"):
            return resample(
                image,
                like=grid,
                interpolation=s.GetInterpolator(),
                default_value=s.GetDefaultPixelValue(),
                rounding="truncate",
            )


class GpuRandomAnisotropy(torchio.RandomAnisotropy):
    """Takes and gives what `torchio.RandomAnisotropy` does, with the same draws; it calls `GpuResample` twice."""

    apply_transform = borrowed(torchio.RandomAnisotropy.apply_transform, Resample=GpuResample)

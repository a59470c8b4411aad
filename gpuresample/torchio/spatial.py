"""`Affine` and `ElasticDeformation`: TorchIO draws, makes the transform and the fill; one gather for all channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
import torchio
from torchio.data.io import get_sitk_metadata_from_ras_affine, nib_to_sitk

from gpuresample.containers import Volume
from gpuresample.installation import borrowed, warn_once
from gpuresample.ops.resample import resample
from gpuresample.ops.transforms import BSpline
from gpuresample.planning.grid import Grid

# How far the axes of ITK's lattices may be from an image's own, as unit vectors: some roundings in float32.
ROUNDED = 1e-6

# What is asked of a transform for an image: SimpleITK's transform, the interpolation, and the fill of every channel.
Recipe = tuple[Any, str, list[float]]


def _moved(transform: Any, images: list[Any], recipe: Callable[[Any], Recipe]) -> None:
    """Move images in place; those on one grid have their voxels located once.

    Raises
    ------
    ValueError, TypeError
        For voxels and interpolations that are not done here. Nothing is moved then.
    """
    grids: dict[Any, list[Any]] = {}
    for image in images:
        grids.setdefault((tuple(image.spatial_shape), image.affine.tobytes()), []).append(image)
    results = []
    for group in grids.values():
        volumes, interpolations, fills, outs = [], [], [], []
        path = None
        for image in group:
            moves, name, fill = recipe(image)
            path = moves if path is None else path
            interpolation = transform.get_sitk_interpolator(name)
            out = torch.empty(image.data.shape, dtype=torch.float32)
            for channel, target, value in zip(image.data, out, fill, strict=True):
                volumes.append(_volume(channel, image.affine))
                outs.append(_volume(target, image.affine))
                interpolations.append(interpolation)
                fills.append(float(value))
            results.append((image, out))
        # TorchIO lets NumPy raise on any rounding to zero or infinity; planning has its own use for infinities.
        with np.errstate(all="warn", under="ignore"):
            resample(
                volumes, transform=path, interpolation=interpolations, default_value=fills, dtype=np.float32, out=outs
            )
    for image, out in results:
        image.set_data(out)


def _volume(tensor: torch.Tensor, affine: Any) -> Volume:
    """A channel (x, y, z) where it lies in memory: its last axis comes first, in its geometry as well."""
    origin, spacing, direction = get_sitk_metadata_from_ras_affine(affine)
    turned = np.reshape(direction, (3, 3))[:, ::-1]
    return Volume(tensor.numpy(), spacing[::-1], origin, tuple(turned.ravel().tolist()))


def _warn(reason: str) -> None:
    warn_once(f"{reason}: TorchIO's own transform does it")


def _along(spline: sitk.BSplineTransform, direction: Any) -> BSpline:
    """A spline whose lattice has an image's own axes, where ITK has rounded them to float32.

    That moves no point by more than 1e-6 of a displacement, and lets tables expand the lattice.
    """
    size, origin, spacing, turn = np.split(np.array(spline.GetFixedParameters()), [3, 6, 9])
    ours, theirs = np.reshape(direction, (3, 3)), turn.reshape(3, 3)
    same = ours.T @ theirs
    axis = np.abs(same).argmax(axis=0)
    snapped = ours[:, axis] * np.sign(same[axis, range(3)])
    if np.abs(snapped - theirs).max() < ROUNDED:
        theirs = snapped
    points = size.astype(int)
    grid = Grid(tuple(points.tolist()), tuple(spacing), tuple(origin), tuple(theirs.ravel().tolist()))
    coefficients = np.array(spline.GetParameters()).reshape(3, *points[::-1])
    return BSpline(np.moveaxis(coefficients, 0, -1), like=grid, order=spline.GetOrder())


class GpuAffine(torchio.Affine):
    """Takes and gives what `torchio.Affine` does; gpuresample computes only the voxels.

    All of TorchIO's arguments mean what they mean there, `default_pad_value` and `center` among them.

    Parameters
    ----------
    *args, **kwargs
        Those of `torchio.Affine`.
    """

    def apply_transform(self, subject: Any) -> Any:
        """As TorchIO's."""
        if self.check_shape:
            subject.check_consistent_spatial_shape()

        def recipe(image: Any) -> Recipe:
            n = len(image.data)
            if image["type"] != torchio.INTENSITY:
                return self.get_affine_transform(image), self.label_interpolation, [self.default_pad_label] * n
            return self.get_affine_transform(image), self.image_interpolation, [self._fill(image, k) for k in range(n)]

        try:
            _moved(self, self.get_images(subject), recipe)
        except (TypeError, ValueError) as reason:
            _warn(str(reason))
            return super().apply_transform(subject)
        return subject

    def _fill(self, image: Any, channel: int) -> float:
        tensor = image.data[channel]
        borders = self.default_pad_value in ("mean", "otsu")
        picture = nib_to_sitk(tensor[np.newaxis], image.affine, force_3d=True) if borders else None
        return float(self.get_default_pad_value(tensor, picture))


class GpuElasticDeformation(torchio.ElasticDeformation):
    """Takes and gives what `torchio.ElasticDeformation` does; gpuresample computes only the voxels.

    Parameters
    ----------
    *args, **kwargs
        Those of `torchio.ElasticDeformation`.
    """

    def apply_transform(self, subject: Any) -> Any:
        """As TorchIO's."""
        if not any(self.max_displacement):
            return subject
        subject.check_consistent_spatial_shape()

        def recipe(image: Any) -> Recipe:
            # A picture of the image's geometry alone.
            picture = sitk.Image([int(n) for n in image.spatial_shape], sitk.sitkUInt8)
            origin, spacing, direction = get_sitk_metadata_from_ras_affine(image.affine)
            picture.SetOrigin(origin)
            picture.SetSpacing(spacing)
            picture.SetDirection(direction)
            spline = self.get_bspline_transform(picture)
            self.parse_free_form_transform(spline, self.max_displacement)
            is_scalar = isinstance(image, torchio.ScalarImage)
            name = self.image_interpolation if is_scalar else self.label_interpolation
            return _along(spline, direction), name, [channel.min().item() for channel in image.data]

        try:
            _moved(self, self.get_images(subject), recipe)
        except (TypeError, ValueError) as reason:
            _warn(str(reason))
            return super().apply_transform(subject)
        return subject


def _on_a_copy(cls: Any) -> Callable[..., Any]:
    """What makes a transform for a caller that has copied the subject: it is not copied again.

    The history has the arguments that were asked for.
    """

    def make(**keywords: Any) -> Any:
        made = cls(**keywords | {"copy": False})
        asked = made._get_reproducing_arguments() | {"copy": keywords["copy"]}
        made._get_reproducing_arguments = lambda: asked
        return made

    return make


class GpuRandomAffine(torchio.RandomAffine):
    """Takes and gives what `torchio.RandomAffine` does, with the same draws; see `GpuAffine`."""

    apply_transform = borrowed(torchio.RandomAffine.apply_transform, Affine=_on_a_copy(GpuAffine))


class GpuRandomElasticDeformation(torchio.RandomElasticDeformation):
    """Takes and gives what `torchio.RandomElasticDeformation` does, with its draws; see `GpuElasticDeformation`."""

    apply_transform = borrowed(
        torchio.RandomElasticDeformation.apply_transform, ElasticDeformation=_on_a_copy(GpuElasticDeformation)
    )

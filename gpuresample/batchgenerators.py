"""batchgeneratorsv2's `SpatialTransform`, computed by gpuresample: the same arguments, draws, modes and label rule.

    from gpuresample.batchgenerators import SpatialTransform  # wherever batchgeneratorsv2's stands

It is a subclass of the library's. No grid of coordinates is made: image, regression target and labels share one
evaluation of where their voxels lie. The noise of an elastic deformation is blurred by the few waves that its Gaussian
leaves, not by a Fourier transform of all. Labels go through one gather and an arg-max of a voxel's neighbours, without
a volume for each label. What gpuresample cannot do the library does itself, and one warning for each reason says so.
`gpuresample.nnunet.install(augmentation=True)` puts it into nnU-Net's trainers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.random import uniform

try:
    import torch
    from batchgeneratorsv2.helpers.scalar_type import sample_scalar
    from batchgeneratorsv2.transforms.spatial import spatial as _library
except ImportError as error:
    raise ImportError(
        'gpuresample.batchgenerators needs batchgeneratorsv2: pip install "gpuresample[nnunet]"'
    ) from error

from gpuresample import warps
from gpuresample.installation import warn_once
from gpuresample.planning.works import Scores

__all__ = ["SpatialTransform"]

Floats = npt.NDArray[np.float64]

# Waves that a Gaussian leaves less of than this share do not show in float32, after the rest is scaled up.
LEAST_SHARE = 1e-10
# How paddings go on beyond the border, where they have no value.
GO_ON = {"border": "nearest", "reflection": "reflect"}
TIES = {"lowest": 0, "nearest": 1, "highest": 2}

# The library draws from NumPy's global stream.
_uniform = uniform


@dataclass(frozen=True, eq=False)
class Warp:
    """Where a patch's voxels lie, in place of the library's grid.

    Voxel i of the patch is at `matrix @ (i + field[i], 1)` on the image, in voxels and axis order.

    Attributes
    ----------
    matrix : ndarray, float64, shape (d, d + 1)
    field : Tensor, float32, shape (d, *size), or None
    size : tuple of int
        Of the patch.
    """

    matrix: Floats
    field: torch.Tensor | None
    size: tuple[int, ...]

    def stays_inside(self, shape: tuple[int, ...]) -> bool:
        """Whether no voxel lies beyond the centres of an image's border voxels, by a bound; a rounding counts."""
        last = np.array(self.size, np.float64) - 1
        turn, start = self.matrix[:, :-1], self.matrix[:, -1]
        far = np.full(len(turn), 1e-3)
        if self.field is not None:
            far += np.abs(turn).sum(1) * max(abs(v.item()) for v in torch.aminmax(self.field))
        low = start + np.minimum(turn * last, 0.0).sum(1) - far
        high = start + np.maximum(turn * last, 0.0).sum(1) + far
        return bool((low >= 0).all() and (high <= np.array(shape) - 1).all())


class SpatialTransform(_library.SpatialTransform):
    """Takes and gives what batchgeneratorsv2's `SpatialTransform` does; gpuresample computes noise and voxels.

    Parameters
    ----------
    *args, **kwargs
        Those of `batchgeneratorsv2.transforms.spatial.spatial.SpatialTransform`.
    """

    def get_parameters(self, **data_dict: Any) -> dict[str, Any]:
        """Draw what the library draws, in its order; "grid" is a `Warp`, or None where nothing is to be moved."""
        image = data_dict["image"]
        reason = self._reason(data_dict)
        if reason:
            warn_once(f"{reason}: batchgeneratorsv2's own transform does it")
            given: dict[str, Any] = super().get_parameters(**data_dict)
            return given
        d, shape = image.ndim - 1, tuple(image.shape[1:])
        turns, scales, deforms = (_uniform() < p for p in (self.p_rotation, self.p_scaling, self.p_elastic_deform))
        angles: list[float] = [0] * d
        if turns:
            angles = [sample_scalar(self.rotation, image=image, dim=k) for k in range(d)]
            if self.p_rot_per_axis < 1:
                angles = [0 if _uniform() > self.p_rot_per_axis else angle for angle in angles]
        sizes: list[float] = [1] * d
        if scales:
            sizes = self._each(self.p_synchronize_scaling_across_axes, self.scaling, d, image=image)
        affine = None
        if scales or turns:
            make = _library.create_affine_matrix_3d if d == 3 else _library.create_affine_matrix_2d
            affine = make(angles if d == 3 else angles[-1], sizes)
        field = self._deformation(image, d) if deforms else None
        middle = [self._middle(k, n) for k, n in enumerate(shape)]
        warp = None
        if affine is not None or field is not None:
            warp = self._warp(affine, field, middle, shape)
        return {"center_location_in_pixels": middle, "grid": warp, "affine": affine, "elastic_offsets": field}

    def _reason(self, data: dict[str, Any]) -> str:
        """Why the library has to do it; empty if it has not."""
        images = [data[k] for k in ("image", "regression_target", "segmentation") if data.get(k) is not None]
        if data["image"].ndim not in (3, 4) or any(i.ndim != data["image"].ndim for i in images):
            return "images of other than two or three axes in space"
        if any(i.shape[1:] != images[0].shape[1:] for i in images):
            return "images of several sizes"
        if any(i.device.type != "cpu" for i in images):
            return "tensors on a GPU"
        if any(i.requires_grad for i in images):
            return "gradients"
        if self.mode_image != "bilinear" or self.mode_seg not in ("bilinear", "nearest"):
            return "a mode other than bilinear for the image, or bilinear or nearest for the labels"
        voxels = [data[k].dtype for k in ("image", "regression_target") if data.get(k) is not None]
        if not all(dtype in (torch.float32, torch.float64) for dtype in voxels):
            return "an image whose voxels are not float32 or float64"
        return ""

    def _each(self, together: float, value: Any, d: int, **given: Any) -> list[float]:
        """A draw for each axis, or one for all."""
        if _uniform() <= together:
            return [sample_scalar(value, dim=None, **given)] * d
        return [sample_scalar(value, dim=k, **given) for k in range(d)]

    def _middle(self, axis: int, n: int) -> float:
        """Where the patch's centre goes along an axis, counted from the first voxel's outer face."""
        if not self.random_crop:
            return n / 2
        low = self.patch_center_dist_from_border[axis]
        return n / 2 if n - low < low else float(_uniform(low, n - low))

    def _deformation(self, image: torch.Tensor, d: int) -> torch.Tensor:
        """The displacement (d, *patch), in voxels: noise, blurred as on a torus, each component up to its magnitude."""
        patch = tuple(int(n) for n in self.patch_size)
        coarse = self._each(
            self.p_synchronize_def_scale_across_axes, self.elastic_deform_scale, d, image=image,
            patch_size=self.patch_size,
        )  # fmt: skip
        most = [
            sample_scalar(
                self.elastic_deform_magnitude, image=image, patch_size=self.patch_size, dim=k,
                deformation_scale=coarse[k],
            )
            for k in range(d)
        ]  # fmt: skip
        noise = torch.normal(mean=0, std=1, size=(d, *patch))
        for k in range(d):
            noise[k] = blurred(noise[k], coarse[k] * patch[k])
            low, high = torch.aminmax(noise[k])
            noise[k] *= max(most[k], 1e-8) / max(-low.item(), high.item())
        return noise

    def _warp(
        self, affine: Floats | None, field: torch.Tensor | None, middle: list[float], shape: tuple[int, ...]
    ) -> Warp:
        d, size = len(shape), tuple(int(n) for n in self.patch_size)
        n = np.array(shape, np.float64)
        # The library multiplies in float32.
        turn = np.eye(d) if affine is None else affine.astype(np.float32).astype(np.float64)
        shift = np.array(middle) - n / 2
        if self.center_deformation and field is not None:
            shift = shift - turn @ field.mean(dim=list(range(1, d + 1))).double().numpy()
        # From the middle of the image, in voxels; with aligned corners torch's -1 and 1 are centres of voxels.
        stretch = (n - 1) / n if self.align_corners else np.ones(d)
        matrix = np.empty((d, d + 1))
        matrix[:, :d] = stretch[:, None] * turn
        matrix[:, d] = stretch * (shift - turn @ ((np.array(size) - 1) / 2)) + (n - 1) / 2
        return Warp(matrix, field, size)

    def apply(self, data_dict: dict[str, Any], **params: Any) -> dict[str, Any]:
        """As the library's; everything that is there is moved together."""
        warp = params["grid"]
        if not isinstance(warp, Warp):
            given: dict[str, Any] = super().apply(data_dict, **params)
            return given
        there = [k for k in ("image", "regression_target", "segmentation") if data_dict.get(k) is not None]
        moved = self._moved(warp, [(data_dict[k], k == "segmentation") for k in there])
        data_dict.update(zip(there, moved, strict=True))
        for key, step in (("keypoints", self._apply_to_keypoints), ("bbox", self._apply_to_bbox)):
            if data_dict.get(key) is not None:
                data_dict[key] = step(data_dict[key], **params)
        return data_dict

    def _apply_to_image(self, img: torch.Tensor, **params: Any) -> torch.Tensor:
        if not isinstance(params["grid"], Warp):
            given: torch.Tensor = super()._apply_to_image(img, **params)
            return given
        return self._moved(params["grid"], [(img, False)])[0]

    def _apply_to_segmentation(self, segmentation: torch.Tensor, **params: Any) -> torch.Tensor:
        if not isinstance(params["grid"], Warp):
            given: torch.Tensor = super()._apply_to_segmentation(segmentation, **params)
            return given
        return self._moved(params["grid"], [(segmentation, True)])[0]

    def _moved(self, warp: Warp, images: list[tuple[torch.Tensor, bool]]) -> list[torch.Tensor]:
        """Images and labels (c, *n), the latter marked, on the patch."""
        shape = tuple(images[0][0].shape[1:])
        inside = warp.stays_inside(shape)
        pulls: list[warps.Pull] = []
        made = []
        for image, is_labels in images:
            out = torch.empty((len(image), *warp.size), dtype=image.dtype)
            made.append(out)
            pulls += self._labels(warp, image, out, inside) if is_labels else [self._image(warp, image, out, inside)]
        warps.pull_all(pulls)
        return made

    def _image(self, warp: Warp, image: torch.Tensor, out: torch.Tensor, inside: bool) -> warps.Pull:
        value = float(self.padding_value_image) if self.padding_mode_image == "constant" else 0.0
        return _pull(warp, image, out, "linear", self.padding_mode_image, value, inside)

    def _labels(self, warp: Warp, labels: torch.Tensor, out: torch.Tensor, inside: bool) -> list[warps.Pull]:
        """Pulls of every channel: whether it has two labels or more decides how close scores count as tied."""
        padding = self.border_mode_seg
        value = self.padding_value_seg if padding == "constant" else 0
        if self.mode_seg == "nearest":
            return [_pull(warp, labels, out, "nearest", padding, value, inside)]
        pulls = []
        for channel, target in zip(labels, out, strict=True):
            low, high = (v.item() for v in torch.aminmax(channel))
            pair = bool(((channel == low) | (channel == high)).all())
            if not inside and padding not in GO_ON:
                pair = pair and (value in (low, high) or low == high)
                low, high = min(low, value), max(high, value)
            scores = Scores(pair, high, TIES[self.seg_tiebreak], 0)
            pulls.append(_pull(warp, channel[None], target[None], "label_linear", padding, value, inside, scores))
        return pulls


def _pull(
    warp: Warp,
    image: torch.Tensor,
    out: torch.Tensor,
    name: str,
    padding: str,
    value: float,
    inside: bool,
    scores: Scores | None = None,
) -> warps.Pull:
    """A gather of an image (c, *n) along a warp, whatever its number of axes."""
    matrix, field, d = warp.matrix, warp.field, len(warp.size)
    rim = 0 if inside or padding in GO_ON else 1
    if rim:
        # With a rim of the value, the border voxel that is repeated beyond it is the value.
        image = torch.nn.functional.pad(image, (1,) * (2 * d), value=value)
        matrix = matrix.copy()
        matrix[:, d] += 1.0
    if d == 2:
        # A third axis in front, along which nothing moves.
        image, out = image.unsqueeze(1), out.unsqueeze(1)
        field = None if field is None else torch.nn.functional.pad(field.unsqueeze(1), (0,) * 6 + (1, 0))
        still = np.eye(3, 4)
        still[1:, 1:] = matrix
        matrix = still
    how = warps.recipe(name, GO_ON.get(padding, "nearest"))
    if scores is not None:
        scores = Scores(scores.pair, scores.upper, scores.tie, rim)
    return warps.Pull(image, out, matrix, field, how, scores)


def blurred(noise: torch.Tensor, sigma: float) -> torch.Tensor:
    """A Gaussian of `sigma` voxels along every axis of an array that is closed to a torus, as SciPy's in Fourier space.

    Along an axis of n voxels it leaves exp(-2 (pi sigma k / n)^2) of the wave that goes around k times: of most waves
    nothing. So the array is expressed in those few that stay, axis by axis, and the array is made of them again.
    """
    d, sizes = noise.ndim, noise.shape
    waves, shares = zip(*(_waves(n, sigma) for n in sizes), strict=True)
    kept = noise
    for axis in reversed(range(d)):
        kept = _along(kept, (waves[axis] * shares[axis]).T, axis)
    for axis in range(d):
        kept = _along(kept, waves[axis], axis)
    return kept


def _along(array: torch.Tensor, matrix: torch.Tensor, axis: int) -> torch.Tensor:
    """A matrix times an array, along an axis."""
    if axis == array.ndim - 1:
        return array @ matrix.T
    shape = array.shape
    made = matrix @ array.reshape(math.prod(shape[:axis]), shape[axis], -1)
    return made.reshape(*shape[:axis], len(matrix), *shape[axis + 1 :])


def _waves(n: int, sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Orthonormal waves around n voxels of which a Gaussian leaves something, as columns, and what it leaves."""
    k = np.arange(n // 2 + 1)
    share = np.exp(-2.0 * (math.pi * sigma * k / n) ** 2)
    k = k[share >= LEAST_SHARE]
    share = share[: len(k)]
    angle = 2.0 * math.pi / n * np.outer(np.arange(n), k)
    even, odd = np.cos(angle), np.sin(angle)
    # The constant and, of an even number of voxels, the one that alternates have no second wave.
    twice = (k > 0) & (2 * k < n)
    columns = np.concatenate([even * np.where(twice, math.sqrt(2.0), 1.0), odd[:, twice] * math.sqrt(2.0)], axis=1)
    return (
        torch.from_numpy((columns / math.sqrt(n)).astype(np.float32)),
        torch.from_numpy(np.concatenate([share, share[twice]]).astype(np.float32)),
    )

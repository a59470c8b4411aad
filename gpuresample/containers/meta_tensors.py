"""MONAI's MetaTensors as containers: tensors (channel, x, y, z) with an affine, here grids in LPS as SimpleITK's."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuresample.containers.arrays import ArrayContainer
from gpuresample.containers.kinds import hold
from gpuresample.containers.spatial_images import FLIP, grid_of_affine
from gpuresample.containers.voxels import check_voxels
from gpuresample.planning.grid import Grid


def plain(image: Any, name: str = "image") -> Any:
    """A MetaTensor's tensor, without its metadata.

    Raises
    ------
    ValueError
        If operations are pending: its affine is not yet that of its voxels.
    """
    if image.pending_operations:
        raise ValueError(f"{name} has pending lazy operations, got {len(image.pending_operations)}; apply them first")
    return image.as_tensor()


def affine_of(image: Any, name: str = "image") -> Any:
    """The affine of one image (channel, x, y(, z)), of that many axes and one; to LPS.

    Raises
    ------
    ValueError
        For a batch, and where it is not known which axis is the channels.
    """
    affine = np.asarray(image.affine.detach().cpu(), np.float64)
    r = image.ndim - 1
    if affine.ndim != 2 or r not in (2, 3):
        raise ValueError(
            f"{name} must be one MetaTensor (channel, x, y, z), got shape {tuple(image.shape)}; take the "
            "images of a batch one by one, or pass its as_tensor()"
        )
    if len(affine) != r + 1:
        raise ValueError(
            f"{name} must have an affine for its axes past the channels, got shape {tuple(image.shape)} and "
            f"an affine of shape {affine.shape}; add an axis of channels (EnsureChannelFirst), or pass its as_tensor()"
        )
    return _turn(image, r) @ affine


def _turn(image: Any, d: int) -> Any:
    """From the space of a MetaTensor's affine to LPS, and back: RAS, unless its metadata say LPS."""
    space = image.meta.get("space", "RAS")
    axes = [*range(d), 3]
    return np.eye(d + 1) if str(getattr(space, "value", space)) == "LPS" else FLIP[np.ix_(axes, axes)]


def grid_of_meta(image: Any, name: str = "image") -> Grid:
    """The grid of a MetaTensor, in LPS.

    Raises
    ------
    ValueError
        As `affine_of`, and for affines without an inverse or with shear.
    """
    return grid_of_affine(affine_of(image, name), tuple(image.shape[1:]), name)


class MetaTensorContainer(ArrayContainer):
    """A MetaTensor (channel, x, y(, z)); its tuples are x, y, z.

    Results have no trace of what was applied: MONAI cannot invert what it has not done.
    """

    kind = "metatensor"

    def __init__(self, image: Any) -> None:
        self.image = image
        self.grid = grid_of_meta(image)
        held = hold(plain(image))
        assert held is not None
        self.held = held
        self.shape = (held.voxels.shape[0], *held.voxels.shape[:0:-1])
        check_voxels(held.voxels.dtype, self.shape)
        self.dtype = np.dtype(held.voxels.dtype).newbyteorder("=")

    @property
    def array(self) -> Any:
        """The voxels, (channel, z, y, x)."""
        return _turned(self.held.voxels)  # type: ignore[union-attr]

    def order(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """x, y, z already."""
        return values

    def new(self, grid: Grid, dtype: np.dtype[Any]) -> tuple[Any, Any]:
        """A MetaTensor on `grid`, with the image's other metadata."""
        return self._made(grid, dtype, self.shape[0])

    def blank(self, grid: Grid, dtype: np.dtype[Any], channels: int = 0) -> tuple[Any, Any]:
        """A MetaTensor on a grid with so many channels, and its voxels; without an axis of channels for none."""
        made, voxels = self._made(grid, dtype, channels or 1)
        return made, voxels if channels else voxels[0]

    def adopt(self, out: Any, grid: Grid, dtype: np.dtype[Any]) -> tuple[Any, Any]:
        """Write into the MetaTensor given, and give it the output's affine."""
        assert self.held is not None
        if not isinstance(out, type(self.image)):
            raise TypeError(f"out must be a MetaTensor like the input, got {type(out).__name__}")
        voxels = self.held.adopt(plain(out, "out"), (self.shape[0], *grid.size), dtype)
        out.affine = self._affine(grid)
        return out, _turned(voxels)

    def _made(self, grid: Grid, dtype: np.dtype[Any], channels: int) -> tuple[Any, Any]:
        assert self.held is not None
        tensor, voxels = self.held.new((channels, *grid.size), dtype)
        meta = {key: value for key, value in self.image.meta.items() if key != "affine"}
        return type(self.image)(tensor, affine=self._affine(grid), meta=meta), _turned(voxels)

    def _affine(self, grid: Grid) -> Any:
        """The affine of a grid as the image has its own; the image's, to the bit, for its own grid."""
        if grid == self.grid:
            return self.image.affine.clone()
        d = grid.dimension
        affine = np.eye(d + 1)
        affine[:d, :d], affine[:d, d] = grid.index_to_point, grid.origin
        return self.image.affine.new_tensor(_turn(self.image, d) @ affine)


def _turned(voxels: Any) -> Any:
    """Space the other way round: x, y, z as z, y, x."""
    return voxels.transpose(0, *range(voxels.ndim - 1, 0, -1))

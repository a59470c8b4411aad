"""What MONAI's transforms have in common here: the way back to MONAI, its traces, plans and gathers of its images."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from monai.data.meta_obj import get_track_meta
from monai.data.meta_tensor import MetaTensor
from monai.utils import TraceKeys, convert_to_tensor
from monai.utils.enums import LazyAttr

from gpuresample import warps
from gpuresample.engines.cuda import engine as cuda
from gpuresample.installation import warn_once
from gpuresample.planning import planner
from gpuresample.planning.filters import FloatArray
from gpuresample.planning.taps import TapTable
from gpuresample.planning.works import Separable
from gpuresample.plans import Plan, of_work, precision_of
from gpuresample.tensors import VOXELS, apply_plan, numpy_dtype
from gpuresample.warps import Pull

# --- the way back ----------------------------------------------------------------------------------------------------


class CannotError(Exception):
    """What cannot be done here, in words."""


def warn(reason: str) -> None:
    """Say, once for each reason, that MONAI does it itself."""
    warn_once(f"{reason}: MONAI's own transform does it")


def is_lazy(transform: Any, lazy: bool | None) -> bool:
    """Whether a call is to be done later, by MONAI; then a warning says so."""
    if transform.lazy if lazy is None else lazy:
        warn("lazy evaluation")
        return True
    return False


class Ours:
    """A transform of MONAI's, some parts of which are ours.

    Attributes
    ----------
    parts : dict
        By attribute, the class that its part is to be of; MONAI makes the part first.
    """

    parts: ClassVar[dict[str, type]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.take_over()

    def take_over(self) -> None:
        """Put ours in the place of MONAI's parts."""
        for name, ours in self.parts.items():
            setattr(self, name, _taken_over(ours, getattr(self, name)))


def _taken_over(ours: Any, monais: Any) -> Any:
    """A transform that MONAI has made, as one of ours: with its settings and its random state."""
    made = ours.__new__(ours)
    made.__dict__.update(monais.__dict__)
    if isinstance(made, Ours):
        made.take_over()
    return made


# --- traces ----------------------------------------------------------------------------------------------------------


def planned(transform: Any, monais: Any, img: Any, *arguments: Any, **keywords: Any) -> tuple[MetaTensor, Any]:
    """The image and the step that MONAI would do to it: lazily MONAI works it out, and touches no voxel.

    Raises
    ------
    CannotError
        For what cannot be planned by MONAI and done here.
    """
    if not get_track_meta() or not transform.tracing:
        raise CannotError("metadata is not tracked")
    if isinstance(img, MetaTensor) and img.has_pending_operations:
        raise CannotError("the image has pending lazy operations")
    image = monais(img, *arguments, lazy=True, **keywords)
    step = image.pending_operations[-1]
    image.clear_pending_operations()
    return image, step


def tracked(transform: Any, image: MetaTensor, voxels: torch.Tensor, step: Any, affine: Any) -> torch.Tensor:
    """The voxels with MONAI's metadata, and the step among the applied operations."""
    meta = transform.track_transform_meta(
        image,
        sp_size=step[LazyAttr.SHAPE],
        affine=affine,
        extra_info=step[TraceKeys.EXTRA_INFO],
        orig_size=step[TraceKeys.ORIG_SIZE],
        transform_info=transform.get_transform_info(),
        lazy=False,
    )
    out = convert_to_tensor(voxels, dtype=torch.float32, track_meta=True)
    return out.copy_meta_from(meta)


def untraced(data: Any) -> torch.Tensor:
    """An inverse leaves no trace of itself."""
    if isinstance(data, MetaTensor) and data.applied_operations:
        data.applied_operations.pop()
    return data


# --- tables ----------------------------------------------------------------------------------------------------------


def voxel_type(image: torch.Tensor) -> np.dtype[Any]:
    """The type that an image's voxels enter sums as."""
    return numpy_dtype(torch.float32 if image.dtype == torch.bool else image.dtype)


def precision(image: torch.Tensor) -> str:
    """What an image's sums are made in."""
    return precision_of(voxel_type(image), np.dtype(np.float32))


def check_voxels(image: torch.Tensor, *computed: torch.dtype) -> None:
    """Refuse images and types of computation that are not done here, and devices without an engine."""
    wide = all(dtype in (torch.float32, torch.float64) for dtype in computed)
    if image.dtype not in VOXELS or not wide:
        how = f", computed in {computed[0]}" if computed else ""
        raise CannotError(f"voxels of {image.dtype}{how}")
    if image.is_cuda:
        try:
            cuda.engine()
        except RuntimeError as error:
            raise CannotError(f"an image on {image.device}: {error}") from None
    elif image.device.type != "cpu":
        raise CannotError(f"an image on {image.device}")


def run(made: Plan, image: torch.Tensor) -> torch.Tensor:
    """Tables on an image (c, ...) of two or three spatial axes; float32 comes out, as of all of these transforms."""
    flat = image.ndim == 3
    image = image.float() if image.dtype == torch.bool else image
    image = image.unsqueeze(-3) if flat else image
    out = apply_plan(made, image, torch.float32)
    return out.squeeze(-3) if flat else out


def run_tables(tables: list[TapTable], image: torch.Tensor) -> torch.Tensor:
    """`run` of a table for each axis."""
    return run(of_work(planner.along_axes(tables, precision(image)), voxel_type(image), np.float32), image)


def turned(tables: Sequence[TapTable], out_axis: Sequence[int], precision: str) -> Separable:
    """A table for each axis of the source; `out_axis`: the axis of the output that each of them becomes."""
    whole = planner.along_axes(list(tables), precision)
    r = len(tables)
    moved = (*range(3 - r), *[k + 3 - r for k in out_axis])
    t = whole.tables
    return Separable(t, whole.order, (moved[0], moved[1], moved[2]), whole.n_dst, whole.start, precision)


# --- gathers ---------------------------------------------------------------------------------------------------------

_waiting = threading.local()


@contextmanager
def together(keys: Sequence[Any]) -> Iterator[None]:
    """A block in which gathers wait for one another: images of one dictionary have their voxels located once.

    Where a key stands twice, MONAI transforms its image twice: then nothing waits, for the second time needs the first
    one's result.
    """
    outer = getattr(_waiting, "pulls", None)
    pulls: list[Pull] = []
    _waiting.pulls = pulls if len(set(keys)) == len(keys) else None
    try:
        yield
    finally:
        _waiting.pulls = outer
    warps.pull_all(pulls)


class OursTogether(Ours):
    """A dictionary's transform: the voxels of all keys are located once."""

    keys: Any

    def __call__(self, data: Any, lazy: bool | None = None) -> Any:
        """As MONAI's."""
        with together(self.keys):
            return super().__call__(data, lazy)  # type: ignore[misc]


def gathered(
    image: torch.Tensor,
    matrix: FloatArray,
    field: torch.Tensor | None,
    size: tuple[int, ...],
    interpolation: str,
    boundary: str,
) -> torch.Tensor:
    """An image (c, ...) at `matrix @ (i + field[i], 1)` for every voxel i of the output; float32.

    Parameters
    ----------
    image : Tensor, shape (c, *n), of two or three spatial axes
    matrix : ndarray, float64, shape (r, r + 1)
        In voxels and axis order.
    field : Tensor, shape (r, *size), or None
    size : tuple of int
    interpolation : str
    boundary : str
        Of `gpuresample.resample`, or "zeros": torch's, which blends towards 0 over a voxel.
    """
    image = image.float() if image.dtype == torch.bool else image
    r = len(size)
    if boundary == "zeros":
        # With a rim of zeros the border voxel that is repeated is 0.
        image = torch.nn.functional.pad(image, (1,) * (2 * r))
        matrix = matrix.copy()
        matrix[:, r] += 1.0
        boundary = "nearest"
    if r == 2:
        image = image.unsqueeze(-3)
        # A third axis in front, along which nothing moves.
        field = None if field is None else torch.nn.functional.pad(field.unsqueeze(1), (0,) * 6 + (1, 0))
        still = np.eye(3, 4)
        still[1:, 1:] = matrix
        matrix, size = still, (1, *size)
    how = warps.recipe(interpolation, boundary)
    if image.requires_grad and torch.is_grad_enabled():
        if interpolation == "nearest":
            raise CannotError("a gradient of copies on a turned grid")
        m = torch.as_tensor(matrix)[None]
        out = warps.pull(image[None], m, None if field is None else field[None], how, list(size), [0] * 3, 0.0)
        out = out[0].float()
    else:
        out = torch.empty((image.shape[0], *size), dtype=torch.float32, device=image.device)
        one = Pull(image.detach(), out, matrix, field, how)
        waiting = getattr(_waiting, "pulls", None)
        if waiting is None:
            warps.pull_all([one])
        else:
            waiting.append(one)
    return out.squeeze(1) if r == 2 else out

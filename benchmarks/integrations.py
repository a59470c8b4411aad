"""How far the integrations are from the libraries that they stand in for: `python -m benchmarks.integrations`.

Needs the environment of `make test-integrations`. Prints the table of docs/integrations.md.
"""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import SimpleITK as sitk

from gpuresample.bench.phantom import phantom

Row = tuple[str, str, str, str]


def volume() -> sitk.Image:
    """A synthetic chest CT with noise, as float32; nothing about it is symmetric."""
    image = sitk.Cast(phantom((96, 88, 60), (3.1, 3.3, 4.7), seed=1), sitk.sitkFloat32)
    image.SetOrigin((-120.3, -98.7, 33.1))
    return image


def segments(image: sitk.Image) -> sitk.Image:
    """Four labels, by grey value."""
    array = sitk.GetArrayFromImage(image)
    labels = sitk.GetImageFromArray(np.digitize(array, [-700, -100, 60]).astype(np.uint8))
    labels.CopyInformation(image)
    return labels


def difference(ours: Any, theirs: Any, reference: Any) -> str:
    """Largest difference, as a share of the image's range."""
    a, b, r = (np.asarray(v, np.float64) for v in (ours, theirs, reference))
    return f"{np.abs(a - b).max() / (r.max() - r.min()):.1e} of the range"


def voxels(ours: Any, theirs: Any) -> str:
    """Share of the voxels that differ."""
    share = float((np.asarray(ours) != np.asarray(theirs)).mean())
    return "equal" if share == 0 else f"{share:.1e} of the voxels"


def torch_rows() -> Iterator[Row]:
    """`torch.nn.functional.interpolate`."""
    import torch

    from gpuresample.torch import resample

    image = torch.from_numpy(sitk.GetArrayFromImage(volume()))[None, None]
    size = (75, 64, 110)
    for align, anchor in ((False, "edge"), (True, "center")):
        for dtype in (torch.float32, torch.float64):
            x = image.to(dtype)
            theirs = torch.nn.functional.interpolate(x, size=size, mode="trilinear", align_corners=align)
            ours = resample(x, size=size, interpolation="linear", anchor=anchor, boundary="nearest")
            call = f"interpolate, trilinear, align_corners={align}, {str(dtype)[6:]}"
            yield "torch", call, f'resample, linear, anchor="{anchor}"', difference(ours, theirs, image)
    theirs = torch.nn.functional.interpolate(image, size=size, mode="nearest-exact")
    yield (
        "torch",
        "interpolate, nearest-exact",
        'nearest, anchor="edge"',
        voxels(resample(image, size=size, interpolation="nearest", anchor="edge"), theirs),
    )


def monai_rows() -> Iterator[Row]:
    """`Spacing`, `Resize`, `GaussianSmooth`."""
    import torch
    from monai import transforms
    from monai.data import MetaTensor

    import gpuresample.monai as ours

    affine = torch.diag(torch.tensor([4.7, 3.3, 3.1, 1.0], dtype=torch.float64))
    image = MetaTensor(torch.from_numpy(sitk.GetArrayFromImage(volume()))[None], affine=affine)

    def row(name: str, *arguments: Any, **keywords: Any) -> Row:
        a, b = (getattr(m, name)(*arguments, **keywords)(image) for m in (ours, transforms))
        assert torch.equal(a.affine, b.affine)
        words = ", ".join(f"{k}={v!r}" for k, v in keywords.items())
        exact = "nearest" in str(keywords.get("mode", ""))
        return (
            "monai",
            f"{name}, {words}" if words else name,
            "the same",
            (voxels(a, b) if exact else difference(a, b, image)),
        )

    pixdim = (3.7, 4.1, 2.3)
    for padding in ("border", "reflection", "zeros"):
        for mode in ("bilinear", "nearest"):
            yield row("Spacing", pixdim, mode=mode, padding_mode=padding)
    for order in range(6):
        yield row("Spacing", pixdim, mode=order, padding_mode="nearest")
    for mode in ("area", "trilinear", "nearest", "nearest-exact"):
        yield row("Resize", (70, 64, 50), mode=mode)
    yield row("Resize", (30, 44, 48), mode="trilinear", anti_aliasing=True)
    for approx in ("erf", "sampled", "scalespace"):
        yield row("GaussianSmooth", 1.5, approx=approx)


def torchio_rows() -> Iterator[Row]:
    """`Resample`."""
    import torchio

    from gpuresample.torchio import Resample

    subject = torchio.Subject(
        image=torchio.ScalarImage.from_sitk(volume()), label=torchio.LabelMap.from_sitk(segments(volume()))
    )
    for interpolation in ("linear", "bspline", "lanczos"):
        a, b = (
            cls((2.9, 3.7, 4.1), image_interpolation=interpolation)(subject) for cls in (Resample, torchio.Resample)
        )
        call = f"Resample, image_interpolation='{interpolation}'"
        yield "torchio", call, "the same", difference(a.image.data, b.image.data, subject.image.data)
    yield "torchio", "Resample, label_interpolation='nearest'", "the same", voxels(a.label.data, b.label.data)
    a, b = (cls((6.1, 7.3, 9.9), antialias=True)(subject) for cls in (Resample, torchio.Resample))
    yield "torchio", "Resample, antialias=True", "the same", difference(a.image.data, b.image.data, subject.image.data)


def nnunet_rows() -> Iterator[Row]:
    """`resample_data_or_seg_to_shape`."""
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

    from gpuresample.nnunet import resample_gpuresample

    data = sitk.GetArrayFromImage(volume())[None]
    label = sitk.GetArrayFromImage(segments(volume()))[None].astype(np.float32)
    for separate in (False, True):
        arguments = ((71, 101, 80), (4.7, 3.3, 3.1), (3.9, 2.9, 3.7))
        for order in (1, 3):
            a, b = (
                f(data, *arguments, False, order, 0, separate)
                for f in (resample_gpuresample, resample_data_or_seg_to_shape)
            )
            call = f"data, order={order}, force_separate_z={separate}"
            yield "nnunetv2", call, "resample_gpuresample", difference(a, b, data)
        a, b = (
            f(label, *arguments, True, 1, 0, separate) for f in (resample_gpuresample, resample_data_or_seg_to_shape)
        )
        yield "nnunetv2", f"seg, order=1, force_separate_z={separate}", "resample_gpuresample", voxels(a, b)


SECTIONS: tuple[Callable[[], Iterator[Row]], ...] = (torch_rows, monai_rows, torchio_rows, nnunet_rows)


def main() -> None:
    """Print the table."""
    print("| library | its call | ours | largest difference |")
    print("| --- | --- | --- | ---: |")
    for section in SECTIONS:
        for library, call, ours, distance in section():
            print(f"| {library} {importlib.metadata.version(library)} | {call} | {ours} | {distance} |")


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main()

"""What the command line's tests share."""

import re

import numpy as np
import SimpleITK as sitk


def volume(pixel=sitk.sitkInt16, size=(24, 20, 12), seed=0):
    """A small volume of noise from 0 to 199."""
    values = np.random.default_rng(seed).integers(0, 200, size[::-1])
    image = sitk.Cast(sitk.GetImageFromArray(values.astype(np.int16)), pixel)
    image.SetSpacing((0.8, 0.8, 1.5)[: len(size)])
    image.SetOrigin((-10.0, 20.0, 30.0)[: len(size)])
    return image


def refused(answer, code, pattern):
    """An error is its exit code and one line."""
    got, out, err = answer
    assert got == code, err
    assert out == ""
    assert re.fullmatch(rf"error: [^\n]*{pattern}[^\n]*\n", err), err

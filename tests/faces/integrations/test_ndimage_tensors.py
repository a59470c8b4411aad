"""`gpuresample.ndimage` on torch's tensors: they come back as tensors, with SciPy's values."""

import numpy as np
import pytest
import scipy.ndimage as theirs
import torch

import gpuresample.ndimage as ours

ARRAY = np.random.default_rng(0).random((9, 11, 13)).astype(np.float32)
PLACES = np.random.default_rng(1).random((3, 50)) * 14 - 2
CALLS = [
    ("zoom", 1.5, {"order": 1}),
    ("shift", (1.5, -0.3, 2), {"order": 3, "mode": "grid-wrap"}),
    ("rotate", 30, {"axes": (2, 1), "order": 3, "mode": "nearest"}),
    ("affine_transform", np.diag([0.9, 1.1, 1.0]) + 0.05, {"order": 1, "cval": 0.5}),
    ("spline_filter", 3, {"output": np.float32}),
    ("gaussian_filter", 1.2, {"mode": "wrap"}),
    ("gaussian_laplace", 1.0, {}),
    ("uniform_filter", 3, {"mode": "constant", "cval": 0.25}),
    ("correlate1d", [1.0, -2.0, 0.5], {"axis": 1}),
]


@pytest.mark.parametrize(("name", "argument", "keywords"), CALLS, ids=[name for name, *_ in CALLS])
def test_tensors_stay_tensors(name, argument, keywords):
    found = getattr(ours, name)(torch.from_numpy(ARRAY), argument, **keywords)
    wanted = getattr(theirs, name)(ARRAY, argument, **keywords)
    assert isinstance(found, torch.Tensor)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=4e-6)


@pytest.mark.parametrize("order", [0, 1, 3])
def test_coordinates_are_tensors_too(order):
    found = ours.map_coordinates(torch.from_numpy(ARRAY), torch.from_numpy(PLACES), order=order, mode="mirror")
    assert isinstance(found, torch.Tensor)
    wanted = theirs.map_coordinates(ARRAY, PLACES, order=order, mode="mirror")
    np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=4e-6)


def test_a_tensor_as_output_is_filled():
    out = torch.zeros(ARRAY.shape)
    answer = ours.gaussian_filter(torch.from_numpy(ARRAY), 1.0, output=out)
    assert answer is out
    np.testing.assert_allclose(out.numpy(), theirs.gaussian_filter(ARRAY, 1.0), rtol=0, atol=4e-6)

"""`gpuresample.torch.sample`: its values are SciPy's and torch's, its gradients true, by volume and by positions."""

import itertools
import pathlib
import re

import numpy as np
import pytest
import scipy.ndimage
import torch

import gpuresample.torch as grt

F64 = torch.float64
BSPLINES = {"linear": 1, "bspline2": 2, "bspline": 3, "bspline5": 5}


def drawn(*shape, seed=0, dtype=F64):
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def positions(*shape, size=(6, 7, 8), seed=1, beyond=2.0):
    """Positions (len(size), ...) on and around a volume of a size, in voxels."""
    at = torch.rand(len(size), *shape, dtype=F64, generator=torch.Generator().manual_seed(seed))
    n = torch.tensor(size, dtype=F64).reshape(-1, *(1,) * len(shape))
    return at * (n - 1 + 2 * beyond) - beyond


# Splines beside "nearest" are not among them: SciPy puts a margin of its own there.
PAIRS = [("linear", "nearest"), *itertools.product(BSPLINES, ("constant", "mirror", "reflect"))]


@pytest.mark.parametrize(("interpolation", "boundary"), PAIRS)
def test_values_are_those_of_map_coordinates(interpolation, boundary):
    size = (26, 27, 28)  # SciPy's prefilter with "reflect" is another one on shorter lines
    volume, keywords = drawn(2, *size), {"interpolation": interpolation, "boundary": boundary, "default_value": 0.25}
    for shape in ((5,), (3, 4), (2, 3, 4), (2, 1, 3, 4), (2049,)):
        at = positions(*shape, size=size)
        found = grt.sample(volume, at, **keywords)
        assert found.shape == (2, *shape)
        for c in range(2):
            expected = scipy.ndimage.map_coordinates(
                volume[c].numpy(), at.numpy(), order=BSPLINES[interpolation], mode=boundary, cval=0.25
            )
            np.testing.assert_allclose(found[c].numpy(), expected, rtol=0, atol=1e-9)
    # Positions of float32 are what they are as float64; the volume's type is the result's.
    narrow = at.float()
    assert torch.equal(grt.sample(volume, narrow, **keywords), grt.sample(volume, narrow.double(), **keywords))
    assert grt.sample(volume.float(), at, **keywords).dtype == torch.float32


@pytest.mark.parametrize("size", [(6, 7, 8), (7, 8)])
def test_values_and_gradients_are_those_of_grid_sample(size):
    dims = len(size)
    volume, grid = drawn(2, 3, *size).requires_grad_(), (1.2 * drawn(2, *(3, 4, 5)[-dims:], dims, seed=1))
    grid = grid.requires_grad_()
    scale = torch.tensor(size, dtype=F64).sub(1) / 2
    at = (grid.flip(-1).add(1) * scale).movedim(-1, 1)
    ours = grt.sample(volume, at, boundary="nearest", spatial_dims=dims)
    theirs = torch.nn.functional.grid_sample(volume, grid, padding_mode="border", align_corners=True)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    weights = drawn(*ours.shape, seed=2)
    found, expected = (torch.autograd.grad((out * weights).sum(), (volume, grid)) for out in (ours, theirs))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


@pytest.mark.parametrize("dims", [3, 2])
@pytest.mark.parametrize(
    ("interpolation", "boundary"), [("linear", None), ("bspline", "mirror"), ("bspline", "constant")]
)
def test_gradients_are_true_by_volume_and_positions_and_so_are_theirs(interpolation, boundary, dims):
    size = (3, 4, 4)[-dims:]
    volume, at = drawn(2, 2, *size).requires_grad_(), positions(5, size=size, beyond=1.0)[None].requires_grad_()

    def function(volume, at):
        keywords = {"interpolation": interpolation, "boundary": boundary, "spatial_dims": dims}
        return grt.sample(volume, at, default_value=0.5, **keywords)

    assert torch.autograd.gradcheck(function, (volume, at))
    assert torch.autograd.gradgradcheck(function, (volume, at))


def test_a_long_line_of_positions_has_the_gradient_of_its_parts():
    volume, at = drawn(1, 6, 7, 8).requires_grad_(), positions(2500).requires_grad_()
    weights = drawn(1, 2500, seed=3)
    found = torch.autograd.grad((grt.sample(volume, at) * weights).sum(), (volume, at))
    parts = [torch.autograd.grad((grt.sample(volume, at[:, k : k + 500]) * weights[:, k : k + 500]).sum(), (volume, at))
             for k in range(0, 2500, 500)]  # fmt: skip
    for a, *each in zip(found, *parts, strict=True):
        torch.testing.assert_close(a, sum(each), rtol=0, atol=1e-12)
    again = torch.autograd.grad((grt.sample(volume, at) * weights).sum(), (volume, at))
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


def test_positions_that_are_no_numbers_take_the_default_and_have_no_gradient():
    volume, at = drawn(1, 6, 7, 8).requires_grad_(), positions(40, beyond=0.0)
    at[0, 3], at[1, 7], at[2, 11] = torch.nan, torch.inf, -torch.inf
    at.requires_grad_()
    for interpolation in ("linear", "bspline"):
        out = grt.sample(volume, at, interpolation=interpolation, boundary="constant", default_value=-3.0)
        assert (out[0, [3, 7, 11]] == -3).all()
        by_volume, by_position = torch.autograd.grad(out.sum(), (volume, at))
        assert torch.isfinite(by_volume).all()
        assert not by_position[:, [3, 7, 11]].any()
        assert by_position.any()


def test_one_set_of_positions_serves_a_batch_and_none_is_none():
    volume, at = drawn(3, 2, 6, 7, 8), positions(4, 5)
    together = grt.sample(volume, at[None])
    assert torch.equal(together, torch.stack([grt.sample(one, at) for one in volume]))
    assert torch.equal(grt.sample(volume[:1], torch.stack([at, at]))[1], together[0])
    assert grt.sample(volume, at[None, :, :0]).shape == (3, 2, 0, 5)
    labels = (volume[:, :1] > 0).to(torch.uint8)
    near = grt.sample(labels, at[None], interpolation="nearest", boundary="nearest")
    assert near.dtype == torch.uint8
    assert set(near.unique().tolist()) == {0, 1}


def test_no_positions_have_gradients_of_zeros():
    volume, at = torch.rand(2, 3, 4, 5, 6, requires_grad=True), torch.rand(2, 3, 0, requires_grad=True)
    out = grt.sample(volume, at)
    out.sum().backward()
    assert out.shape == (2, 3, 0)
    assert volume.grad.shape == volume.shape
    assert not volume.grad.any()
    assert at.grad.shape == at.shape


def test_compiled_without_a_break_and_under_vmap():
    volume, at = drawn(1, 2, 6, 7, 8).requires_grad_(), positions(1030)[None].requires_grad_()

    def function(volume, at):
        return grt.sample(volume * 2, at).square().sum()

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    expected, found = (torch.autograd.grad(f(volume, at), (volume, at)) for f in (function, compiled))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    two = torch.stack([at[0], at[0] / 2]).detach()
    together = torch.vmap(lambda at: grt.sample(volume.detach()[0], at))(two)
    assert torch.equal(together, torch.stack([grt.sample(volume.detach()[0], at) for at in two]))


VOLUME = torch.zeros(1, 4, 5, 6)
BAD = {
    "no tensor": ({"coordinates": np.zeros((3, 4))}, TypeError, "coordinates must be a torch.Tensor, got ndarray"),
    "type": ({"coordinates": torch.zeros(3, 4).half()}, TypeError, "coordinates must be a tensor of float32 or float6"),
    "components": ({"coordinates": torch.zeros(2, 4)}, ValueError, r"must have shape \(3, \.\.\.\), one or more axes"),
    "no N": (
        {"volume": VOLUME[None], "coordinates": torch.zeros(3, 4)}, ValueError,
        r"must have shape \(N, 3, \.\.\.\), one or more axes behind, beside a volume of 5 axes, got \(3, 4\)",
    ),
    "batch": (
        {"volume": VOLUME.repeat(2, 1, 1, 1, 1), "coordinates": torch.zeros(3, 3, 4)}, ValueError,
        "volume must have 1 or 3 members",
    ),
    "axes": ({"volume": torch.zeros(5, 6)}, ValueError, "volume must have 4 or 5 axes"),
    "dims": ({"spatial_dims": 1}, ValueError, "spatial_dims must be 2 or 3, got 1"),
    "boundary": ({"boundary": "zeros"}, ValueError, "boundary must be one of"),
    "device": ({"coordinates": torch.zeros(3, 4, device="meta")}, ValueError, "must be on the volume.s device cpu"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_by_name(name):
    keywords, error, message = BAD[name]
    with pytest.raises(error, match=message):
        grt.sample(**{"volume": VOLUME, "coordinates": torch.zeros(3, 4), **keywords})


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_what_has_no_gradient_says_so():
    volume, at = drawn(1, 4, 5, 6), positions(4, size=(4, 5, 6)).requires_grad_()
    with pytest.raises(ValueError, match="interpolation='nearest' copies voxels"):
        grt.sample(volume, at, interpolation="nearest")
    with pytest.raises(RuntimeError, match="no forward-mode derivative"):
        torch.func.jvp(lambda p: grt.sample(volume, p), (at.detach(),), (at.detach(),))


def test_the_code_of_the_page_runs(capsys):
    page = (pathlib.Path(__file__).parents[3] / "docs" / "transforms.md").read_text()
    code = re.search(r"### Positions of your own\n.*?```python\n(.*?)```", page, re.DOTALL)[1]
    exec(code, {})
    assert f"# {capsys.readouterr().out.strip()}" in code

"""`gpuresample.torch.warp`: its values are the package's and torch's, its gradients true, twice; torch's machinery."""

import pathlib
import re
from contextlib import contextmanager

import numpy as np
import pytest
import torch

import gpuresample as gr
import gpuresample.torch as grt
from gpuresample import warps
from gpuresample.ops.transforms import BSpline, DisplacementField, Path

BOUNDARIES = [None, "nearest", "reflect", "mirror", "constant"]
F64 = torch.float64
ROOT = pathlib.Path(__file__).parents[3]


def drawn(*shape, seed=0, dtype=F64):
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def parts(dims, volumes=2, dtype=F64):
    """A volume, matrices, displacements and coefficients that lead out of the volume on all sides."""
    size = (3, 4, 4)[-dims:], (2, 3, 4)[-dims:]
    volume = drawn(volumes, 2, *size[0], dtype=dtype)
    matrix = torch.eye(dims, dims + 1, dtype=dtype) + 0.15 * drawn(volumes, dims, dims + 1, seed=1, dtype=dtype)
    field = 0.9 * drawn(volumes, dims, *size[1], seed=2, dtype=dtype)
    spline = 0.8 * drawn(1, dims, *(4,) * dims, seed=3, dtype=dtype)
    return volume, {"matrix": matrix, "displacement": field, "coefficients": spline}, size[1]


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [3, 2])
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("interpolation", ["nearest", "linear", "bspline", "lanczos"])
def test_a_warp_is_resample_along_the_path(interpolation, boundary, dims):
    volume, given, size = parts(dims)
    kwargs = {"interpolation": interpolation, "boundary": boundary, "default_value": 0.5}
    ours = grt.warp(volume, given["matrix"], given["displacement"], size=size, spatial_dims=dims, **kwargs)
    for n, c in np.ndindex(2, 2):
        field = DisplacementField(np.moveaxis(given["displacement"][n].numpy(), 0, -1))
        path = Path([field, given["matrix"][n].numpy()])
        expected = gr.resample(volume[n, c].numpy(), size=size, spacing=1, transform=path, **kwargs)
        np.testing.assert_allclose(ours[n, c].numpy(), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_spline_is_the_packages(order):
    volume, coefficients = drawn(1, 5, 6, 7), 0.7 * drawn(3, 4, 5, 4, seed=1)
    ours = grt.warp(volume, coefficients=coefficients, order=order)
    path = BSpline(np.moveaxis(coefficients.numpy(), 0, -1), order=order)
    expected = gr.resample(volume[0].numpy(), transform=path, interpolation="linear")
    np.testing.assert_allclose(ours[0].numpy(), expected, rtol=0, atol=1e-9)


def torch_grid(displacement):
    """`grid_sample`'s grid of a displacement in voxels, corners aligned."""
    size = displacement.shape[2:]
    place = torch.stack(torch.meshgrid(*[torch.arange(n, dtype=displacement.dtype) for n in size], indexing="ij"))
    scale = torch.tensor(size, dtype=displacement.dtype).sub(1).reshape(1, -1, *(1,) * len(size))
    return (2 * (place + displacement) / scale - 1).movedim(1, -1).flip(-1)


@pytest.mark.parametrize("dims", [3, 2])
def test_values_and_gradients_are_those_of_grid_sample(dims):
    size = (6, 7, 8)[-dims:]
    volume, field = drawn(2, 3, *size).requires_grad_(), (1.5 * drawn(2, dims, *size, seed=1)).requires_grad_()
    weights = drawn(2, 3, *size, seed=2)
    ours = grt.warp(volume, displacement=field, boundary="nearest", spatial_dims=dims)
    theirs = torch.nn.functional.grid_sample(volume, torch_grid(field), padding_mode="border", align_corners=True)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    found = torch.autograd.grad((ours * weights).sum(), (volume, field))
    expected = torch.autograd.grad((theirs * weights).sum(), (volume, field))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


def test_members_serve_a_batch_and_a_batch_is_its_members():
    volume, given, size = parts(3)
    both = grt.warp(volume, **given, size=size)
    for n in range(2):
        one = {"matrix": given["matrix"][n], "displacement": given["displacement"][n]}
        alone = grt.warp(volume[n], **one, coefficients=given["coefficients"][0], size=size)
        assert alone.shape == (2, *size)
        assert torch.equal(alone, both[n])
    many = grt.warp(volume[:1], given["matrix"], size=size)
    assert torch.equal(many[1], grt.warp(volume[0], given["matrix"][1], size=size))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.bool])
def test_labels_stay_labels(dtype):
    labels = drawn(1, 5, 6, 7).mul(3).abs().to(dtype)
    found = grt.warp(labels, torch.eye(3, 4).double() + 0.1, interpolation="nearest")
    assert found.dtype == dtype
    assert set(found.unique().tolist()) <= set(labels.unique().tolist()) | {0}


def test_a_vector_that_is_no_number_takes_the_default():
    field = torch.zeros(3, 4, 5, 6)
    field[1, 2, 3, 4] = torch.nan
    volume = drawn(1, 4, 5, 6, dtype=torch.float32).requires_grad_()
    with pytest.warns(RuntimeWarning, match="1 voxels to positions that are not finite"):
        out = grt.warp(volume, displacement=field.requires_grad_(), default_value=-7)
    assert (out == -7).sum() == 1
    by_volume, by_field = torch.autograd.grad(out.sum(), (volume, field))
    assert torch.isfinite(by_volume).all()
    assert torch.isfinite(by_field).all()
    assert by_volume[0, 2, 3, 4] == 0


# --- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [["matrix"], ["displacement"], ["matrix", "displacement", "coefficients"]])
@pytest.mark.parametrize("dims", [3, 2])
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("interpolation", ["linear", "bspline"])
def test_gradients_are_right_and_their_gradients_too(interpolation, boundary, dims, names):
    volume, given, size = parts(dims)
    inputs = [t.clone().requires_grad_() for t in (volume, *(given[name] for name in names))]

    def function(volume, *rest):
        return grt.warp(
            volume, **dict(zip(names, rest, strict=True)), size=size, interpolation=interpolation, boundary=boundary,
            default_value=0.5, spatial_dims=dims,
        )  # fmt: skip

    assert torch.autograd.gradcheck(function, inputs, atol=1e-5, rtol=1e-4, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, atol=1e-4, rtol=1e-3, fast_mode=True)


@pytest.mark.parametrize("interpolation", ["linear", "bspline"])
def test_every_entry_of_the_gradient_is_right(interpolation):
    volume, given, size = parts(3, volumes=1)
    inputs = [t.clone().requires_grad_() for t in (volume[:, :1], given["matrix"], given["displacement"])]
    assert torch.autograd.gradcheck(
        lambda *t: grt.warp(*t, size=size, interpolation=interpolation), inputs, atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("interpolation", ["linear", "bspline"])
def test_gradients_have_the_same_bits_on_any_number_of_threads(interpolation):
    volume = drawn(1, 2, 40, 41, 42, dtype=torch.float32).requires_grad_()
    field = (2 * drawn(1, 3, 40, 41, 42, seed=1, dtype=torch.float32)).requires_grad_()
    matrix = (torch.eye(3, 4) + 0.05 * drawn(3, 4, seed=2, dtype=torch.float32)).requires_grad_()
    seen = set()
    try:
        for threads in (1, 2, 3, 4):
            gr.set_num_threads(threads)
            out = grt.warp(volume, matrix, field, interpolation=interpolation)
            found = torch.autograd.grad(out.square().sum(), (volume, matrix, field))
            seen.add(tuple(g.numpy().tobytes() for g in found))
    finally:
        gr.set_num_threads(None)
    assert len(seen) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_gradients_have_their_tensors_types(dtype):
    volume = drawn(1, 6, 7, 8).to(dtype).requires_grad_()
    matrix = (torch.eye(3, 4) + 0.1).double().requires_grad_()
    field = drawn(3, 6, 7, 8, seed=1).half().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = grt.warp(volume, matrix, field)
    assert out.dtype == dtype
    out.float().square().sum().backward()
    assert [t.grad.dtype for t in (volume, matrix, field)] == [dtype, torch.float64, torch.float16]
    exact = [t.detach().double().requires_grad_() for t in (volume, matrix, field)]
    grt.warp(*exact).square().sum().backward()
    close = 40 * torch.finfo(dtype).eps
    for mine, right in zip((volume, matrix, field), exact, strict=True):
        assert (mine.grad.double() - right.grad).abs().max() <= max(close, 4e-3) * right.grad.abs().max()


def test_what_has_no_gradient_says_so():
    volume, given, size = parts(3)
    matrix = given["matrix"].requires_grad_()
    for interpolation, what in [
        ("nearest", "copies voxels"),
        ("label_linear", "is a vote"),
        ("gaussian", "divides by"),
    ]:
        with pytest.raises(ValueError, match=rf"interpolation='{interpolation}' {what}.*has no gradient"):
            grt.warp(volume, matrix, size=size, interpolation=interpolation)
        assert grt.warp(volume, matrix.detach(), size=size, interpolation=interpolation).shape == (2, 2, *size)
    with pytest.raises(
        ValueError, match=r"volume must have float voxels where a gradient is asked for, got torch.int16"
    ):
        grt.warp(volume.to(torch.int16), matrix, size=size)


# torch's own, when it first differentiates forward.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_forward_mode_is_refused_not_zero():
    volume, given, size = parts(3)
    field = given["displacement"]
    with pytest.raises(RuntimeError, match="no forward-mode derivative"):
        torch.func.jvp(lambda f: grt.warp(volume, displacement=f, size=size), (field,), (field,))
    with pytest.raises(RuntimeError, match="no forward-mode derivative"):
        torch.func.jacfwd(lambda f: grt.warp(volume, displacement=f, size=size))(field)


# --- CUDA tensors ----------------------------------------------------------------------------------------------------


@pytest.fixture
def as_if_on_a_gpu(monkeypatch):
    """The path of CUDA tensors on CPU memory: the CUDA engine's launches, its kernels run on the CPU."""
    from gpuresample.engines.cuda import host
    from gpuresample.engines.cuda.engine import CudaEngine
    from gpuresample.tensors import as_numbers

    try:
        host.compiler()
    except RuntimeError as error:
        pytest.skip(str(error))
    engine = CudaEngine(host.HostRuntime())

    @contextmanager
    def beside(tensor):
        yield engine, lambda one: as_numbers(one).numpy()

    def switch(on):
        monkeypatch.setattr(warps, "engine_beside", beside if on else real)

    real = warps.engine_beside
    switch(True)
    return engine.runtime.launches, switch


def with_gradients(volume, given, **options):
    """A warp and what all its inputs get back."""
    inputs = {name: t.clone().requires_grad_() for name, t in {"volume": volume, **given}.items()}
    out = grt.warp(**inputs, **options)
    weights = drawn(*out.shape, seed=9, dtype=out.dtype)
    return [out, *torch.autograd.grad((out * weights).sum(), list(inputs.values()))]


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("interpolation", ["linear", "bspline", "lanczos"])
def test_a_gpus_warps_and_gradients_are_the_cpus(as_if_on_a_gpu, interpolation, boundary):
    launches, switch = as_if_on_a_gpu
    volume, given, size = parts(3)
    options = {"size": size, "interpolation": interpolation, "boundary": boundary, "default_value": 0.5}
    found = with_gradients(volume, given, **options)
    assert launches["sum_moments"] == 1
    switch(False)
    for mine, expected in zip(found, with_gradients(volume, given, **options), strict=True):
        torch.testing.assert_close(mine, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_gpus_warps_of_smaller_floats_are_the_cpus(as_if_on_a_gpu, dtype):
    _, switch = as_if_on_a_gpu
    volume, given, size = parts(2, dtype=dtype)
    found = with_gradients(volume, given, size=size, spatial_dims=2)
    switch(False)
    for mine, expected in zip(found, with_gradients(volume, given, size=size, spatial_dims=2), strict=True):
        assert mine.dtype == expected.dtype
        torch.testing.assert_close(mine, expected, rtol=4 * torch.finfo(dtype).eps, atol=4 * torch.finfo(dtype).eps)


def test_a_gpu_samples_where_it_is_told_as_the_cpu_does(as_if_on_a_gpu):
    _, switch = as_if_on_a_gpu

    def run():
        volume = drawn(2, 2, 3, 4, 4).requires_grad_()
        at = (1.5 * drawn(2, 3, 2, 5, seed=1) + 1.5).requires_grad_()
        out = grt.sample(volume, at, interpolation="linear", boundary="constant", default_value=0.5)
        return [out, *torch.autograd.grad((out * drawn(*out.shape, seed=2)).sum(), (volume, at))]

    found = run()
    switch(False)
    for mine, expected in zip(found, run(), strict=True):
        torch.testing.assert_close(mine, expected, rtol=0, atol=1e-9)


def test_a_gpus_labels_stay_labels(as_if_on_a_gpu):
    _, switch = as_if_on_a_gpu
    matrix = torch.eye(3, 4).double() + 0.1
    for dtype in (torch.uint8, torch.int16, torch.bool):
        volume = drawn(1, 5, 6, 7).mul(3).abs().to(dtype)
        switch(True)
        found = grt.warp(volume, matrix, interpolation="nearest")
        switch(False)
        assert torch.equal(found, grt.warp(volume, matrix, interpolation="nearest"))


def test_a_batch_with_channels_is_one_launch(as_if_on_a_gpu):
    launches, _ = as_if_on_a_gpu
    for n in (1, 4):
        volume, field = drawn(n, 3, 4, 5, 6).requires_grad_(), drawn(n, 3, 4, 5, 6, seed=1).requires_grad_()
        before = launches.copy()
        out = grt.warp(volume, torch.eye(3, 4).double().expand(n, 3, 4), field)
        torch.autograd.grad(out.square().sum(), (volume, field))
        made = launches - before
        assert made["gather_linear_lattice"] == made["splat_linear_lattice"] == made["gradient_linear_lattice"] == 1


@pytest.mark.parametrize("interpolation", ["linear", "bspline"])
def test_a_gpus_gradients_are_right_and_their_gradients_too(as_if_on_a_gpu, interpolation):
    volume, given, size = parts(3)
    inputs = [t.clone().requires_grad_() for t in (volume, given["matrix"], given["displacement"])]

    def function(*inputs):
        return grt.warp(*inputs, size=size, interpolation=interpolation, boundary="mirror", default_value=0.5)

    assert torch.autograd.gradcheck(function, inputs, atol=1e-5, rtol=1e-4, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, atol=1e-4, rtol=1e-3, fast_mode=True)


def test_resample_along_a_transform_goes_back_on_a_gpu(as_if_on_a_gpu):
    launches, switch = as_if_on_a_gpu
    volume, given, _ = parts(3)
    matrix = given["matrix"][0].numpy()

    def back():
        x = volume.clone().requires_grad_()
        return torch.autograd.grad(grt.resample(x, transform=matrix, interpolation="linear").square().sum(), x)[0]

    mine = back()
    assert launches["splat_linear"] == 1
    switch(False)
    torch.testing.assert_close(mine, back(), rtol=0, atol=1e-9)


# --- torch's machinery -----------------------------------------------------------------------------------------------


def test_the_operators_keep_torchs_rules():
    volume, given, size = parts(3)
    volume = volume.requires_grad_()
    matrix, field = given["matrix"].requires_grad_(), given["displacement"].requires_grad_()
    how, none = warps.recipe("linear", None), [0, 0, 0]
    grad = drawn(2, 2, *size, seed=5).requires_grad_()
    calls = {
        warps.pull: (volume, matrix, field, how, list(size), none, 0.0),
        warps.splat: (grad, matrix, field, how, [3, 4, 4], none),
        warps.slopes: (volume, grad, matrix, field, how, none),
        warps.moments: (drawn(2, 3, *size, seed=6).requires_grad_(), field),
    }
    for operator, inputs in calls.items():
        found = torch.library.opcheck(operator, inputs)
        assert set(found.values()) == {"SUCCESS"}, (operator, found)


def test_compiled_without_a_break_forward_and_back():
    def function(volume, field, matrix):
        return grt.warp(volume * 2, matrix, field).square().sum()

    volume, field = drawn(1, 2, 5, 6, 7).requires_grad_(), drawn(1, 3, 5, 6, 7, seed=1).requires_grad_()
    matrix = (torch.eye(3, 4).double() + 0.05).requires_grad_()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for f in (function, compiled):
        found = torch.autograd.grad(f(volume, field, matrix), (volume, field, matrix))
        if f is function:
            expected = found
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_vmap_is_member_by_member():
    volume, given, size = parts(3)
    fields = torch.stack([given["displacement"], 2 * given["displacement"]])
    together = torch.vmap(lambda f: grt.warp(volume, displacement=f, size=size))(fields)
    assert torch.equal(together, torch.stack([grt.warp(volume, displacement=f, size=size) for f in fields]))


def test_a_module_does_what_the_function_does():
    volume, given, size = parts(3)
    layer = grt.SpatialTransformer(size=size, boundary="nearest")
    expected = grt.warp(volume, displacement=given["displacement"], size=size, boundary="nearest")
    assert torch.equal(layer(volume, given["displacement"]), expected)
    assert torch.equal(
        layer(volume, matrix=given["matrix"]), grt.warp(volume, given["matrix"], size=size, boundary="nearest")
    )
    assert "boundary='nearest'" in repr(layer)
    with pytest.raises(TypeError, match="boundry"):
        grt.SpatialTransformer(boundry="nearest")


# --- bad input -------------------------------------------------------------------------------------------------------

VOLUME = torch.zeros(1, 4, 5, 6)
BAD = {
    "nothing": ({}, ValueError, r"warp needs a matrix, a displacement or coefficients, got none"),
    "matrix shape": ({"matrix": torch.eye(3)}, ValueError, r"matrix must have shape \(3, 4\) or \(N, 3, 4\), got"),
    "matrix nan": ({"matrix": torch.full((3, 4), torch.nan)}, ValueError, "matrix must be of finite numbers"),
    "matrix type": ({"matrix": torch.eye(3, 4).int()}, TypeError, "matrix must be a float tensor, got torch.int32"),
    "not a tensor": ({"matrix": np.eye(3, 4)}, TypeError, "matrix must be a torch.Tensor, got ndarray"),
    "components": (
        {"displacement": torch.zeros(2, 4, 5, 6)}, ValueError,
        r"displacement must have shape \(3, z, y, x\) or \(N, 3, z, y, x\), got \(2, 4, 5, 6\)",
    ),
    "size": (
        {"displacement": torch.zeros(3, 4, 5, 6), "size": (4, 5, 7)}, ValueError,
        r"displacement must have the output's size \(4, 5, 7\), got \(4, 5, 6\)",
    ),
    "few points": ({"coefficients": torch.zeros(3, 3, 4, 4)}, ValueError, "at least 4 control points on every axis"),
    "order": ({"coefficients": torch.zeros(3, 4, 4, 4), "order": 4}, ValueError, "order must be 1, 2 or 3, got 4"),
    "boundary": ({"matrix": torch.eye(3, 4), "boundary": "zeros"}, ValueError, "boundary must be one of"),
    "interpolation": ({"matrix": torch.eye(3, 4), "interpolation": "cubik"}, ValueError, "interpolation must be"),
    "default": ({"matrix": torch.eye(3, 4), "default_value": "0"}, TypeError, "default_value must be a number"),
    "dims": ({"matrix": torch.eye(3, 4), "spatial_dims": 1}, ValueError, "spatial_dims must be 2 or 3, got 1"),
    "axes": ({"matrix": torch.eye(3, 4), "volume": torch.zeros(5, 6)}, ValueError, "volume must have 4 or 5 axes"),
    "batch": (
        {"matrix": torch.eye(3, 4).repeat(3, 1, 1), "volume": VOLUME.repeat(2, 1, 1, 1, 1)}, ValueError,
        "volume must have 1 or 3 members",
    ),
    "device": (
        {"matrix": torch.eye(3, 4, device="meta")}, ValueError, "matrix must be on the volume's device cpu, got meta",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_by_name(name):
    keywords, error, message = BAD[name]
    keywords = {"volume": VOLUME, **keywords}
    with pytest.raises(error, match=message):
        grt.warp(**keywords)


# --- resample with a transform, and the page -------------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", ["linear", "bspline"])
@pytest.mark.parametrize("dims", [3, 2])
def test_resample_along_a_transform_is_differentiable_in_the_image(interpolation, dims):
    _, given, size = parts(dims)
    image = drawn(2, *(3, 4, 4)[-dims:]).requires_grad_()
    field = DisplacementField(np.moveaxis(given["displacement"][0].numpy(), 0, -1))
    spline = BSpline(np.moveaxis(given["coefficients"][0].numpy(), 0, -1))
    path = Path([spline, field, given["matrix"][0].numpy()])

    def function(image):
        return grt.resample(
            image, size=size, spacing=1, transform=path, interpolation=interpolation, default_value=2, spatial_dims=dims
        )

    one = gr.resample(
        image[0].detach().numpy(), size=size, spacing=1, transform=path, interpolation=interpolation, default_value=2
    )
    np.testing.assert_array_equal(function(image)[0].detach().numpy(), one)
    # A linear function has no error of curvature: a large step keeps rounding small.
    assert torch.autograd.gradcheck(function, image, eps=1.0, atol=1e-9)
    assert torch.autograd.gradgradcheck(function, image, eps=1.0, atol=1e-9)


def test_resample_along_transforms_of_a_batch_and_along_axes():
    image = drawn(2, 3, 4, 4).requires_grad_()
    turns = [np.eye(3, 4) + 0.1, np.eye(3, 4) - 0.1]
    out = grt.resample(image, transform=turns, interpolation="linear")
    for n, turn in enumerate(turns):
        assert torch.equal(out[n], grt.resample(image[n], transform=turn, interpolation="linear"))
    shift = np.eye(3, 4)
    shift[:, 3] = 0.5
    assert torch.autograd.gradcheck(lambda v: grt.resample(v, transform=shift), image, eps=1.0, atol=1e-9)


def test_resample_along_a_transform_refuses_gradients_of_copies_and_votes():
    image = drawn(3, 4, 4).requires_grad_()
    for interpolation in ("nearest", "label_linear", "gaussian"):
        with pytest.raises(ValueError, match="must be a sum of voxels for a gradient"):
            grt.resample(image, transform=np.eye(3, 4) + 0.1, interpolation=interpolation)


def test_the_registration_of_the_page_finds_its_way(capsys):
    page = (ROOT / "docs" / "transforms.md").read_text().split("## A registration\n")[1]
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    assert "range(81)" in code
    exec(code.replace("range(81)", "range(21)"), {})
    first, last = (float(line.split()[2]) for line in capsys.readouterr().out.splitlines())
    assert last < 0.2 * first
    assert f"step 0: {first:.4f}" in page


def test_a_warp_that_comes_again_reads_its_tensors_each_time():
    volume, given, size = parts(3)
    volume, matrix = volume[:1, :1].float(), given["matrix"][:1].float()
    field, seen = given["displacement"][:1].float(), []
    for more in ({}, {"displacement": field}):
        for default in (0.0, -0.0, 2.0):
            for k in range(6):
                if k % 3 == 0:
                    matrix[0, 2, 3] += 0.25
                    field += 0.25
                    volume *= 1.5
                words = {"size": size, "default_value": default, **more}
                again = volume.clone(), matrix.clone(), {name: value.clone() for name, value in more.items()}
                seen.append((grt.warp(volume, matrix, **words), again, words))
    for made, (image, moved, fields), words in seen:
        gr.clear_caches()
        fresh = grt.warp(image, moved, **{**words, **fields})
        assert torch.equal(made, fresh)
        assert torch.equal(made.signbit(), fresh.signbit())


def test_of_warps_the_last_ones_are_kept():
    volume, given, _ = parts(3)
    for k in range(40):
        grt.warp(volume, given["matrix"] + 0.01 * k)
    assert len(warps._recent._held) == 32


@pytest.mark.parametrize(
    "given",
    [
        {"matrix": torch.eye(3, 4)},
        {"displacement": torch.rand(1, 3, 4, 5, 6)},
        {"coefficients": torch.rand(3, 5, 5, 5)},
    ],
    ids=lambda given: next(iter(given)),
)
def test_what_serves_all_of_a_batch_serves_an_empty_one(given):
    leaves = {name: value.clone().requires_grad_() for name, value in given.items()}
    out = grt.warp(torch.rand(0, 2, 4, 5, 6), **leaves)
    assert out.shape == (0, 2, 4, 5, 6)
    out.sum().backward()
    assert all(not leaf.grad.any() for leaf in leaves.values())
    assert grt.sample(torch.rand(0, 2, 4, 5, 6), torch.rand(1, 3, 7)).shape == (0, 2, 7)


def test_an_axis_without_voxels_is_named():
    for volume, name, given in (
        (torch.rand(1, 4, 0, 6), "volume", {"matrix": torch.eye(3, 4)}),
        (torch.rand(1, 4, 5, 6), "displacement", {"displacement": torch.rand(3, 4, 0, 6)}),
        (torch.rand(1, 4, 5, 6), "coefficients", {"coefficients": torch.rand(3, 0, 5, 5)}),
    ):
        with pytest.raises(ValueError, match=rf"{name} must not be empty, got shape"):
            grt.warp(volume, **given)
    with pytest.raises(ValueError, match="volume must not be empty"):
        grt.sample(torch.rand(1, 4, 0, 6), torch.rand(3, 7))

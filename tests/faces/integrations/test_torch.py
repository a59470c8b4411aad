"""`gpuresample.torch`: values, gradients, compile, autocast, vmap, modules, loaders."""

from collections import namedtuple

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from support import noise

import gpuresample as gr
import gpuresample.torch as grt
from gpuresample import tensors
from gpuresample.engines.cuda.engine import CudaEngine

INTERPOLATIONS = ["linear", "bspline", "bspline2", "nearest", "lanczos", "gaussian"]
ANCHORS = ["first", "edge", "center"]
BOUNDARIES = [None, "nearest", "reflect", "mirror", "constant"]


def volume(*shape, dtype=torch.float32, seed=0, **kw):
    return torch.from_numpy(noise(shape, "float64", seed)).to(dtype).requires_grad_(kw.get("grad", False))


# --- values --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32", "float64"])
def test_the_numbers_are_those_of_resample(read, dtype):
    array = sitk.GetArrayFromImage(read("MNI152_2009_template.nii.gz", (60, 70, 50), (40, 44, 48))).astype(dtype)
    keywords = {"spacing": (2, 0.9, 1.1), "anchor": "edge", "antialias": True}
    out = grt.resample(torch.from_numpy(array)[None, None], **keywords)
    assert out.dtype == torch.from_numpy(array).dtype
    np.testing.assert_array_equal(out[0, 0].numpy(), gr.resample(array, **keywords))


@pytest.mark.parametrize("shape", [(5, 6), (4, 5, 6), (2, 4, 5, 6), (3, 2, 4, 5, 6)])
def test_any_number_of_leading_axes(shape):
    x = volume(*shape)
    d = min(len(shape), 3)
    out = grt.resample(x, size=(7,) * d)
    assert out.shape == (*shape[:-d], *(7,) * d)
    np.testing.assert_array_equal(out.numpy(), gr.resample(x.numpy(), size=(7,) * d))


def test_a_batch_of_pictures():
    x = volume(2, 3, 8, 9)
    out = grt.resample(x, size=(5, 6), spatial_dims=2)
    assert out.shape == (2, 3, 5, 6)
    np.testing.assert_array_equal(out[1, 2].numpy(), gr.resample(x[1, 2].numpy(), size=(5, 6)))


def test_memory_is_used_as_it_lies():
    x = volume(6, 8, 7, 2).permute(3, 2, 0, 1)
    assert not x.is_contiguous()
    np.testing.assert_array_equal(
        grt.resample(x, size=(3, 4, 5)).numpy(), grt.resample(x.contiguous(), size=(3, 4, 5)).numpy()
    )


@pytest.mark.parametrize(("dtype", "step"), [(torch.float16, 2**-10), (torch.bfloat16, 2**-7)])
def test_half_types_are_summed_in_float32_and_rounded_once(dtype, step):
    x = volume(1, 10, 11, 12).div(100).to(dtype)
    out = grt.resample(x, size=(7, 15, 12), interpolation="linear")
    assert out.dtype == dtype
    wide = grt.resample(x.float(), size=(7, 15, 12), interpolation="linear")
    assert torch.equal(out, wide.to(dtype))
    assert (out.float() - wide).abs().max() <= step * wide.abs().max()


def test_labels_and_masks_keep_their_type():
    big = torch.arange(60, dtype=torch.int64).reshape(3, 4, 5) + 2**60
    twice = grt.resample(big, size=(6, 8, 10), interpolation="nearest", anchor="edge")
    assert torch.equal(twice[::2, ::2, ::2], big)
    mask = volume(6, 6, 6) > 0
    assert grt.resample(mask, size=(9, 9, 9)).dtype == torch.bool
    assert grt.resample(mask, size=(9, 9, 9), dtype=torch.float32, interpolation="linear").dtype == torch.float32


def test_gaussian_and_downsample_are_those_of_the_package():
    x = volume(2, 12, 13, 14)
    np.testing.assert_array_equal(
        grt.gaussian(x, (1, 2, 1.5), input_spacing=(2, 1, 1)).numpy(),
        gr.gaussian(x.numpy(), (1, 2, 1.5), input_spacing=(2, 1, 1)),
    )
    np.testing.assert_array_equal(grt.downsample(x, (2, 3, 2)).numpy(), gr.downsample(x.numpy(), (2, 3, 2)))


@pytest.mark.parametrize(("align", "anchor"), [(False, "edge"), (True, "center")])
def test_linear_is_torch_interpolate(align, anchor):
    x = volume(2, 3, 9, 10, 11, dtype=torch.float64)
    ours = grt.resample(x, size=(14, 5, 17), interpolation="linear", anchor=anchor, boundary="nearest")
    theirs = torch.nn.functional.interpolate(x, size=(14, 5, 17), mode="trilinear", align_corners=align)
    assert (ours - theirs).abs().max() <= 1e-9 * (x.max() - x.min())


def test_what_cannot_be_is_refused_by_name():
    x = volume(4, 5, 6)
    with pytest.raises(ValueError, match=r"size must have 3 values, one per axis, got 2"):
        grt.resample(x, size=(3, 4))
    with pytest.raises(ValueError, match=r"anchor must be one of 'first', 'edge', 'center', got 'corner'"):
        grt.resample(x, size=(3, 4, 5), anchor="corner")
    with pytest.raises(TypeError, match=r"image must be a torch.Tensor, got ndarray"):
        grt.resample(x.numpy(), size=(3, 4, 5))
    with pytest.raises(TypeError, match=r"image must have integer, float or bool voxels .* got torch.complex64"):
        grt.resample(x.to(torch.complex64), size=(3, 4, 5))
    with pytest.raises(TypeError, match=r"dtype must be a torch integer or float type"):
        grt.resample(x, size=(3, 4, 5), dtype=np.float32)
    with pytest.raises(ValueError, match=r"image must have at least 2 axes, got shape \(4,\)"):
        grt.resample(torch.zeros(4), size=(3,))
    with pytest.raises(ValueError, match=r"spatial_dims must be 2, 3 or None, got 4"):
        grt.resample(x, size=(3, 4, 5), spatial_dims=4)
    with pytest.raises(ValueError, match=r"sigma must be at least 0"):
        grt.gaussian(x, -1)
    with pytest.raises(ValueError, match=r"factors must be whole numbers of at least 1"):
        grt.downsample(x, 0)


# --- gradients -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("anchor", ANCHORS)
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("interpolation", ["linear", "bspline"])
def test_gradients_are_right_and_their_gradients_too(interpolation, boundary, anchor):
    x = volume(1, 2, 3, 4, 5, dtype=torch.float64, grad=True)

    def function(x):
        return grt.resample(
            x, size=(4, 3, 7), interpolation=interpolation, boundary=boundary, anchor=anchor, default_value=7
        )

    # A linear function has no error of curvature: a large step keeps rounding small.
    assert torch.autograd.gradcheck(function, x, eps=1.0, atol=1e-9)
    assert torch.autograd.gradgradcheck(function, x, eps=1.0, atol=1e-9)


@pytest.mark.parametrize("interpolation", ["nearest", "bspline5", "lanczos", "gaussian"])
def test_gradients_of_other_filters(interpolation):
    x = volume(3, 4, 5, dtype=torch.float64, grad=True)
    assert torch.autograd.gradcheck(
        lambda x: grt.resample(x, spacing=(0.7, 1.3, 0.9), interpolation=interpolation), x, eps=1.0, atol=1e-9
    )


def test_gradients_of_blurs_pictures_and_outsides():
    x = volume(2, 6, 7, 8, dtype=torch.float64, grad=True)
    for function in (
        lambda x: grt.gaussian(x, 1.5),
        lambda x: grt.gaussian(x, 1.0, kind="recursive"),
        lambda x: grt.downsample(x, (2, 2, 3)),
        lambda x: grt.resample(x, size=(9, 12), spatial_dims=2),
        lambda x: grt.resample(x, spacing=1.0, size=(8, 8, 8)),
        lambda x: grt.resample(x, size=(3, 4, 5), antialias=True),
    ):
        assert torch.autograd.gradcheck(function, x, eps=1.0, atol=1e-9)


def test_gradients_repeat_to_the_bit_and_take_what_sum_gives():
    x = volume(2, 20, 30, 40, grad=True)
    gradients = []
    for threads in (1, 2, 3):
        gr.set_num_threads(threads)
        out = grt.resample(x, size=(31, 22, 50))
        # sum's gradient is one number, expanded.
        (gradient,) = torch.autograd.grad(out.sum(), x)
        gradients.append(gradient)
    gr.set_num_threads(None)
    assert all(torch.equal(g, gradients[0]) for g in gradients)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_gradients_have_the_images_type(dtype):
    x = volume(1, 6, 7, 8).to(dtype).requires_grad_()
    out = grt.resample(x, size=(9, 9, 9), dtype=torch.float32)
    assert out.dtype == torch.float32
    out.square().sum().backward()
    assert x.grad.dtype == dtype
    y = x.detach().double().requires_grad_()
    grt.resample(y, size=(9, 9, 9)).square().sum().backward()
    close = {"rtol": 2 * torch.finfo(dtype).eps, "atol": 2e-2 * float(y.grad.abs().mean())}
    torch.testing.assert_close(x.grad.double(), y.grad, **close)


def test_votes_have_no_gradient_and_say_so():
    x = volume(3, 4, 5, grad=True)
    with pytest.raises(ValueError, match=r"interpolation='label_linear' is a vote among labels and has no gradient"):
        grt.resample(x, size=(4, 4, 4), interpolation="label_linear")
    assert grt.resample(x.detach(), size=(4, 4, 4), interpolation="label_linear").shape == (4, 4, 4)


# --- torch's machinery -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["run", "run_adjoint"])
def test_the_operators_keep_torchs_rules(name):
    x = volume(2, 5, 6, 7, grad=True)
    recipe = grt._recipe("resample", 3, None, {"size": (4, 7, 8), "anchor": "edge"})
    if name == "run":
        found = torch.library.opcheck(grt._run, (x, recipe))
    else:
        y = volume(2, 4, 7, 8, grad=True)
        found = torch.library.opcheck(grt._run_adjoint, (y, recipe, [5, 6, 7], torch.float32))
    assert set(found.values()) == {"SUCCESS"}


def test_compiled_without_a_break_forward_and_back():
    def function(x, other):
        y = grt.resample(x * 2, size=other.shape[-3:], anchor="edge", interpolation="linear")
        return grt.gaussian(y, 1.0) + grt.downsample(x, 1).mean()

    x, other = volume(1, 2, 6, 7, 8, grad=True), torch.zeros(1, 1, 9, 5, 8)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    expected = function(x, other)
    (gradient,) = torch.autograd.grad(expected.square().sum(), x)
    out = compiled(x, other)
    torch.testing.assert_close(out, expected)
    (again,) = torch.autograd.grad(out.square().sum(), x)
    torch.testing.assert_close(again, gradient)
    # Another shape is another graph, not a wrong one.
    x = volume(2, 2, 5, 9, 7)
    torch.testing.assert_close(compiled(x, other), function(x, other))


def test_autocast_changes_nothing():
    x = volume(1, 1, 6, 7, 8)
    expected = grt.resample(x, size=(5, 5, 5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = grt.resample(x, size=(5, 5, 5))
        assert torch.equal(out, expected)
        assert grt.resample(x.bfloat16(), size=(5, 5, 5)).dtype == torch.bfloat16


def test_vmap_is_one_more_axis():
    x = volume(3, 2, 5, 6, 7)
    out = torch.vmap(lambda v: grt.resample(v, size=(4, 4, 4)), in_dims=1)(x)
    torch.testing.assert_close(out, grt.resample(x, size=(4, 4, 4)).movedim(1, 0), rtol=0, atol=0)
    y = x.clone().requires_grad_()
    out = grt.resample(y, size=(4, 4, 4))
    weights = volume(5, *out.shape, seed=1)
    (together,) = torch.autograd.grad(out, y, weights, is_grads_batched=True, retain_graph=True)
    one_by_one = [torch.autograd.grad(out, y, w, retain_graph=True)[0] for w in weights]
    torch.testing.assert_close(together, torch.stack(one_by_one), rtol=0, atol=0)


def test_modules_do_what_the_functions_do():
    x = volume(1, 1, 8, 9, 10)
    last = grt.Resample(size=(6, 6, 6), interpolation="linear")
    net = torch.nn.Sequential(grt.Gaussian(1.0), grt.Downsample(2), last)
    expected = grt.resample(grt.downsample(grt.gaussian(x, 1.0), 2), size=(6, 6, 6), interpolation="linear")
    assert torch.equal(net(x), expected)
    assert "size=(6, 6, 6), interpolation='linear'" in repr(net)
    assert not list(net.parameters())
    with pytest.raises(TypeError, match="spacin"):
        grt.Resample(spacin=1)


# --- loaders -------------------------------------------------------------------------------------------------------


class Volumes(torch.utils.data.Dataset):
    """Images and labels of different sizes."""

    def __len__(self):
        return 6

    def __getitem__(self, i):
        shape = (8 + i, 9, 10 + 2 * i)
        return {"image": volume(1, *shape, seed=i), "seg": (volume(1, *shape, seed=i) > 0).to(torch.uint8), "id": i}


@pytest.mark.parametrize("context", [None, "fork", "spawn"])
def test_a_loader_brings_volumes_onto_one_grid(context):
    collate = grt.ResampleCollate((8, 8, 8), labels=["seg"])
    workers = {} if context is None else {"num_workers": 2, "multiprocessing_context": context}
    loader = torch.utils.data.DataLoader(Volumes(), batch_size=3, collate_fn=collate, **workers)
    batches = list(loader)
    assert [b["id"].tolist() for b in batches] == [[0, 1, 2], [3, 4, 5]]
    for batch in batches:
        assert batch["image"].shape == batch["seg"].shape == (3, 1, 8, 8, 8)
        assert batch["seg"].dtype == torch.uint8
        for image, seg, i in zip(batch["image"], batch["seg"], batch["id"].tolist(), strict=True):
            sample = Volumes()[i]
            one = {"size": (8, 8, 8), "anchor": "edge"}
            assert torch.equal(image, grt.resample(sample["image"], interpolation="linear", **one))
            assert torch.equal(seg, grt.resample(sample["seg"], interpolation="nearest", **one))


def test_collate_takes_tuples_tensors_and_half_types():
    pair = namedtuple("pair", "image label")
    collate = grt.ResampleCollate((4, 5, 6), labels=[1])
    batch = [pair(volume(2, 5 + i, 6, 7).half(), torch.full((1, 5 + i, 6, 7), i)) for i in range(2)]
    out = collate(batch)
    assert isinstance(out, pair)
    assert out.image.shape == (2, 2, 4, 5, 6)
    assert out.image.dtype == torch.float16
    assert [v.unique().tolist() for v in out.label] == [[0], [1]]
    assert torch.equal(collate([b.image for b in batch]), out.image)
    assert grt.ResampleCollate((4, 5), spatial_dims=2)([volume(1, 6, 7), volume(1, 8, 5)]).shape == (2, 1, 4, 5)


def test_collate_refuses_what_does_not_go_together():
    with pytest.raises(ValueError, match=r"volumes of a batch must have the same channels and type"):
        grt.ResampleCollate((4, 4, 4))([volume(1, 5, 5, 5), volume(2, 5, 5, 5)])
    with pytest.raises(ValueError, match=r"size must have 3 values"):
        grt.ResampleCollate((4, 4))
    with pytest.raises(TypeError, match=r"labels must be a sequence of keys or positions, got 'seg'"):
        grt.ResampleCollate((4, 4, 4), labels="seg")


# --- CUDA tensors ----------------------------------------------------------------------------------------------------


@pytest.fixture
def as_if_on_a_gpu(monkeypatch):
    """The path of CUDA tensors on CPU memory: the CUDA engine's launches, its kernels run on the CPU."""
    from contextlib import nullcontext

    from gpuresample.engines.cuda.host import HostRuntime

    engine = CudaEngine(HostRuntime())
    devices = []

    def device_engine(device):
        devices.append(device)
        return engine, lambda t: t.numpy(), nullcontext()

    monkeypatch.setattr(tensors, "device_engine", device_engine)
    return tensors._run_on_gpu, engine


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int16, torch.bool])
def test_cuda_tensors_go_to_the_cuda_engine(as_if_on_a_gpu, dtype):
    run, engine = as_if_on_a_gpu
    x = volume(2, 5, 6, 7).gt(0) if dtype == torch.bool else volume(2, 5, 6, 7).to(dtype)
    plan = grt._plan(grt._recipe("resample", 3, None, {"size": (4, 7, 8)}), (5, 6, 7), dtype)
    out = torch.empty((2, 4, 7, 8), dtype=dtype)
    run(plan, x, out)
    assert engine.runtime.launches.total() > 0
    expected = grt.resample(x, size=(4, 7, 8))
    assert (out.double() - expected.double()).abs().max() <= 1e-6 * float(x.double().max() - x.double().min()) + (
        1 if dtype == torch.int16 else 0
    )


def test_labels_on_cuda_take_their_new_type_first(as_if_on_a_gpu):
    run, _ = as_if_on_a_gpu
    x = torch.arange(-20, 40, dtype=torch.int16).reshape(3, 4, 5) * 10
    recipe = grt._recipe("resample", 3, "torch.uint8", {"size": (6, 8, 5), "interpolation": "nearest"})
    plan = grt._plan(recipe, (3, 4, 5), torch.int16)
    out = torch.empty((6, 8, 5), dtype=torch.uint8)
    run(plan, x, out)
    assert torch.equal(out, grt.resample(x, size=(6, 8, 5), interpolation="nearest", dtype=torch.uint8))


def test_a_cuda_tensor_without_cupy_says_what_is_missing():
    if pytest.importorskip("importlib.util").find_spec("cupy") is not None:
        pytest.skip("CuPy is installed")
    with pytest.raises(RuntimeError, match=r"image is on cuda:0, but CuPy cannot be imported .* image\.cpu\(\)"):
        tensors.device_engine(torch.device("cuda", 0))


def test_launches_go_to_torchs_current_stream_and_device(monkeypatch):
    from contextlib import contextmanager
    from types import SimpleNamespace

    entered = []

    def block(name):
        @contextmanager
        def enter(*arguments):
            entered.append((name, *arguments))
            yield
            entered.append(name)

        return enter

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=4711))
    monkeypatch.setattr(torch.cuda, "device", block("torch"))
    device = torch.device("cuda", 1)
    old = SimpleNamespace(Device=block("cupy"), Stream=object, ExternalStream=block("stream"))
    with tensors._in_torchs_stream(SimpleNamespace(cuda=old), device):
        assert entered == [("torch", device), ("cupy", 1), ("stream", 4711, 1)]
    assert entered[3:] == ["stream", "cupy", "torch"]
    entered.clear()
    adopt = SimpleNamespace(from_external=lambda stream: block("adopted")(stream.__cuda_stream__()))
    with tensors._in_torchs_stream(SimpleNamespace(cuda=SimpleNamespace(Device=block("cupy"), Stream=adopt)), device):
        assert entered == [("torch", device), ("cupy", 1), ("adopted", (0, 4711))]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: CUDA tensors are tested on the kernels' host build")
def test_on_a_gpu():
    x = volume(1, 2, 20, 30, 40).cuda().requires_grad_()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        out = grt.resample(x, size=(25, 31, 37))
        (gradient,) = torch.autograd.grad(out.sum(), x)
    stream.synchronize()
    y = x.detach().cpu().requires_grad_()
    expected = grt.resample(y, size=(25, 31, 37))
    (back,) = torch.autograd.grad(expected.sum(), y)
    torch.testing.assert_close(out.cpu(), expected, rtol=1e-5, atol=1e-2)
    torch.testing.assert_close(gradient.cpu(), back, rtol=1e-5, atol=1e-5)


# --- derivatives in forward mode -------------------------------------------------------------------------------------

# Of torch itself, which compiles something of its own for them.
OWN_WARNING = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
FORWARD = {
    "linear": lambda v: grt.resample(v, size=(4, 3, 5), interpolation="linear"),
    "bspline": lambda v: grt.resample(v, spacing=0.8, boundary="mirror"),
    "outside": lambda v: grt.resample(v, spacing=1.7, anchor="center", interpolation="bspline2", default_value=9.0),
    "gaussian": lambda v: grt.gaussian(v, 1.3),
    "downsample": lambda v: grt.downsample(v, 2),
}


@OWN_WARNING
@pytest.mark.parametrize("job", FORWARD)
def test_derivatives_in_forward_mode_are_the_linear_map(job):
    """They were zero, and nobody was told: torch drops tangents at operators of others."""
    x, t = volume(4, 5, 6, dtype=torch.float64), volume(4, 5, 6, dtype=torch.float64, seed=1)
    function = FORWARD[job]
    out, tangent = torch.func.jvp(function, (x,), (t,))
    expected = function(x + t) - function(x)
    torch.testing.assert_close(out, function(x))
    torch.testing.assert_close(tangent, expected, atol=1e-9 * 1000, rtol=0)
    assert tangent.abs().max() > 1
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, t)
        again = torch.autograd.forward_ad.unpack_dual(function(dual)).tangent
    torch.testing.assert_close(again, tangent, atol=0, rtol=0)


@OWN_WARNING
def test_jacobians_of_both_modes_agree():
    x = volume(3, 4, dtype=torch.float64)

    def function(v):
        return grt.resample(v, size=(2, 5), interpolation="bspline")

    # Backward by autograd: torch.func's own backward takes no operators of others.
    forward, backward = torch.func.jacfwd(function)(x), torch.autograd.functional.jacobian(function, x)
    assert forward.shape == (2, 5, 3, 4)
    torch.testing.assert_close(forward, backward, atol=1e-10, rtol=0)


@OWN_WARNING
def test_forward_mode_within_forward_mode_is_refused_not_zero():
    x, t = torch.rand(4, 5, 6), torch.ones(4, 5, 6)
    cube = lambda v: grt.gaussian(v, 1.0) ** 3  # noqa: E731
    moved = lambda v: grt.resample(v, size=(4, 5, 6), transform=np.eye(4))  # noqa: E731
    for f in (cube, moved):
        with pytest.raises(RuntimeError, match="no forward-mode derivative"):
            torch.func.jvp(lambda a, f=f: torch.func.jvp(f, (a,), (t,))[1], (x,), (t,))
        # The image has a tangent of the outer level alone.
        with pytest.raises(RuntimeError, match="no forward-mode derivative"):
            torch.func.jvp(lambda a, f=f: torch.func.jvp(lambda b: f(a) * b, (t,), (t,))[1], (x,), (t,))
    with pytest.raises(RuntimeError, match="no forward-mode derivative of a forward-mode derivative"):
        torch.func.jacfwd(torch.func.jacfwd(cube))(x[:2, :2, :2])


def test_votes_and_integers_have_no_derivative_in_forward_mode():
    x, t = volume(4, 5, 6), volume(4, 5, 6, seed=1)
    with pytest.raises(ValueError, match="is a vote among labels and has no gradient"):
        torch.func.jvp(lambda v: grt.resample(v, size=(2, 3, 4), interpolation="label_linear"), (x,), (t,))
    with pytest.raises(TypeError, match="must have floats, and so must the result"):
        torch.func.jvp(lambda v: grt.resample(v, size=(2, 3, 4), dtype=torch.int16), (x,), (t,))


# --- clip and ignore ------------------------------------------------------------------------------------------------

BOUNDS = [
    {"clip": True}, {"clip": (20, 90), "scale": 0.5, "offset": 3}, {"ignore": 33}, {"ignore": 33, "clip": True},
    {"ignore": 0, "clip": (5, 50)},
]  # fmt: skip
WHERE = [{"size": (7, 15, 9)}, {"spacing": 0.6}, {"transform": [[1, 0.1, 0, 1], [-0.1, 1, 0, 0], [0, 0.2, 1, -2]]}]


@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
@pytest.mark.parametrize("where", WHERE, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int16, torch.uint8])
def test_clip_and_ignore_are_gr_resamples(bounds, where, dtype):
    image = torch.from_numpy(noise((2, 3, 9, 10, 11), "uint8") % 100).to(dtype)
    image[0, :, :4, 5:] = 33
    for interpolation in ("linear", "bspline"):
        got = grt.resample(image, interpolation=interpolation, default_value=7, **where, **bounds)
        expected = gr.resample(image.numpy(), interpolation=interpolation, default_value=7, **where, **bounds)
        assert got.dtype == dtype
        np.testing.assert_array_equal(got.numpy(), expected)
    module = grt.Resample(**where, **bounds)
    np.testing.assert_array_equal(module(image).numpy(), gr.resample(image.numpy(), **where, **bounds))


@pytest.mark.parametrize("value", [float("nan"), -2.0])
def test_no_data_in_half_precision_and_in_pictures(value):
    image = torch.from_numpy(noise((2, 12, 13), "uint8").astype(np.float32)).to(torch.bfloat16)
    image[:, 3:6, 2:9] = value
    got = grt.resample(image, size=(20, 21), interpolation="linear", ignore=value, clip=True, spatial_dims=2)
    alone = [
        gr.resample(one.float().numpy(), size=(20, 21), interpolation="linear", ignore=value, clip=True)
        for one in image
    ]
    np.testing.assert_array_equal(
        got.float().numpy(), torch.from_numpy(np.stack(alone)).to(torch.bfloat16).float().numpy()
    )


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("bounds", [{"scale": 2}, {"ignore": 0.0}, {"clip": (0, 1)}], ids=str)
@pytest.mark.parametrize("where", [{"size": (5, 6, 7)}, {"transform": np.eye(3, 4) * 1.1}], ids=["size", "transform"])
def test_bounds_have_no_gradient_and_say_so(bounds, where):
    image = torch.rand(4, 5, 6, requires_grad=True)
    with pytest.raises(ValueError, match="clip, scale, offset and ignore have no gradient"):
        grt.resample(image, interpolation="linear", **where, **bounds)
    with torch.no_grad():
        assert not grt.resample(image, interpolation="linear", **where, **bounds).requires_grad
    if "size" in where:
        with pytest.raises(ValueError, match="clip, scale, offset and ignore have no gradient"):
            torch.func.jvp(lambda v: grt.resample(v, **where, **bounds), (image.detach(),), (torch.ones(4, 5, 6),))


def test_bad_bounds_are_refused():
    for bounds, message in (
        ({"clip": (2, 1)}, "low <= high"),
        ({"clip": "yes"}, "clip must"),
        ({"ignore": "x"}, "ignore must"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            grt.resample(torch.zeros(4, 5, 6), size=(3, 3, 3), **bounds)


def test_a_border_of_endless_constants_is_refused():
    with pytest.raises(ValueError, match=r"boundary must be one of .*'grid-wrap', got 'grid-constant'"):
        grt.resample(torch.zeros(4, 5, 6), size=(3, 3, 3), boundary="grid-constant")


def test_small_tensors_are_refused_what_large_ones_are():
    """What is run without the checks of `Plan.run` is what they would have let pass."""
    plan = gr.plan(np.zeros((6, 6, 6), np.float32), spacing=0.9, size=(6, 6, 6), interpolation="linear", device="cpu")
    memory = torch.rand(12, 6, 6)
    for out in (memory[:6], memory[3:9], torch.zeros(1, 6, 6).expand(6, 6, 6), torch.zeros(1, 6, 6, 6)):
        with pytest.raises(ValueError, match="out must"):
            tensors.run_plan(plan, memory[:6], torch.float32, out)
    with pytest.raises(ValueError, match="image must not be empty"):
        tensors.run_plan(plan, memory[:0].reshape(0, 6, 6, 6), torch.float32)
    out = torch.empty(6, 6, 6)
    assert tensors.run_plan(plan, memory[:6], torch.float32, out) is out
    assert torch.equal(out, tensors.run_plan(plan, memory[:6], torch.float32))

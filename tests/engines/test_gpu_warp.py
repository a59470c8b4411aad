"""Warps of torch tensors on a real GPU, against the CPU engine; see `test_gpu.py`."""

import numpy as np
import pytest
from cuda_support import VOXELS

pytestmark = pytest.mark.gpu

# Between engines, of the range.
ENGINES = 1e-6


@pytest.fixture
def grt(torch):
    import gpuresample.torch as grt

    return grt


def drawn(torch, *shape, seed=0, dtype="float32"):
    made = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return made.to(getattr(torch, dtype))


def parts(torch, volumes=2, channels=2, size=(14, 17, 40), dtype="float32"):
    """A volume and what moves it, out of it on all sides."""
    matrix = torch.eye(3, 4) + 0.05 * drawn(torch, volumes, 3, 4, seed=1)
    return {
        "volume": drawn(torch, volumes, channels, *size, dtype=dtype),
        "matrix": matrix.to(getattr(torch, dtype)),
        "displacement": 1.5 * drawn(torch, volumes, 3, *size, seed=2, dtype=dtype),
        "coefficients": drawn(torch, 1, 3, 4, 5, 6, seed=3, dtype=dtype),
    }


def with_gradients(torch, grt, given, device, **options):
    """A warp on a device and what all its inputs get back, on the CPU."""
    inputs = {name: t.detach().to(device).requires_grad_() for name, t in given.items()}
    out = grt.warp(**inputs, **options)
    assert out.device.type == device
    weights = drawn(torch, *out.shape, seed=9).to(out.dtype).to(device)
    found = torch.autograd.grad((out * weights).sum(), list(inputs.values()))
    assert all(g.device.type == device for g in found)
    return [t.detach().cpu() for t in (out, *found)]


@pytest.mark.parametrize("boundary", [None, "nearest", "reflect", "mirror", "constant"])
@pytest.mark.parametrize("interpolation", ["linear", "bspline", "bspline2", "lanczos"])
def test_warps_and_their_gradients_are_the_cpus(torch, grt, gpu, interpolation, boundary):
    given, options = parts(torch), {"interpolation": interpolation, "boundary": boundary, "default_value": 0.5}
    mine, right = (with_gradients(torch, grt, given, device, **options) for device in ("cuda", "cpu"))
    exact = {name: t.double() for name, t in given.items()}
    truth = with_gradients(torch, grt, exact, "cpu", **options)
    for name, a, b, c in zip(["out", *given], mine, right, truth, strict=True):
        # Both are off by float32; a kink of a linear sum on a sample belongs to one side or the other.
        bound = max(3 * float((b - c).abs().max()), 4 * ENGINES * float(c.abs().max()))
        assert float((a - b).abs().max()) <= bound, name
    mine = with_gradients(torch, grt, exact, "cuda", **options)
    for name, a, c in zip(["out", *given], mine, truth, strict=True):
        assert float((a - c).abs().max()) <= 1e-9 * float(c.abs().max()), name


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(torch, grt, gpu, dtype):
    given = parts(torch, dtype=dtype)
    mine, right = (with_gradients(torch, grt, given, device) for device in ("cuda", "cpu"))
    for a, b in zip(mine, right, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=2e-2, atol=2e-2 * float(b.abs().max()))


@pytest.mark.parametrize("dtype", [name for name in VOXELS if name[0] in "iu"])
def test_labels(torch, grt, gpu, dtype):
    given = parts(torch)
    volume = drawn(torch, 2, 2, 14, 17, 40).mul(3).abs().double().to(getattr(torch, dtype))
    mine = grt.warp(volume.cuda(), given["matrix"].cuda(), given["displacement"].cuda(), interpolation="nearest")
    right = grt.warp(volume, given["matrix"], given["displacement"], interpolation="nearest")
    assert mine.is_cuda
    assert mine.dtype == volume.dtype
    assert np.array_equal(mine.cpu().numpy(), right.numpy())


@pytest.mark.parametrize("interpolation", ["linear", "bspline"])
def test_the_same_bits_every_time(torch, grt, gpu, interpolation):
    given = parts(torch, volumes=1, size=(60, 70, 80))
    seen = {
        tuple(t.numpy().tobytes() for t in with_gradients(torch, grt, given, "cuda", interpolation=interpolation))
        for _ in range(20)
    }
    assert len(seen) == 1


@pytest.mark.parametrize("interpolation", ["linear", "bspline"])
def test_gradcheck(torch, grt, gpu, interpolation):
    size = (3, 4, 4)
    given = parts(torch, volumes=1, channels=1, size=size, dtype="float64")
    inputs = [given[name].cuda().requires_grad_() for name in ("volume", "matrix", "displacement")]

    def warp(*inputs):
        return grt.warp(*inputs, interpolation=interpolation, boundary="mirror", default_value=0.5)

    assert torch.autograd.gradcheck(warp, inputs, atol=1e-5, rtol=1e-4)
    assert torch.autograd.gradgradcheck(warp, inputs, atol=1e-4, rtol=1e-3, fast_mode=True)


def test_resample_along_a_transform(torch, grt, gpu):
    volume, matrix = drawn(torch, 2, 14, 17, 40), np.eye(3, 4) + 0.03 * drawn(torch, 3, 4, seed=1).numpy()
    found = []
    for device in ("cuda", "cpu"):
        x = volume.to(device).requires_grad_()
        out = grt.resample(x, transform=matrix, interpolation="linear")
        (back,) = torch.autograd.grad(out.square().sum(), x)
        assert out.device.type == back.device.type == device
        found.append((out.detach().cpu(), back.cpu()))
    for a, b in zip(*found, strict=True):
        assert float((a - b).abs().max()) <= 4 * ENGINES * float(b.abs().max())


def test_a_module_trains(torch, grt, gpu):
    """A few steps of gradient descent on a displacement, all on the GPU."""
    axes = [torch.linspace(-1, 1, n, device="cuda") for n in (24, 26, 28)]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    fixed, moving = (torch.exp(-4 * (z**2 + (y - s) ** 2 + x**2))[None, None] for s in (0.15, 0.0))
    layer, flow = grt.SpatialTransformer(boundary="nearest"), torch.zeros(1, 3, 24, 26, 28, device="cuda")
    flow.requires_grad_()
    optimiser, losses = torch.optim.Adam([flow], lr=0.1), []
    for _ in range(30):
        optimiser.zero_grad()
        loss = (layer(moving, flow) - fixed).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0]


def test_a_warp_runs_in_torchs_stream_and_a_field_waits_for_nothing(torch, grt, gpu):
    given = {
        name: t.cuda() for name, t in parts(torch, size=(40, 40, 40)).items() if name in ("volume", "displacement")
    }
    from gpuresample import tensors

    expected = grt.warp(**given)
    busy = gpu.RawKernel(
        'extern "C" __global__ void busy(long long n) { long long s = clock64(); while (clock64() - s < n) {} }', "busy"
    )
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        with tensors._adopted(gpu, stream.cuda_stream, 0):
            busy((1,), (1,), (np.int64(1_000_000_000),))
        out = grt.warp(**given)
        assert not stream.query(), "the call waited for the stream"
    stream.synchronize()
    assert torch.equal(out, expected)


def test_devices_that_do_not_go_together_are_refused(torch, grt, gpu):
    given = parts(torch)
    for name in ("matrix", "displacement", "coefficients"):
        with pytest.raises(ValueError, match=f"{name} must be on the volume's device cuda:0, got cpu"):
            grt.warp(given["volume"].cuda(), **{name: given[name]})
    grt.warp(given["volume"].cuda(), given["matrix"].cuda())


def test_compiled_without_a_break(torch, grt, gpu):
    given = parts(torch)
    volume, field = (given[name].cuda().requires_grad_() for name in ("volume", "displacement"))

    def function(volume, field):
        return grt.warp(volume * 2, displacement=field).square().sum()

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    found, expected = (torch.autograd.grad(f(volume, field), (volume, field)) for f in (compiled, function))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)

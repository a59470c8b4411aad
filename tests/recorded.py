"""Recorded runs that were never run: the form of benchmark.json, with figures from a formula."""

import math

import numpy as np

MACHINE = {
    "cpu": "Made-up CPU @ 3.00GHz",
    "cores": 2,
    "threads": 2,
    "load_before": 0.4,
    "system": "Linux x86_64",
    "python": "3.12.4",
    "versions": {"gpuresample": "0.1.0", "numpy": "2.3.1", "numba": "0.62.1", "SimpleITK": "2.5.7", "torch": "2.13.0"},
    "gpu": None,
}
LABELS = {
    "gpuresample": "gpuresample",
    "gpuresample-image": "gpuresample, SimpleITK.Image",
    "simpleitk": "SimpleITK",
    "scipy": "scipy",
    "volresample": "volresample",
    "torch": "torch interpolate",
    "torch-matmul": "torch, three dense matmuls",
    "monai": "MONAI Spacing",
    "torchio": "TorchIO Resample",
    "skimage": "scikit-image",
    "nnunet": "nnU-Net",
}
COPY = 9.0e9

# What, input and output shape, voxel types, and milliseconds of each peer.
CASES = {
    "ct-recipe-bspline": ("CT recipe, cubic B-spline, int16", (247, 512, 512), (124, 400, 400), ("int16", "int16"),
        {"gpuresample": 48.1, "gpuresample-image": 60.9, "simpleitk": 5400, "scipy": 9800, "volresample": 1160,
         "torch-matmul": 410, "monai": 2900, "torchio": 5700, "skimage": 10400, "nnunet": 9900}),
    "ct-recipe-linear": ("CT recipe, linear, int16", (247, 512, 512), (124, 400, 400), ("int16", "int16"),
        {"gpuresample": 17.6, "gpuresample-image": 29.8, "simpleitk": 121, "scipy": 1600, "volresample": 38.8,
         "torch": 63.9}),
    "ct-recipe-nearest": ("CT recipe, nearest, int16", (247, 512, 512), (124, 400, 400), ("int16", "int16"),
        {"gpuresample": 14.2, "gpuresample-image": 22.2, "simpleitk": 73.3, "scipy": 480, "volresample": 12.0}),
    "mr-isotropic-bspline": ("Brain MR, 1 mm to 0.7 mm, cubic B-spline, float32", (160, 256, 256), (229, 366, 366),
        ("float32", "float32"), {"gpuresample": 120, "gpuresample-image": 140, "simpleitk": 3900, "scipy": 8100,
        "monai": 5200}),
    "oblique-bspline": ("CT recipe, grid turned by 10 degrees, cubic B-spline", (247, 512, 512), (124, 400, 400),
        ("int16", "int16"), {"gpuresample": 586, "gpuresample-image": 583, "simpleitk": 5970}),
    "labels-nearest": ("Labels, uint8, nearest", (247, 512, 512), (124, 400, 400), ("uint8", "uint8"),
        {"gpuresample": 8.2, "gpuresample-image": 11.0, "simpleitk": 52, "volresample": 7.4}),
    "gaussian-sigma-1": ("Gaussian, sigma 1 mm, float32", (160, 256, 256), (160, 256, 256), ("float32", "float32"),
        {"gpuresample": 22, "gpuresample-image": 28, "simpleitk": 380, "scipy": 510, "skimage": 530}),
    "batch-32": ("32 patches of 64x64x64 to 48x48x48, linear, float32", (32, 64, 64, 64), (32, 48, 48, 48),
        ("float32", "float32"), {"gpuresample": 9.1, "simpleitk": 61, "torch": 14.0}),
}  # fmt: skip
TARGETS = {
    ("ct-recipe-bspline", "gpuresample"): ("simpleitk", 60.0),
    ("ct-recipe-linear", "gpuresample"): ("simpleitk", 6.0),
    ("ct-recipe-nearest", "gpuresample"): ("simpleitk", 6.0),
}
WRONG = {("ct-recipe-linear", "torch"), ("ct-recipe-bspline", "nnunet")}
UNCHECKED = {("batch-32", "torch"): "unchecked: no bound is stated for it"}


def benchmark(kind, case, what, peer, seconds, **more):
    """One entry of `benchmarks`."""
    info = {
        "kind": kind, "case": case, "what": what, "peer": peer, "label": LABELS[peer], "version": "1.2.3",
        "device": "cpu", "scope": "call", "input_shape": [64] * 3, "output_shape": [64] * 3, "input_dtype": "float32",
        "output_dtype": "float32", "voxels": 64**3, "bytes": 8 * 64**3, "copy_bandwidth": COPY, "check": "ok",
        "error": None, "peak_host": None, "peak_device": None, "threads": 2, "size": None, "ratio_to_simpleitk": None,
        "seconds": list(seconds), "target": None, **more,
    }  # fmt: skip
    tail = "-".join(str(v) for v in (kind, case, peer, info["device"], info["scope"], info["size"], info["threads"]))
    name = f"test_speed[{tail}]"
    data = sorted(seconds)
    stats = {"min": data[0], "max": data[-1], "median": float(np.median(data)), "rounds": len(data), "data": data}
    return {"name": name, "fullname": f"benchmarks/test_suite.py::{name}", "extra_info": info, "stats": stats}


def rounds(milliseconds, rng, n=7, noise=0.06):
    """Times as a shared machine gives them: never below the quiet one, sometimes far above."""
    return (milliseconds * 1e-3 * (1 + rng.exponential(noise, n))).tolist()


def of_case(name, rng):
    what, source, target, types, peers = CASES[name]
    sizes = [np.dtype(t).itemsize for t in types]
    moved = math.prod(source) * sizes[0] + math.prod(target) * sizes[1]
    for peer, milliseconds in peers.items():
        ours = peer.startswith("gpuresample")
        usual = "judge" if peer == "simpleitk" else "ok"
        check = "WRONG" if (name, peer) in WRONG else UNCHECKED.get((name, peer), usual)
        base = {"linear": 2e-8, "nearest": 0.0}.get(name.split("-")[-1], 9e-7 if ours else 3e-8)
        error = 0.04 if check == "WRONG" else base * (1 + rng.random())
        against, ratio = TARGETS.get((name, peer), (None, None))
        yield benchmark(
            "case", name, what, peer, rounds(milliseconds, rng), input_shape=list(source), output_shape=list(target),
            input_dtype=types[0], output_dtype=types[1], voxels=math.prod(target), bytes=moved, check=check,
            error=error, peak_host=int(moved * (0.3 if ours else 3.3)),
            target={"against": against, "ratio": ratio} if against else None,
        )  # fmt: skip


def of_gpu(rng):
    """Rows of a GPU, for the same case as the CPU's."""
    what, source, target, types, _ = CASES["ct-recipe-bspline"]
    for scope, milliseconds in (("kernel", 0.41), ("end-to-end", 8.7)):
        yield benchmark(
            "case", "ct-recipe-bspline", what, "gpuresample", rounds(milliseconds, rng), device="cuda:0", scope=scope,
            input_shape=list(source), output_shape=list(target), input_dtype=types[0], output_dtype=types[1],
            voxels=math.prod(target), bytes=169_000_000, copy_bandwidth=1.4e12, error=8e-7, peak_device=300_000_000,
        )  # fmt: skip


def scaling(rng):
    for n in (64, 128, 256, 512):
        for peer, rate in (("gpuresample", 420e6), ("simpleitk", 3.9e6), ("scipy", 2.2e6)):
            if n == 512 and peer == "scipy":
                continue
            taken = n**3 / rate * 1e3 + (0.4 if peer == "gpuresample" else 1.0)
            yield benchmark("size", "cubic B-spline", "Cubic B-spline, float32, n^3 to (0.8 n)^3", peer,
                            rounds(taken, rng, 5), size=n, voxels=n**3, bytes=8 * n**3)  # fmt: skip
    for threads in (1, 2):
        for peer, taken, gain in (("gpuresample", 92, 1.9), ("simpleitk", 10300, 1.85), ("scipy", 9800, 1.0)):
            yield benchmark("threads", "ct-recipe-bspline", "CT recipe, cubic B-spline, int16", peer,
                            rounds(taken / (gain if threads == 2 else 1), rng, 5), threads=threads)  # fmt: skip
    for case, taken in (("nothing compiled", 4500.0), ("in a new process", 375.0)):
        yield benchmark("cold", case, f"First call, {case}", "gpuresample", rounds(taken, rng, 3))
    yield benchmark("copy", "copy", "A copy of the CT's bytes", "gpuresample", rounds(18.8, rng), bytes=169_000_000)


def synthetic(gpu=False, seed=0):
    """A run as pytest-benchmark writes it."""
    rng = np.random.default_rng(seed)
    benchmarks = [b for name in CASES for b in of_case(name, rng)]
    benchmarks += [*scaling(rng), *(of_gpu(rng) if gpu else ())]
    machine = {**MACHINE, "gpu": "Made-up GPU"} if gpu else MACHINE
    return {
        "machine_info": {"node": "nowhere", "gpuresample": machine},
        "commit_info": {"id": "0123456789abcdef", "dirty": False},
        "benchmarks": benchmarks,
        "datetime": "2026-11-25T20:00:00.000000+00:00",
        "version": "5.1.0",
    }

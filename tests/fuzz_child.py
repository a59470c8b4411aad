"""Fuzzing in a process of its own, where a crash of native code is an exit code and a last case in a log.

    python fuzz_child.py layouts|headers EXAMPLES FOLDER

`FOLDER/case.txt` names the case that runs. For `test_fuzz.py`, and by hand with more examples than tests have time for.
"""

import contextlib
import hashlib
import io
import os
import signal
import sys
import warnings
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import flat, rotation

import gpuresample as gr

SECONDS = 120  # of one case: compiling is allowed, hanging is not
FOLDER = Path(sys.argv[3]) if len(sys.argv) > 3 else Path.cwd()


def profile(examples):
    return settings(
        max_examples=examples, derandomize=True, database=None, deadline=None, report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


@contextlib.contextmanager
def case(text):
    """What runs now, on disk before it runs; no longer than `SECONDS`."""
    (FOLDER / "case.txt").write_text(text)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)


# --------------------------------------------------------------------------------------- memory layouts, geometry

DTYPES = ("bool", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
LAYOUTS = (
    "C", "fortran", "strided", "strided", "strided", "big-endian", "memory-mapped", "read-only", "broadcast",
    "unaligned", "records",
)  # fmt: skip
FILL = 77  # around a strided array's voxels


@st.composite
def strides(draw, axes):
    """Order of the axes in memory; of each its step, backward ones too, and the voxels left out before and after."""
    order = draw(st.permutations(range(axes)))
    return tuple(order), [
        (draw(st.sampled_from([1, 1, 2, 3, -1, -2])), draw(st.integers(0, 2)), draw(st.integers(0, 2)))
        for _ in range(axes)
    ]


def strided(shape, dtype, memory):
    """A part of a larger array that has this shape, and the larger one, all `FILL`."""
    order, steps = memory
    spans = [before + (n - 1) * abs(step) + 1 + after for n, (step, before, after) in zip(shape, steps, strict=True)]
    whole = np.full([spans[axis] for axis in order], FILL).astype(dtype)
    view = whole.transpose(np.argsort(order))
    part = [slice(b, b + (n - 1) * abs(step) + 1, abs(step)) for n, (step, b, _) in zip(shape, steps, strict=True)]
    back = [slice(None, None, 1 if step > 0 else -1) for step, _, _ in steps]
    return view[tuple(part)][tuple(back)], whole


def laid_out(plain, layout, axis, memory, folder):
    """An array equal to `plain` in another layout of memory, and the buffer that holds it."""
    axis %= plain.ndim
    if layout == "fortran":
        view = np.asfortranarray(plain)
    elif layout == "strided":
        view, whole = strided(plain.shape, plain.dtype, memory)
        view[...] = plain
        return view, whole
    elif layout == "big-endian":
        view = plain.astype(plain.dtype.newbyteorder(">"))
    elif layout == "memory-mapped":
        plain.tofile(folder / "voxels.raw")
        view = np.memmap(folder / "voxels.raw", plain.dtype, mode="r", shape=plain.shape)
    elif layout == "read-only":
        view = plain.copy()
        view.setflags(write=False)
    elif layout == "broadcast":
        one = plain.take([0], axis=axis)
        return np.broadcast_to(one, plain.shape), one
    elif layout == "unaligned":
        buffer = np.zeros(plain.nbytes + 1, np.uint8)
        view = buffer[1:].view(plain.dtype).reshape(plain.shape)
        view[...] = plain
        return view, buffer
    elif layout == "records":
        table = np.zeros(plain.shape, [("before", "u1"), ("voxel", plain.dtype)])
        view = table["voxel"]
        view[...] = plain
        return view, table
    else:
        view = plain.copy()
    return view, view


DIRECTIONS = {
    "identity": np.eye(3),
    "flipped": np.diag([-1.0, 1.0, -1.0]),
    "permuted": np.array([[0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]]),
    "oblique": np.array(rotation(9, 13, -17)),
}
COPYING = ("nearest", "label_linear", "label_gaussian")
spacings = st.sampled_from([0.3, 0.78125, 1.0, 1.7, 5.0])
origins = st.sampled_from([0.0, -0.5, 12.25, -1000.0])


@st.composite
def jobs(draw):
    """One call and the image for it."""
    d = draw(st.sampled_from([3, 3, 3, 2]))
    shape = [draw(st.sampled_from([1, 2, 3, 5, 8, 13])) for _ in range(d)]
    if draw(st.integers(0, 5)) == 0 and d == 3:
        shape.insert(0, 2)
    call = draw(st.sampled_from(["resample", "resample", "resample", "gaussian", "shrink", "downsample", "pyramid"]))
    job = {
        "shape": tuple(shape), "dtype": draw(st.sampled_from(DTYPES)), "layout": draw(st.sampled_from(LAYOUTS)),
        "axis": draw(st.integers(0, 3)), "memory": draw(strides(len(shape))), "seed": draw(st.integers(0, 9)),
        "call": call,
        "spacing": tuple(draw(spacings) for _ in range(d)), "origin": tuple(draw(origins) for _ in range(d)),
        "direction": draw(st.sampled_from(list(DIRECTIONS))) if d == 3 else "identity",
        "bare": draw(st.booleans()),
    }  # fmt: skip
    if call == "resample":
        # Kernels are compiled for every pair of types: those that gather for a few only.
        few = job["dtype"] in ("u1", "i2", "f4")
        names = ["nearest", "linear", "bspline", "lanczos", "gaussian", *(["label_linear"] if few else [])]
        job["interpolation"] = draw(st.sampled_from(names))
        job["onto"] = draw(st.sampled_from(["spacing", "size", "edge", "like"]))
        directions = [k for k in DIRECTIONS if few or k != "oblique"] if d == 3 else ["identity"]
        job["target"] = draw(st.sampled_from(directions))
        job["new"] = tuple(draw(st.sampled_from([0.5, 0.9, 1.0, 2.3])) for _ in range(d))
    elif call == "gaussian":
        job["sigma"] = draw(st.sampled_from([0.0, 0.4, 1.0, 2.5]))
    else:
        job["factor"] = draw(st.sampled_from([1, 2, 3]))
    if call != "pyramid" and draw(st.booleans()):
        job["out"] = draw(strides(len(shape)))
    if draw(st.integers(0, 7)) == 0:
        job["wrong"] = draw(st.sampled_from(["spacing", "nan spacing", "factor", "direction", "empty", "complex"]))
    return job


def asked(job, array, out=None):
    """What the job's call gives for an array: a list of arrays, or the error's type and text."""
    into = {"device": "cpu"} if out is None else {"device": "cpu", "out": out}
    d = len(job["spacing"])
    wrong = job.get("wrong")
    spacing = list(job["spacing"])
    if wrong in ("spacing", "nan spacing"):
        spacing[0] = 0.0 if wrong == "spacing" else float("nan")
    if wrong == "empty":
        array = array[..., :0]
    if wrong == "complex":
        array = array.astype(np.complex64)
    direction = DIRECTIONS[job["direction"]][:d, :d] * (1.5 if wrong == "direction" else 1.0)
    try:
        bare = job["bare"] and wrong not in ("spacing", "nan spacing", "direction")
        image = array if bare else gr.Volume(array, spacing, job["origin"], flat(direction.tolist()))
        match job["call"]:
            case "resample":
                result = gr.resample(image, interpolation=job["interpolation"], **onto(job, bare), **into)
            case "gaussian":
                result = gr.gaussian(image, sigma=job["sigma"], **into)
            case "pyramid":
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of axes too short to shrink
                    result = gr.pyramid(image, levels=2, factors=job["factor"] + 1, device="cpu")
            case name:
                factors = 0 if wrong == "factor" else job["factor"]
                result = getattr(gr, name)(image, factors, **into)
    except (ValueError, TypeError) as error:
        return type(error).__name__, str(error)
    results = result if isinstance(result, list) else [result]
    # A pyramid's first level is the image itself, bytes in its own order.
    results = results[1:] if job["call"] == "pyramid" else results
    return [r.array if isinstance(r, gr.Volume) else r for r in results]


def onto(job, bare):
    d = len(job["spacing"])
    size = tuple(max(1, round(n * f)) for n, f in zip(job["shape"][-d:], job["new"], strict=True))
    new = tuple(s * f for s, f in zip(job["spacing"], job["new"], strict=True))
    if job["onto"] == "like" and not bare:
        return {"like": gr.Grid(size[::-1], new, job["origin"], flat(DIRECTIONS[job["target"]][:d, :d].tolist()))}
    if job["onto"] in ("size", "edge"):
        return {"size": size if bare else size[::-1], "anchor": "edge" if job["onto"] == "edge" else "first"}
    return {"spacing": new, "input_spacing": job["spacing"]} if bare else {"spacing": new}


def voxels(job):
    rng = np.random.default_rng(job["seed"])
    dtype = np.dtype(job["dtype"])
    if dtype.kind == "f":
        return (100 * rng.standard_normal(job["shape"])).astype(dtype)
    if dtype == np.bool_:
        return rng.random(job["shape"]) < 0.5
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, job["shape"], dtype=dtype, endpoint=True)


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).view(np.uint8)).hexdigest()


def layouts(examples):
    @profile(examples)
    @given(jobs())
    def run(job):
        with case(repr(job)), np.errstate(all="ignore"):
            plain = voxels(job)
            view, buffer = laid_out(plain, job["layout"], job["axis"], job["memory"], FOLDER)
            same = np.array(view, dtype=view.dtype.newbyteorder("="), order="C")
            before, kept = digest(buffer), digest(same)
            got, wanted = asked(job, view), asked(job, same)
            assert digest(buffer) == before, f"{job}: the input was changed"
            assert digest(same) == kept, f"{job}: the plain input was changed"
            if isinstance(wanted, tuple):
                assert isinstance(got, tuple), f"{job}: {wanted} for a plain copy, but an answer for the view"
                assert got[0] == wanted[0], f"{job}: {got} is not {wanted}"
                assert got[1].strip(), f"{job}: an error that says nothing"
                assert "wrong" in job, f"{job}: {got}"
                return
            assert isinstance(got, list), f"{job}: {got}, but an answer for a plain copy"
            for a, b in zip(got, wanted, strict=True):
                assert (a.dtype, a.shape) == (b.dtype, b.shape), f"{job}: {a.dtype}{a.shape} is not {b.dtype}{b.shape}"
                assert a.tobytes() == b.tobytes(), f"{job}: other bits than for a plain copy"
            if "out" in job:
                filled(job, view, wanted[0])

    run()


def filled(job, array, wanted):
    """The same call into a given array: the same bits there, and nothing around them."""
    out, whole = strided(wanted.shape, wanted.dtype, job["out"])
    (got,) = asked(job, array, out)
    assert np.shares_memory(got, out), f"{job}: out was not used"
    assert out.tobytes() == wanted.tobytes(), f"{job}: other bits in out"
    out[...] = np.array(FILL).astype(out.dtype)
    around = np.full(whole.shape, FILL).astype(whole.dtype)
    assert whole.tobytes() == around.tobytes(), f"{job}: memory around out was written"


# ------------------------------------------------------------------------------------------------- damaged files

BASES = ("a.nii", "a.nii.gz", "a.nrrd", "a.mha")
# Where NIfTI-1 keeps what a reader builds on: dim, datatype, bitpix, pixdim, vox_offset, slopes, codes, affine.
NIFTI_FIELDS = (0, 40, 42, 44, 46, 48, 56, 70, 72, 76, 80, 84, 88, 108, 112, 116, 123, 252, 254, 256, 280, 296, 344)


def made(name):
    """A small valid volume in a file, and its bytes."""
    import SimpleITK as sitk

    values = np.random.default_rng(0).integers(0, 1000, (4, 5, 6)).astype(np.int16)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((0.8, 0.9, 1.5))
    image.SetOrigin((3.0, -4.0, 5.0))
    path = FOLDER / name
    sitk.WriteImage(image, str(path), useCompression=name.endswith((".gz", ".mha")))
    content = path.read_bytes()
    path.unlink()
    return content


@st.composite
def damages(draw):
    """A file's name and what is done to its bytes: (kind, position, value) in turn."""
    name = draw(st.sampled_from(BASES + BASES[:2]))
    kinds = ["flip", "flip", "cut", "field", "number", "inside"]
    steps = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=3))
    return name, [
        (kind, draw(st.integers(0, 10_000)), draw(st.sampled_from([0, 1, 2, 127, 128, 255, 4096, -1, 32767, -32768])))
        for kind in steps
    ]


NUMBERS = (b"nan", b"inf", b"0", b"-1", b"2147483648", b"1e300", b"", b"99999999999999999999", b"x")


def damaged(name, content, steps):
    import gzip
    import re
    import struct

    zipped = name.endswith(".gz")
    # What lies inside the gzip stream can only be changed while the stream is whole: first.
    for kind, position, value in sorted(steps, key=lambda step: step[0] not in ("field", "number")):
        inner = bytearray(gzip.decompress(content) if zipped and kind in ("field", "number") else content)
        if not inner:
            return b""
        at = position % len(inner)
        if kind == "flip":
            inner[position % min(len(inner), 352)] ^= value & 0xFF or 1
        elif kind == "inside":
            inner[at] ^= value & 0xFF or 1
        elif kind == "cut":
            inner = inner[:at]
        elif name.startswith("a.nii"):
            field = NIFTI_FIELDS[position % len(NIFTI_FIELDS)]
            wide = field in (0, 76, 80, 84, 88, 108, 112, 116, 256, 280, 296, 344)
            numbers = (np.nan, np.inf, 0.0, -1.0, 2.0**31, 1e30, 1e-30)
            text = struct.pack("<f", numbers[value % len(numbers)]) if wide else struct.pack("<h", value)
            if len(inner) >= field + len(text):
                inner[field : field + len(text)] = text
        else:
            found = list(re.finditer(rb"(?<=[ (,])-?\d[\d.]*", bytes(inner[:400])))
            if found:
                spot = found[position % len(found)]
                inner[spot.start() : spot.end()] = NUMBERS[value % len(NUMBERS)]
        content = gzip.compress(bytes(inner)) if zipped and kind in ("field", "number") else bytes(inner)
    return content


def command(*arguments):
    """Exit code, standard output and standard error of the command line, in this process."""
    from gpuresample.cli import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(a) for a in arguments])
    return code, out.getvalue(), err.getvalue()


def check_command(what, output, *arguments):
    code, _, err = command(*arguments)
    lines = err.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert code in (0, 1, 2), f"{what}: exit code {code}: {err}"
    assert all(line.startswith(("error: ", "warning: ")) for line in lines), f"{what}: {err}"
    assert len(errors) == (code != 0), f"{what}: exit code {code} with {err!r}"
    assert "unexpected" not in err, f"{what}: {err}"
    if output is not None:
        assert output.exists() == (code == 0), f"{what}: exit code {code}, output there: {output.exists()}"
        output.unlink(missing_ok=True)
    return code


def headers(examples):
    import resource

    from gpuresample.files import volumes as files

    for name in BASES:
        (FOLDER / name).write_bytes(made(name))
        assert check_command(name, None, "info", FOLDER / name) == 0
        target = FOLDER / "out.nii.gz"
        assert check_command(name, target, "resample", FOLDER / name, target, "--spacing", "1.3") == 0
    contents = {name: (FOLDER / name).read_bytes() for name in BASES}
    room = 4 << 30
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + room, used + room))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @profile(examples)
    @given(damages())
    def run(damage):
        name, steps = damage
        with case(repr(damage)):
            path, target = FOLDER / name, FOLDER / "out.nii.gz"
            path.write_bytes(damaged(name, contents[name], steps))
            with contextlib.suppress(OSError, ValueError):
                files.read(path)
            check_command(damage, None, "info", path)
            check_command(damage, target, "resample", path, target, "--spacing", "1.3")
            left = sorted(p.name for p in FOLDER.iterdir() if p.name not in (*BASES, "case.txt"))
            assert left == [], f"{damage}: left behind: {left}"
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024
            assert grown < 300, f"{damage}: memory grew by {grown:.0f} MB"

    run()


if __name__ == "__main__":
    os.environ.setdefault("GPURESAMPLE_NUM_THREADS", "2")
    {"layouts": layouts, "headers": headers}[sys.argv[1]](int(sys.argv[2]))
    sys.stdout.write("done\n")

"""What goes in comes out: arrays of other libraries, on the CPU and on a (stand-in for a) GPU, and nibabel images."""

import subprocess
import sys
import types

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from fake_cupy import Array, Foreign, Stream, Tensor, library
from support import assert_close, labels, noise, rotation, same_bits

import gpuresample as gr
from gpuresample.engines.cuda import engine as cuda
from gpuresample.engines.cuda import runtime

SRC = noise((9, 14, 21), "int16")
SIZE = (7, 17, 15)
INTERPOLATIONS = ["nearest", "linear", "bspline", "label_linear"]


@pytest.fixture
def cupy(cupy, monkeypatch):
    """A machine with two "GPUs", and a library of tensors."""
    monkeypatch.setitem(sys.modules, "tensors", library())
    return cupy


class Stubborn(np.ndarray):
    """An array of somebody's own class, whose methods are not NumPy's."""

    def reshape(self, *shape, **options):
        raise RuntimeError

    def __getitem__(self, index):
        raise RuntimeError


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("dtype", ["float32", "uint8", "int8", "complex64"])
@pytest.mark.parametrize("options", [{"size": (5, 6)}, {"transform": np.eye(2, 3) + 0.1}], ids=["axes", "turned"])
@pytest.mark.parametrize("kind", [np.matrix, Stubborn, np.recarray])
def test_arrays_of_other_classes_are_their_memory(kind, options, dtype):
    """A matrix has two axes whatever view is asked of it: kernels would read beyond it."""
    plain = noise((9, 11), "uint8").astype(dtype)
    expected = gr.resample(plain, **options)
    for _ in range(3):  # the first ones make ready what the next ones run
        assert same_bits(gr.resample(plain.view(kind), **options), expected)
    out = np.zeros_like(expected)
    assert type(gr.resample(plain, **options, out=out.view(kind))) is kind
    assert same_bits(out, expected)


def test_complex_voxels_into_a_memory_map(tmp_path):
    src = noise((5, 6, 7)).astype(np.complex64)
    out = np.memmap(tmp_path / "out", np.complex64, "w+", shape=(3, 4, 5))
    assert gr.resample(src, size=out.shape, out=out) is out
    assert same_bits(np.array(out), gr.resample(src, size=out.shape))
    assert same_bits(gr.resample(out, size=(2, 2, 2)), gr.resample(np.array(out), size=(2, 2, 2)))


def answer(src, **options):
    return gr.resample(src, size=SIZE, device="cpu", **options)


# --- DLPack in host memory -------------------------------------------------------------------------------------------


class HostTensor:
    """An array of a library that has DLPack and nothing else; `namespace` makes more."""

    def __init__(self, array, device=(1, 0)):
        self.array, self.device = array, device

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.device

    def __array_namespace__(self):
        return types.SimpleNamespace(from_dlpack=made)


def made(array):
    if array.dtype == np.uint64:
        raise TypeError("no such type here")
    return HostTensor(array)


class Lone(HostTensor):
    """One whose library makes no arrays from others'."""

    __array_namespace__ = property()


@pytest.mark.parametrize("dtype", ["int16", "uint8", "float32", "float16", "bool"])
def test_dlpack_objects_come_out_as_they_went_in(dtype):
    src = (SRC > 0) if dtype == "bool" else SRC.astype(dtype)
    out = gr.resample(HostTensor(src), size=SIZE)
    assert type(out) is HostTensor
    assert same_bits(out.array, answer(src))


def test_dlpack_objects_are_not_copied():
    src = SRC.copy()
    plan = gr.plan(HostTensor(src), size=SIZE)
    src[...] = 0
    assert (plan.run(HostTensor(src)).array == 0).all()


def test_libraries_without_from_dlpack_get_numpy_arrays():
    assert same_bits(gr.resample(Lone(SRC), size=SIZE), answer(SRC))


def test_out_of_a_dlpack_kind():
    target = np.zeros(SIZE, np.int16)
    out = HostTensor(target)
    assert gr.resample(HostTensor(SRC), size=SIZE, out=out) is out
    assert same_bits(target, answer(SRC))


@pytest.mark.parametrize(
    ("out", "error", "words"),
    [
        (lambda src: np.zeros(SIZE, np.int16), TypeError, "out must be a test_containers.HostTensor like the input"),
        (lambda src: HostTensor(np.zeros((2, 2, 2), np.int16)), ValueError, r"out must have shape \(7, 17, 15\)"),
        (lambda src: HostTensor(np.zeros(SIZE, np.int32)), TypeError, "out must have dtype int16"),
        (lambda src: HostTensor(src.ravel()[: 7 * 17 * 15].reshape(SIZE)), ValueError, "out must not share memory"),
    ],
)
def test_outs_that_do_not_fit(out, error, words):
    src = SRC.copy()
    with pytest.raises(error, match=words):
        gr.resample(HostTensor(src), size=SIZE, out=out(src))
    assert same_bits(src, SRC)


def test_what_dlpack_cannot_say_is_refused_by_name():
    class Broken(HostTensor):
        def __dlpack__(self, **options):
            raise BufferError("tensors that require gradient")

    with pytest.raises(TypeError, match="image cannot be read by DLPack: tensors that require gradient"):
        gr.resample(Broken(SRC), size=SIZE)
    with pytest.raises(TypeError, match="must be in host memory or on a CUDA GPU, got HostTensor on Metal"):
        gr.resample(HostTensor(SRC, (8, 0)), size=SIZE)
    with pytest.raises(TypeError, match=r"dtype must be a type that test_containers\.HostTensor has, got uint64"):
        gr.resample(HostTensor(SRC), size=SIZE, dtype="uint64")


def test_volumes_and_likes_of_any_library():
    volume = gr.Volume(HostTensor(SRC), (1, 2, 3))
    out = gr.resample(volume, spacing=(2, 2, 2))
    expected = gr.resample(gr.Volume(SRC, (1, 2, 3)), spacing=(2, 2, 2))
    assert type(out.array) is HostTensor
    assert same_bits(out.array.array, expected.array)
    assert out.grid == expected.grid
    like = types.SimpleNamespace(shape=SIZE, __dlpack__=None)
    assert same_bits(gr.resample(SRC, like=like), answer(SRC))


def test_pyramids_of_booleans_keep_their_kind():
    levels = gr.pyramid(HostTensor(SRC > 0), 2)
    assert levels[1].array.dtype == np.bool_
    assert same_bits(levels[1].array, gr.pyramid(SRC > 0, 2)[1])


def test_a_library_that_is_not_loaded_is_not_imported():
    code = (
        "import sys, numpy as np, gpuresample as gr\n"
        "gr.resample(np.zeros((4, 5, 6), np.float32), size=(3, 3, 3))\n"
        "print(sorted({'cupy', 'torch', 'nibabel', 'jax'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- on a GPU --------------------------------------------------------------------------------------------------------


@pytest.mark.kernels
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_cupy_arrays_stay_where_they_are(cupy, interpolation, device):
    src = labels(SRC.shape, "int16")
    out = gr.resample(cupy.asarray(src), size=SIZE, interpolation=interpolation, device=device)
    assert type(out) is Array
    assert cupy.calls["get"] == 0
    assert cupy.calls["synchronize"] == 0
    assert np.abs(np.asarray(out).astype(int) - answer(src, interpolation=interpolation)).max() <= 1
    assert cuda._engine().runtime.launches.total() > 0


@pytest.mark.kernels
def test_the_second_gpu_keeps_its_arrays(cupy):
    with cupy.cuda.Device(1):
        src = cupy.asarray(SRC)
    out = gr.resample(src, size=SIZE)
    assert out.device.id == 1
    assert cupy.current == 0
    assert gr.resample(src, size=SIZE, device="cuda:1").device.id == 1
    with pytest.raises(ValueError, match="device must be 'auto', 'cuda' or 'cuda:1' for an image on cuda:1"):
        gr.resample(src, size=SIZE, device="cuda:0")
    with pytest.raises(ValueError, match="images are not moved between devices"):
        gr.resample(src, size=SIZE, device="cpu")


@pytest.mark.kernels
@pytest.mark.parametrize("pair", ["float16 float16", "float16 int16", "float32 float16", "int32 float32"])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_no_type_falls_back_to_the_host(cupy, pair, interpolation):
    source, target = pair.split()
    src = (labels(SRC.shape, "int16") * 100).astype(source)
    out = gr.resample(cupy.asarray(src), size=SIZE, interpolation=interpolation, dtype=target)
    assert type(out) is Array
    assert cupy.calls["get"] == 0
    expected = answer(src, interpolation=interpolation, dtype=target)
    bound = 0 if interpolation in ("nearest", "label_linear") else 1
    assert_close(out, expected, bound)


@pytest.mark.kernels
def test_masks_and_block_means_on_the_device(cupy):
    mask = noise(SRC.shape) > 0
    assert same_bits(np.array(gr.resample(cupy.asarray(mask), size=SIZE)), answer(mask))
    for dtype in ("int16", "uint8", "float32"):
        src = noise(SRC.shape, dtype)
        assert same_bits(np.array(gr.bin_shrink(cupy.asarray(src), (2, 3, 2))), gr.bin_shrink(src, (2, 3, 2)))
    levels = gr.pyramid(cupy.asarray(mask), 2)
    assert same_bits(np.array(levels[1]), gr.pyramid(mask, 2)[1])
    assert cupy.calls["get"] == 0


@pytest.mark.kernels
def test_tensors_on_the_device_by_dlpack(cupy):
    src = Tensor(cupy.asarray(SRC))
    out = gr.resample(src, size=SIZE)
    assert type(out) is Tensor
    assert type(out.memory) is Array
    assert_close(out.memory, answer(SRC), 1)
    # Handed over once to be made, and once more when it was filled: the library's stream comes after ours.
    assert cupy.calls["handed over"] == 2
    target = Tensor(cupy.empty(SIZE, np.int16))
    assert gr.resample(src, size=SIZE, out=target) is target
    assert same_bits(np.array(target.memory), np.array(out.memory))
    assert cupy.calls["handed over"] == 3


@pytest.mark.kernels
def test_interface_objects_come_out_as_cupy_arrays(cupy):
    out = gr.resample(Foreign(cupy.asarray(SRC)), size=SIZE)
    assert type(out) is Array
    target = Foreign(cupy.empty(SIZE, np.int16))
    assert gr.resample(Foreign(cupy.asarray(SRC)), size=SIZE, out=target) is target
    assert same_bits(np.array(target.memory), np.array(out))
    masked = Foreign(cupy.asarray(SRC))
    masked.__cuda_array_interface__["mask"] = masked
    with pytest.raises(TypeError, match="masked array"):
        gr.resample(masked, size=SIZE)


@pytest.mark.kernels
def test_volumes_on_the_device(cupy):
    out = gr.resample(gr.Volume(cupy.asarray(SRC), (1, 2, 3)), spacing=(2, 2, 2))
    expected = gr.resample(gr.Volume(SRC, (1, 2, 3)), spacing=(2, 2, 2), device="cpu")
    assert type(out.array) is Array
    assert out.grid == expected.grid
    assert_close(out.array, expected.array, 1)


@pytest.mark.kernels
def test_outs_on_the_device_that_do_not_fit(cupy):
    src = cupy.asarray(noise((8, 8, 8)))
    shared = src.reshape(-1)[64:].reshape(7, 8, 8)
    with pytest.raises(ValueError, match="out must not share memory"):
        gr.resample(src, size=(7, 8, 8), out=shared)
    with (
        pytest.raises(ValueError, match="out must lie where the input does, on cuda:0, got cuda:1"),
        cupy.cuda.Device(1),
    ):
        gr.resample(src, size=(7, 8, 8), out=cupy.empty((7, 8, 8), np.float32))
    with pytest.raises(TypeError, match="out must be a"):
        gr.resample(src, size=(7, 8, 8), out=np.zeros((7, 8, 8), np.float32))


@pytest.mark.kernels
def test_scratch_comes_from_the_callers_allocator(cupy):
    asked = []

    def allocate(n):
        owner = np.full(n, 33, np.uint8)
        asked.append(n)
        return owner.__array_interface__["data"][0], owner

    expected = np.array(gr.resample(cupy.asarray(SRC), size=SIZE))
    before = cupy.calls["empty"]
    with runtime.scratch_from(allocate):
        out = gr.resample(cupy.asarray(SRC), size=SIZE)
    assert same_bits(np.array(out), expected)
    # The output, and what lies between three passes.
    assert asked[0] == expected.nbytes
    assert len(asked) == 3
    assert cupy.calls["empty"] == before
    gr.resample(cupy.asarray(SRC), size=SIZE)
    assert cupy.calls["empty"] == before + 3


def test_without_cupy_an_array_on_a_gpu_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    array = types.SimpleNamespace(shape=SIZE, __cuda_array_interface__={"shape": SIZE})
    with pytest.raises(RuntimeError, match=r"image is on a GPU, which is reached through CuPy: .* pip install"):
        gr.resample(array, size=SIZE)


# --- nibabel ----------------------------------------------------------------------------------------------------

AFFINE = np.eye(4)
AFFINE[:3, :3] = np.array(rotation(10, -20, 30)) * (0.75, 1.25, 2.5)
AFFINE[:3, 3] = (5.0, -7.0, 11.0)
SHEARED = np.eye(4)
SHEARED[0, 1] = 0.2


def nifti(array=SRC, affine=AFFINE, cls="Nifti1Image"):
    image = getattr(nibabel, cls, None) or nibabel.spm2analyze.Spm2AnalyzeImage
    return image(np.ascontiguousarray(array.T), affine)


def as_sitk(image):
    """What SimpleITK reads of the same file would be: LPS, arrays z, y, x."""
    out = sitk.GetImageFromArray(np.ascontiguousarray(np.asanyarray(image.dataobj).T))
    lps = np.diag([-1, -1, 1, 1]) @ image.affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    out.SetSpacing(spacing.tolist())
    out.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    out.SetOrigin(lps[:3, 3].tolist())
    return out


@pytest.mark.parametrize("cls", ["Nifti1Image", "Nifti2Image", "MGHImage", "Spm2AnalyzeImage"])
@pytest.mark.parametrize("interpolation", ["nearest", "bspline"])
def test_nibabel_images_are_simpleitks(cls, interpolation):
    affine = AFFINE if cls != "Spm2AnalyzeImage" else np.diag([0.75, 1.25, 2.5, 1])
    image = nifti(affine=affine, cls=cls)
    out = gr.resample(image, spacing=(1, 1.5, 2), interpolation=interpolation)
    expected = gr.resample(as_sitk(image), spacing=(1, 1.5, 2), interpolation=interpolation)
    assert type(out) is type(image)
    assert (sitk.GetArrayViewFromImage(expected) == np.asanyarray(out.dataobj).T).all()
    assert np.allclose(out.affine, as_affine(expected), atol=1e-12)
    assert out.get_data_dtype().newbyteorder("=") == np.int16
    assert np.allclose(out.header.get_zooms()[:3], (1, 1.5, 2))


def as_affine(image):
    out = np.eye(4)
    d = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    out[:3, :3], out[:3, 3] = d, image.GetOrigin()
    return np.diag([-1, -1, 1, 1]) @ out


def test_nibabel_files_go_there_and_back(tmp_path):
    image = nifti()
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(AFFINE, "scanner")
    image.set_qform(AFFINE, "scanner")
    nibabel.save(image, tmp_path / "a.nii.gz")
    read = nibabel.load(tmp_path / "a.nii.gz")
    out = gr.resample(read, spacing=2)
    nibabel.save(out, tmp_path / "b.nii.gz")
    again, by_itk = nibabel.load(tmp_path / "b.nii.gz"), sitk.ReadImage(str(tmp_path / "b.nii.gz"))
    expected = gr.resample(sitk.ReadImage(str(tmp_path / "a.nii.gz")), spacing=(2, 2, 2))
    assert (np.asanyarray(again.dataobj) == np.asanyarray(out.dataobj)).all()
    assert np.allclose(by_itk.GetOrigin(), expected.GetOrigin(), atol=1e-4)
    assert by_itk.GetSize() == expected.GetSize()
    assert np.abs(sitk.GetArrayFromImage(by_itk).astype(int) - sitk.GetArrayFromImage(expected)).max() <= 1
    codes = int(again.header["sform_code"]), int(again.header["qform_code"])
    assert codes == (1, 1)
    assert again.header.get_xyzt_units() == ("mm", "sec")


def test_nibabel_series_keep_their_time(tmp_path):
    series = noise((3, 9, 14, 21), "float32")
    image = nifti(series)
    image.header.set_zooms((0.75, 1.25, 2.5, 1.8))
    out = gr.resample(image, size=(15, 17, 7))
    assert out.shape == (15, 17, 7, 3)
    assert np.isclose(out.header.get_zooms()[3], 1.8)
    for t in range(3):
        assert same_bits(
            np.asanyarray(out.dataobj)[..., t], np.asanyarray(gr.resample(nifti(series[t]), size=(15, 17, 7)).dataobj)
        )


def test_scaled_headers_give_floats(tmp_path):
    image = nifti(np.linspace(0, 1, SRC.size).reshape(SRC.shape))
    image.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "scaled.nii")
    read = nibabel.load(tmp_path / "scaled.nii")
    out = gr.resample(read, size=(15, 17, 7))
    assert out.get_data_dtype() == np.float64
    voxels = np.asanyarray(read.dataobj)
    assert voxels.dtype == np.float64
    assert_close(np.asanyarray(out.dataobj).T, gr.resample(np.ascontiguousarray(voxels.T), size=SIZE), 1e-12)
    single = gr.resample(read, size=(15, 17, 7), dtype="float32")
    assert single.get_data_dtype() == np.float32
    nibabel.save(single, tmp_path / "out.nii")
    assert same_bits(
        np.asanyarray(nibabel.load(tmp_path / "out.nii").dataobj).T.copy(), np.asanyarray(single.dataobj).T.copy()
    )


def test_nibabel_as_like_and_out():
    image, like = nifti(), nifti(noise((5, 6, 7), "uint8"))
    out = gr.resample(image, like=like)
    assert out.shape == like.shape
    assert np.allclose(out.affine, like.affine, atol=1e-12)
    target = nifti(np.zeros((5, 6, 7), np.int16), np.eye(4))
    assert gr.resample(image, like=like, out=target) is target
    assert (np.asanyarray(target.dataobj) == np.asanyarray(out.dataobj)).all()
    assert np.allclose(target.affine, out.affine)
    assert np.allclose(target.header.get_best_affine(), out.affine, atol=1e-5)
    same = gr.resample(image, size=image.shape)
    assert same_bits(same.affine, image.affine)
    with pytest.warns(RuntimeWarning, match="like lies nowhere near the image"):
        on_itk = gr.resample(sitk.GetImageFromArray(SRC), like=like)
    assert on_itk.GetSize() == like.shape


@pytest.mark.parametrize(
    ("act", "error", "words"),
    [
        (lambda: gr.resample(nifti(), size=(15, 17, 7), out=np.zeros(1)), TypeError, "out must be a Nifti1Image"),
        (lambda: gr.resample(nifti(), size=(15, 17, 7), out=nifti()), ValueError, r"out must have shape \(15, 17, 7\)"),
        (lambda: gr.resample(nifti(), size=(15, 17, 7), out=nifti(np.zeros(SIZE, np.uint8))), TypeError, "dtype int16"),
        (lambda: gr.resample(nifti(affine=SHEARED), size=2),
         ValueError, "image must have an affine without shear"),
        (lambda: gr.resample(nibabel.Nifti1Image(np.zeros(4, np.int16), np.eye(4)), size=2), ValueError,
         "image must have at least the axes x, y, z"),
        (lambda: gr.resample(nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), None), size=2), ValueError,
         "image must have an affine"),
        (lambda: gr.resample(nifti(SRC.astype(np.complex64)), size=(2, 2, 2)), TypeError, "image must have integer"),
        (lambda: gr.resample(nifti(cls="MGHImage"), size=(2, 2, 2), dtype="float64"), TypeError,
         "dtype must be a type that a MGHImage holds, got float64"),
        (lambda: gr.resample(nifti(), input_spacing=2, size=(2, 2, 2)), ValueError, "input_spacing is for bare arrays"),
    ],
)  # fmt: skip
def test_nibabel_refusals(act, error, words):
    with pytest.raises(error, match=words):
        act()


def test_nibabel_images_must_lie_on_the_planned_grid():
    plan = gr.plan(nifti(), spacing=2)
    with pytest.raises(ValueError, match="image must lie on the planned grid"):
        plan.run(nifti(affine=np.eye(4)))


def test_gaussians_of_nibabel_images_are_in_millimetres():
    out = gr.gaussian(nifti(), 1.5)
    expected = gr.gaussian(as_sitk(nifti()), 1.5)
    assert (sitk.GetArrayViewFromImage(expected) == np.asanyarray(out.dataobj).T).all()
    assert same_bits(out.affine, AFFINE)


def test_the_stream_is_the_callers(cupy):
    cupy.stream = Stream(7)
    gr.resample(cupy.asarray(SRC), size=SIZE)
    assert {ptr for _, ptr in cupy.log} == {7}

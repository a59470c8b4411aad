"""`region=`: the bits of that part of the whole, from no more of the input than it needs."""

import gzip

import numpy as np
import pytest
import SimpleITK as sitk
from support import noise, rotation

import gpuresample as gr

TURN = [[*row, shift] for row, shift in zip(rotation(5, -4, 9), (0.7, -1.2, 0.4), strict=True)]
REGION = (slice(7, 15), slice(2, 9), slice(5, 12))


def field(shape):
    """Up to 1.5 voxels, smooth."""
    axes = np.meshgrid(*[np.linspace(0, 3, n) for n in shape], indexing="ij")
    return gr.DisplacementField(np.stack([1.5 * np.sin(a + k) for k, a in enumerate(axes)], -1), like=np.empty(shape))


WHERE = {
    "tables": {"size": (25, 17, 19), "interpolation": "linear"},
    "splines": {"spacing": 0.7},
    "turned": {"transform": TURN, "interpolation": "linear"},
    "field": {"transform": field((16, 12, 14)), "interpolation": "linear"},
    "labels": {"transform": TURN, "interpolation": "nearest"},
}


@pytest.mark.parametrize("where", WHERE)
def test_a_region_has_the_bits_of_that_part_of_the_whole(where, tmp_path):
    array = np.memmap(tmp_path / "voxels", np.int16, "w+", shape=(16, 12, 14))
    array[:] = noise((16, 12, 14), "int16")
    asked = {"dtype": np.int16, "device": "cpu"} | WHERE[where]
    whole = gr.resample(array, **asked)
    part = gr.resample(array, region=REGION, **asked)
    np.testing.assert_array_equal(part, whole[REGION])
    batch = gr.resample(np.stack([array, array[::-1]]), region=REGION, **asked)
    np.testing.assert_array_equal(batch[0], part)
    # Images know where the part lies; their slices are x, y, z.
    image = sitk.GetImageFromArray(np.asarray(array))
    if "transform" not in asked and "size" not in asked:
        made = gr.resample(image, region=REGION[::-1], **asked)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(made), part)
        want = gr.resample(image, **asked)[REGION[2], REGION[1], REGION[0]]
        np.testing.assert_allclose(made.GetOrigin(), want.GetOrigin(), atol=1e-12)
        volume = gr.Volume(array, (1, 1, 1))
        np.testing.assert_allclose(gr.resample(volume, region=REGION[::-1], **asked).origin, want.GetOrigin())
    out = np.empty(part.shape, np.int16)
    assert gr.resample(array, region=REGION, out=out, **asked) is out
    np.testing.assert_array_equal(out, part)


def test_images_of_a_list_share_a_region():
    image, labels = noise((16, 12, 14)), noise((16, 12, 14), "uint8") % 4
    asked = {"transform": TURN, "interpolation": ["linear", "nearest"], "device": "cpu"}
    whole, parts = gr.resample([image, labels], **asked), gr.resample([image, labels], region=REGION, **asked)
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(a[REGION], b)


@pytest.mark.parametrize("library", ["dask", "zarr"])
@pytest.mark.parametrize("where", ["tables", "field"])
def test_chunks_that_no_voxel_needs_are_not_read(library, where, monkeypatch):
    array = noise((16, 12, 14))
    asked = {"device": "cpu"} | WHERE[where]
    if library == "zarr":
        zarr = pytest.importorskip("zarr")
        source = zarr.create_array(zarr.storage.MemoryStore(), shape=array.shape, chunks=(4, 4, 4), dtype="f4")
        source[:] = array
        read = []
        get = type(source).__getitem__
        monkeypatch.setattr(type(source), "__getitem__", lambda s, key: read.append(v := get(s, key)) or v)
    else:
        da = pytest.importorskip("dask.array")
        read = []

        def made(block_info=None):
            read.append(np.empty([b - a for a, b in block_info[None]["array-location"]]))
            return array[tuple(slice(*s) for s in block_info[None]["array-location"])]

        source = da.map_blocks(
            made, chunks=((4,) * 4, (4,) * 3, (4, 4, 4, 2)), dtype=np.float32, meta=array[:0, :0, :0]
        )
    got = gr.resample(gr.Volume(source, (1, 1, 1)), region=(slice(2, 5), slice(1, 4), slice(0, 5)), **asked)
    assert isinstance(got.array, np.ndarray)
    whole = gr.resample(gr.Volume(array, (1, 1, 1)), **asked)
    np.testing.assert_array_equal(got.array, whole.array[:5, 1:4, 2:5])
    assert sum(v.size for v in read) < array.size / 2


@pytest.fixture
def nifti(tmp_path):
    image = sitk.GetImageFromArray(noise((16, 12, 14), "int16"))
    image.SetSpacing((0.8, 0.9, 2.0))
    image.SetOrigin((-10, 20, 30))
    image.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))
    path = tmp_path / "ct.nii"
    sitk.WriteImage(image, str(path))
    return image, path


def test_a_file_is_mapped_where_simpleitk_puts_it(nifti):
    image, path = nifti
    volume = gr.open_nifti(path)
    assert isinstance(volume.array, np.memmap)
    np.testing.assert_array_equal(volume.array, sitk.GetArrayViewFromImage(image))
    read = sitk.ReadImage(str(path))
    for name in ("spacing", "origin", "direction"):
        np.testing.assert_allclose(getattr(volume, name), getattr(read, f"Get{name.title()}")(), atol=1e-6)
    part = gr.resample(volume, spacing=1.1, region=(slice(2, 6), slice(1, 8), slice(3, 20)))
    whole = gr.resample(read, spacing=1.1)
    np.testing.assert_array_equal(part.array, sitk.GetArrayViewFromImage(whole)[3:20, 1:8, 2:6])


def test_files_that_cannot_be_mapped_say_why(nifti, tmp_path):
    image, path = nifti
    packed = tmp_path / "ct.nii.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(ValueError, match=r"is packed, .* unpack it once"):
        gr.open_nifti(packed)
    head = bytearray(path.read_bytes())
    head[112:116] = np.float32(0.5).tobytes()
    scaled = tmp_path / "scaled.nii"
    scaled.write_bytes(head)
    with pytest.raises(ValueError, match=r"slope 0\.5"):
        gr.open_nifti(scaled)
    short = tmp_path / "short.nii"
    short.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(OSError, match="ends after"):
        gr.open_nifti(short)
    other = tmp_path / "ct.mha"
    sitk.WriteImage(image, str(other))
    with pytest.raises(ValueError, match="must be a NIfTI file in one piece"):
        gr.open_nifti(other)
    with pytest.raises(OSError, match="no such file"):
        gr.open_nifti(tmp_path / "none.nii")


def test_nibabel_reads_the_part_alone(nifti, monkeypatch):
    nib = pytest.importorskip("nibabel")
    _, path = nifti
    loaded = nib.load(path)
    asked = {"spacing": 1.1, "region": (slice(2, 6), slice(1, 8), slice(3, 20))}
    monkeypatch.setattr(type(loaded.dataobj), "__array__", lambda *_, **__: pytest.fail("all of it is read"))
    got = gr.resample(loaded, **asked)
    want = gr.resample(gr.open_nifti(path), **asked)
    np.testing.assert_array_equal(np.asarray(got.dataobj).T, want.array)


@pytest.mark.parametrize(
    "region",
    [
        5, (slice(0, 2),), [slice(0, 2), slice(0, 2), slice(3, 3)], [slice(0, 2), slice(0, 2), slice(0, 99)],
        [slice(0, 4, 2), slice(0, 2), slice(0, 2)], [(0, 2)] * 3,
    ],
)  # fmt: skip
def test_bad_regions_are_told(region):
    with pytest.raises((TypeError, ValueError), match="region must be 3 non-empty slices"):
        gr.resample(noise((4, 5, 6)), size=(8, 8, 8), region=region)


def test_the_range_of_the_whole_is_no_regions():
    with pytest.raises(ValueError, match="clips to the whole image's range has no blocks"):
        gr.resample(noise((4, 5, 6)), size=(8, 8, 8), clip=True, region=[slice(0, 2)] * 3)

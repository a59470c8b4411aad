"""Names that are one on other systems, writers that race for a name, gzip files that do not end."""

import gzip
import multiprocessing
import os
import threading
import unicodedata
import zlib

import pytest
import SimpleITK as sitk
from cli_support import refused, volume
from hypothesis import given
from hypothesis import strategies as st

from gpuresample.files import completeness, detached, disk
from gpuresample.files import volumes as files
from gpuresample.files.job import Settings

# One name on macOS or Windows each: by case, by form, by both, with letters that have several small forms.
ALIKE = [
    ("a", "A"), ("Scan", "sCAN"), ("é", "e\u0301"), ("É", "e\u0301"), ("straße", "STRASSE"), ("Å", "\u212b"),
    ("ﬁle", "file"), ("\u03c3", "\u03c2"), ("가", "\u1100\u1161"), ("İ", "i\u0307"),
]  # fmt: skip
APART = [("a", "b"), ("e", "é"), ("o", "ø"), ("i", "\u0131"), ("1", "\uff11"), ("a", "\u0430")]


@pytest.fixture
def whole(tmp_path):
    path = tmp_path / "whole.nii.gz"
    sitk.WriteImage(volume(), str(path))
    return path


def table(folder, whole, names):
    pytest.importorskip("distributed", reason="batches are the extra gpuresample[batch]")
    from gpuresample.batch import inputs

    path = folder / "t.csv"
    path.write_text("input,output\n" + "".join(f"{whole.name},{name}\n" for name in names), encoding="utf-8")
    return inputs.items(folder, folder / "out", Settings(spacing=2.0), table=path)


@pytest.mark.parametrize(("one", "other"), ALIKE)
@pytest.mark.parametrize("place", ["{}.nii", "{}/x.nii", "x/{}/y.nii"])
def test_names_that_are_one_elsewhere_are_refused(tmp_path, whole, one, other, place):
    with pytest.raises(ValueError, match=r"two inputs would be written to .*line 2 of t.csv.*line 3 of t.csv"):
        table(tmp_path, whole, [place.format(one), place.format(other)])


@pytest.mark.parametrize(("one", "other"), APART)
def test_other_names_are_two(tmp_path, whole, one, other):
    assert len(table(tmp_path, whole, [f"{one}.nii", f"{other}.nii"])) == 2


def test_a_file_that_is_a_folder_elsewhere_is_refused(tmp_path, whole):
    with pytest.raises(ValueError, match="would be an output and a folder of outputs"):
        table(tmp_path, whole, ["Scan.nii", "scan.NII/x.nii"])


@given(st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/\\"), min_size=1, max_size=8))
def test_case_and_form_never_matter(text):
    pytest.importorskip("distributed", reason="batches are the extra gpuresample[batch]")
    from gpuresample.batch import inputs

    for form in ("NFC", "NFD"):
        assert inputs._folded(unicodedata.normalize(form, text)) == inputs._folded(text)
    assert inputs._folded(text.casefold()) == inputs._folded(text)


# Writers


def race(folder, start, number, answers):
    image = volume(seed=number)
    start.wait()
    try:
        files.write(image, folder / "x.nii.gz")
        answers.put((number, ""))
    except FileExistsError as error:
        answers.put((number, str(error)))


def test_of_several_writers_one_wins_and_the_others_are_told(tmp_path):
    context = multiprocessing.get_context("spawn")
    start, answers = context.Barrier(4), context.Queue()
    writers = [context.Process(target=race, args=(tmp_path, start, k, answers)) for k in range(4)]
    for writer in writers:
        writer.start()
    got = dict(answers.get(timeout=120) for _ in writers)
    for writer in writers:
        writer.join()
    winners = [k for k, error in got.items() if not error]
    assert len(winners) == 1
    assert all("meanwhile" in e or "exists already" in e for e in got.values() if e)
    expected = sitk.GetArrayFromImage(volume(seed=winners[0]))
    assert (sitk.GetArrayFromImage(files.read(tmp_path / "x.nii.gz")) == expected).all()
    assert os.listdir(tmp_path) == ["x.nii.gz"]


def no_links(monkeypatch):
    def refuse(*_, **__):
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)


@pytest.mark.parametrize("links", [True, False])
def test_a_name_is_given_once(tmp_path, monkeypatch, links):
    """Many threads at once, with hard links and without."""
    if not links:
        no_links(monkeypatch)
    start, won, told = threading.Barrier(8), [], []

    def run(k):
        for turn in range(40):
            path = tmp_path / f"{turn}.{k}"
            path.write_text(str(k))
            start.wait()
            try:
                disk.rename_new(path, tmp_path / str(turn))
                won.append((turn, k))
            except FileExistsError as error:
                told.append(str(error))
                path.unlink()

    threads = [threading.Thread(target=run, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(turn for turn, _ in won) == list(range(40))
    assert len(told) == 40 * 7
    assert all("has come into being meanwhile" in text for text in told)
    assert {(int(p.name), int(p.read_text())) for p in tmp_path.iterdir()} == set(won)


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling"])
def test_what_came_meanwhile_is_left_alone(tmp_path, kind):
    target = tmp_path / "x.nii"

    def write():
        with files.replacing(target, overwrite=False) as partial:
            partial.write_bytes(b"mine")
            if kind == "file":
                target.write_bytes(b"theirs")
            elif kind == "folder":
                target.mkdir()
            elif kind == "link":
                (tmp_path / "there").write_bytes(b"theirs")
                target.symlink_to("there")
            else:
                target.symlink_to("nowhere")

    with pytest.raises(FileExistsError, match="meanwhile"):
        write()
    left = {p.name for p in tmp_path.iterdir()}
    assert left == {"x.nii", "there"} if kind == "link" else left == {"x.nii"}
    assert not target.is_file() or target.read_bytes() == b"theirs"


# Gzip


def behind(whole, path, megabytes):
    """A gzip file whose stream goes on behind the volume, by zeros: some kilobytes for every megabyte."""
    pack = zlib.compressobj(9, wbits=31)
    with open(path, "wb") as file:
        file.write(pack.compress(gzip.decompress(whole.read_bytes())))
        zeros = bytes(1 << 20)
        for _ in range(megabytes):
            file.write(pack.compress(zeros))
        file.write(pack.flush())
    return path


@pytest.mark.parametrize("megabytes", [0, 1, 40])
def test_what_follows_a_volume_within_reason_is_let_pass(tmp_path, whole, megabytes):
    path = behind(whole, tmp_path / "a.nii.gz", megabytes)
    expected = sitk.GetArrayFromImage(files.read(whole))
    assert (sitk.GetArrayFromImage(files.read(path)) == expected).all()


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".nhdr"])
def test_what_goes_on_is_not_unpacked(tmp_path, whole, run, ending, monkeypatch):
    monkeypatch.setattr(completeness, "_BEHIND", 1 << 20)
    read = [0]
    real = gzip.GzipFile.read

    def counted(self, size=-1):
        block = real(self, size)
        read[0] += len(block)
        return block

    monkeypatch.setattr(gzip.GzipFile, "read", counted)
    path = behind(whole, tmp_path / "a.nii.gz", 60)
    if ending == ".nii.gz":
        refused(run("info", path), 1, "goes on for more than 1,048,576 bytes behind its volume")
    else:
        voxels = behind_voxels(tmp_path, ending)
        assert files.read(voxels).GetSize() == volume().GetSize()
        # What was unpacked to look at it: hardly more than the volume.
        packed, enough = tmp_path / "v.raw.gz", detached.of_header(voxels).nbytes
        with open(packed, "rb") as stream:
            assert enough < detached._unpacked(stream, True, packed.stat().st_size, enough, None) < enough + (4 << 20)
    assert read[0] < 4 << 20


def behind_voxels(folder, ending):
    """An NRRD whose gzip stream goes on, in its own file or in another."""
    sitk.WriteImage(volume(), str(folder / "v.nrrd"), True)
    head, packed = (folder / "v.nrrd").read_bytes().split(b"\n\n", 1)
    (folder / "w.gz").write_bytes(packed)
    behind(folder / "w.gz", folder / "v.raw.gz", 60)
    path = folder / f"a{ending}"
    if ending == ".nhdr":
        path.write_bytes(head + b"\ndata file: v.raw.gz\n")
    else:
        path.write_bytes(head + b"\n\n" + (folder / "v.raw.gz").read_bytes())
    return path


def test_a_stream_that_is_no_image_is_not_unpacked_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(completeness, "_BEHIND", 1 << 20)
    (tmp_path / "none.gz").write_bytes(gzip.compress(b"no image"))
    path = behind(tmp_path / "none.gz", tmp_path / "a.nii.gz", 60)
    with pytest.raises(OSError, match="goes on for more than"):
        files.read(path)


@pytest.mark.parametrize("kind", ["levels", "labels"])
def test_of_writers_of_one_picture_one_wins(tmp_path, kind):
    pytest.importorskip("matplotlib", reason="pictures are the extra gpuresample[cli]")
    from gpuresample.cli import overlay, pyramid

    image, path = volume(), tmp_path / "x.png"
    labels = sitk.Cast(image > 0, sitk.sitkUInt8)
    ready, told = threading.Barrier(2), []

    def draw():
        ready.wait()
        try:
            if kind == "levels":
                pyramid.draw([image, image], path, overwrite=False)
            else:
                overlay.draw(image, labels, path, overwrite=False)
        except FileExistsError as error:
            told.append(str(error))

    threads = [threading.Thread(target=draw) for _ in range(2)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert told == [f"{path}: has come into being meanwhile and is left alone"]
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert path.read_bytes().endswith(b"IEND\xaeB`\x82")
    assert list(tmp_path.iterdir()) == [path]

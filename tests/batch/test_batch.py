"""Batches: what is found, done, refused, recorded, reported, and done again."""

import csv
import json
import os
import re
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
from cli_support import refused, volume

pytest.importorskip("distributed", reason="batches are the extra gpuresample[batch]")

import gpuresample as gr
from gpuresample.batch import inputs, items, records, reports, thumbnails
from gpuresample.distributed import batch
from gpuresample.files import job
from gpuresample.files.job import Settings

TWO = Settings(spacing=(1.6, 1.6, 3.0))
ASKED = ("--spacing", "1.6", "1.6", "3")


@pytest.fixture
def folder(tmp_path):
    """IN_DIR: volumes in two folders, one of them cut short, one complex."""
    root = tmp_path / "in"
    (root / "b" / "deep").mkdir(parents=True)
    for k, name in enumerate(["a.nii.gz", "b/c.nrrd", "b/deep/d.mha"]):
        sitk.WriteImage(volume(seed=k), str(root / name))
    whole = (root / "a.nii.gz").read_bytes()
    (root / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    sitk.WriteImage(sitk.Image([4, 4, 4], sitk.sitkComplexFloat32), str(root / "complex.nrrd"))
    (root / "notes.txt").write_text("no volume")
    (root / ".hidden.nii.gz").write_bytes(whole)
    return root


def names(made):
    return [item.name for item in made]


def kinds(outcome):
    return {r["name"]: r["kind"] for r in outcome.records}


def tree(root):
    return sorted(
        p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file() and ".gpuresample" not in p.parts
    )


def test_a_level_says_how_hard_results_are_packed(folder, tmp_path):
    (item,) = inputs.items(folder, tmp_path / "out", TWO, pattern="b/c.nrrd")
    for level, word in ((None, b"encoding: raw"), (1, b"encoding: gzip")):
        record = items.run(item, {}, str(tmp_path / "out"), True, False, level)
        assert record["kind"] == "done", record
        assert word in (tmp_path / "out" / "b" / "c.nrrd").read_bytes()[:600]


@pytest.mark.parametrize(
    ("words", "message"), [({"level": 10}, "level must be a whole number from 1"), ({"level": 1}, "is none of these")]
)
def test_levels_that_no_result_can_have_are_refused_before_anything_is_made(words, message, folder, tmp_path):
    with pytest.raises(ValueError, match=message):
        batch(folder, tmp_path / "out", spacing=2, file_format=".nii", workers=1, **words)
    assert not (tmp_path / "out").exists()


# What is found


def test_a_folder_is_mirrored(folder, tmp_path):
    made = inputs.items(folder, tmp_path / "out", TWO)
    assert names(made) == ["a.nii.gz", "b/c.nrrd", "b/deep/d.mha", "complex.nrrd", "cut.nii.gz"]
    assert names(inputs.items(folder, tmp_path / "out", TWO, pattern="b/*")) == ["b/c.nrrd"]
    assert names(inputs.items(folder, tmp_path / "out", TWO, pattern="*.mha", file_format=".nrrd")) == ["b/deep/d.nrrd"]


def test_results_within_the_input_folder_are_no_inputs(folder):
    out = folder / "out"
    out.mkdir()
    shutil.copy(folder / "a.nii.gz", out / "a.nii.gz")
    assert "out/a.nii.gz" not in names(inputs.items(folder, out, TWO))
    with pytest.raises(ValueError, match="another one than the input folder"):
        inputs.items(folder, folder, TWO)


def test_a_folder_of_dicom_files_is_a_volume(data_dir, tmp_path):
    shutil.copytree(data_dir / "dicom_series", tmp_path / "in" / "scan")
    (made,) = inputs.items(tmp_path / "in", tmp_path / "out", TWO)
    assert made.name == "scan.nii.gz"
    assert made.source == str(tmp_path / "in" / "scan")


def test_a_table_has_settings_for_each_volume(folder, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("input,output,spacing,interpolation\na.nii.gz,x/y.nrrd,,\nb/c.nrrd,,2 2 2,nearest\n")
    first, second = inputs.items(folder, tmp_path / "out", TWO, table=table)
    assert (first.name, first.settings) == ("x/y.nrrd", TWO)
    assert (second.name, second.settings.spacing, second.settings.interpolation) == ("b/c.nrrd", (2, 2, 2), "nearest")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("input,spacin\na.nii.gz,1\n", "did you mean 'spacing'"),
        ("output\nx.nii\n", "there must be a column input"),
        ("input,output\na.nii.gz,../x.nii\n", r"line 2 of t\.csv: output '\.\./x\.nii' leaves the output folder"),
        ("input,output\na.nii.gz,/tmp/x.nii\n", "leaves the output folder"),
        ("input,output\na.nii.gz,link/x.nii\n", "through a symbolic link"),
        ("input,output\na.nii.gz,.gpuresample/x.nii\n", "for the batch's records"),
        ("input,output\na.nii.gz,x.png\n", "volumes are written as"),
        ("input,output\na.nii.gz,x.nii\nb/c.nrrd,x.nii\n", "two inputs would be written to x.nii"),
        ("input,spacing\na.nii.gz,zero\n", r"line 2 of t\.csv: spacing"),
        ("input,spacing\na.nii.gz,-1\n", r"line 2 of t\.csv: .*spacing"),
        ("input\nnone.nii\n", "no such file"),
        ("input,overwrite\na.nii.gz,yes\n", "for the whole run"),
    ],
)
def test_a_bad_table_is_refused_with_its_line(folder, tmp_path, text, message):
    table, out = tmp_path / "t.csv", tmp_path / "out"
    table.write_text(text)
    out.mkdir()
    (out / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match=message):
        batch(folder, out, table=table, spacing=TWO.spacing)
    assert os.listdir(out) == ["link"]


# What is done


def label_map(seed, dtype, lost=()):
    array = np.zeros((12, 20, 24), dtype)
    array[2:9, 3:14, 4:20] = 3
    array[4:8, 8:18, 2:9] = 250 if dtype == np.uint8 else 2035
    for k, label in enumerate(lost):
        array[11, 1 + 2 * k, 23] = label
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.8, 0.8, 1.5))
    return image


def test_the_report_tells_what_became_of_labels(tmp_path, run, scheduler):
    root, out = tmp_path / "in", tmp_path / "out"
    root.mkdir()
    maps = {
        "whole.nrrd": label_map(0, np.uint8), "lossy.nii.gz": label_map(1, np.int16, (7, -9, 12)),
        "many.nrrd": label_map(2, np.uint8, range(10, 19)),
    }  # fmt: skip
    for name, image in maps.items():
        sitk.WriteImage(image, str(root / name))
    sitk.WriteImage(volume(seed=3), str(root / "ct.nrrd"))
    sitk.WriteImage(sitk.Cast(volume(seed=4), sitk.sitkUInt8), str(root / "dark.nrrd"))
    sitk.WriteImage(sitk.Cast(volume(seed=4), sitk.sitkFloat32), str(root / "floats.nrrd"))
    code, _, err = run("batch", root, out, *ASKED, "--interpolation", "nearest", "--scheduler", scheduler)
    assert (code, "failed" in err) == (0, False)
    with open(out / "report.csv", newline="") as file:
        rows = {row["output"]: row for row in csv.DictReader(file)}
    page = (out / "report.html").read_text(encoding="utf-8")
    for name in maps:
        report = gr.label_report(sitk.ReadImage(str(root / name)), sitk.ReadImage(str(out / name)))
        assert rows[name]["labels"] == str(sum(c.voxels[0] > 0 for c in report.changes))
        assert rows[name]["labels_lost"].lstrip("'") == " ".join(map(str, report.lost))
        shift = max(c.shift for c in report.changes if min(c.voxels) > 0)
        assert float(rows[name]["labels_shift"]) == pytest.approx(shift)
    assert rows["whole.nrrd"]["labels_lost"] == ""
    assert "of 5 labels, lost -9, 7, 12" in page
    assert "5 → 2" in page
    for name in ("ct.nrrd", "dark.nrrd", "floats.nrrd"):
        assert rows[name]["labels"] == rows[name]["labels_lost"] == rows[name]["labels_shift"] == ""


def test_settings_of_clip_and_ignore(folder, tmp_path, run, scheduler):
    out = tmp_path / "out"
    words = ("--spacing", 0.5, "--clip", -20, 90, "--ignore=0", "--glob", "a*")
    assert run("batch", folder, out, *words, "--scheduler", scheduler)[0] == 0
    asked = Settings(spacing=0.5, clip=(-20.0, 90.0), ignore=0)
    job.run(folder / "a.nii.gz", tmp_path / "alone.nii.gz", asked)
    assert (tmp_path / "alone.nii.gz").read_bytes() == (out / "a.nii.gz").read_bytes()
    assert "1 as before" in run("batch", folder, out, *words, "--scheduler", scheduler)[1]
    assert "1 done" in run("batch", folder, out, *words[:-3], "--ignore=1", "--glob", "a*", "--scheduler", scheduler)[1]


def test_a_nan_is_the_same_setting_when_it_is_read_again():
    """A record of a run with one never matched the next run."""
    for asked in (Settings(spacing=2, default_value=float("nan")), Settings(spacing=2, ignore=float("nan"))):
        assert json.loads(json.dumps(asked.identity())) == asked.identity()


def test_volumes_are_the_single_commands_and_failures_are_listed(folder, tmp_path, scheduler, run):
    out = tmp_path / "out"
    code, said, err = run("batch", folder, out, *ASKED, "--scheduler", scheduler)
    assert code == 1
    assert "5 volumes: 3 done, 2 failed" in said
    assert "cut.nii.gz: the gzip stream is damaged or ends early" in err
    assert "complex.nrrd: cannot be resampled" in err
    assert "which is not encrypted: whoever reaches that port can run code as you" in err
    assert tree(out) == ["a.nii.gz", "b/c.nrrd", "b/deep/d.mha", "report.csv", "report.html"]
    for name in ("a.nii.gz", "b/c.nrrd", "b/deep/d.mha"):
        alone = tmp_path / name.replace("/", "-")
        job.run(folder / name, alone, TWO)
        assert alone.read_bytes() == (out / name).read_bytes()
    with open(out / "report.csv", newline="") as file:
        rows = {row["output"]: row for row in csv.DictReader(file)}
    assert rows["a.nii.gz"] | {"state": "done", "size_before": "24 20 12", "size": "12 10 6"} == rows["a.nii.gz"]
    assert rows["a.nii.gz"]["spacing"] == "1.6 1.6 3"
    assert rows["a.nii.gz"]["extent_kept"] == rows["a.nii.gz"]["in_range"] == "True"
    assert rows["cut.nii.gz"]["state"] == "failed"
    assert "gzip" in rows["cut.nii.gz"]["reason"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "gzip stream is damaged" in page
    assert page.count("data:image/png") == 3


def test_what_is_done_is_told_by_content(folder, tmp_path, scheduler):
    out = tmp_path / "out"

    def again(**more):
        return kinds(batch(folder, out, pattern="*[acd].*", scheduler=scheduler, **{"spacing": TWO.spacing} | more))

    assert again() == dict.fromkeys(["a.nii.gz", "b/c.nrrd", "b/deep/d.mha"], "done")
    times = {name: (out / name).stat().st_mtime_ns for name in ("a.nii.gz", "b/c.nrrd")}
    # A file that is only younger is the same; one of other content is not, of the same size though it be.
    os.utime(folder / "a.nii.gz")
    image = volume(seed=7)
    sitk.WriteImage(image, str(folder / "b/c.nrrd"))
    (out / "b/deep/d.mha").unlink()
    assert again() == {"a.nii.gz": "as before", "b/c.nrrd": "done", "b/deep/d.mha": "done"}
    assert (out / "a.nii.gz").stat().st_mtime_ns == times["a.nii.gz"]
    assert (out / "b/c.nrrd").stat().st_mtime_ns != times["b/c.nrrd"]
    # Other settings are other results.
    assert set(again(interpolation="linear").values()) == {"done"}
    assert set(again(interpolation="linear").values()) == {"as before"}


def test_files_that_are_not_the_batchs_are_left_alone(folder, tmp_path, scheduler):
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.nii.gz").write_bytes(b"mine")

    def again(**more):
        return batch(folder, out, pattern="a.*", scheduler=scheduler, spacing=2.0, **more)

    for _ in range(2):
        (record,) = again().records
        assert "not this batch's" in record["reason"]
        assert (out / "a.nii.gz").read_bytes() == b"mine"
    assert kinds(again(overwrite=True)) == {"a.nii.gz": "done"}
    whole = (out / "a.nii.gz").read_bytes()
    changed = bytearray(whole)
    changed[-1] ^= 1
    stamp = (out / "a.nii.gz").stat()
    (out / "a.nii.gz").write_bytes(changed)
    os.utime(out / "a.nii.gz", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    # Same size, same time: only a look at the content tells.
    assert kinds(again()) == {"a.nii.gz": "as before"}
    (record,) = again(verify=True).records
    assert "has been changed since" in record["reason"]
    assert (out / "a.nii.gz").read_bytes() == changed
    assert kinds(again(overwrite=True, verify=True)) == {"a.nii.gz": "done"}
    assert (out / "a.nii.gz").read_bytes() == whole


def test_what_a_killed_run_left_is_cleared_away_and_done(folder, tmp_path, scheduler):
    out = tmp_path / "out"
    (out / ".gpuresample").mkdir(parents=True)
    journal = records._line({"kind": "begin", "name": "a.nii.gz"})
    (out / ".gpuresample" / "journal.jsonl").write_bytes(journal + b'{"kind":"done","na')
    (out / "a.nii.gz").write_bytes(b"of the run before")
    (out / ".a.0123abcd.partial.nii.gz").write_bytes(b"half")
    (out / ".a.other.nii.gz").write_bytes(b"not ours")
    outcome = batch(folder, out, pattern="a.*", scheduler=scheduler, spacing=2.0)
    assert kinds(outcome) == {"a.nii.gz": "done"}
    assert outcome.notes == ["1 half-written file of an earlier run removed"]
    assert tree(out) == [".a.other.nii.gz", "a.nii.gz", "report.csv", "report.html"]
    assert sitk.ReadImage(str(out / "a.nii.gz")).GetSpacing() == (2, 2, 2)


def test_progress_is_told(folder, tmp_path, scheduler):
    told = []
    batch(folder, tmp_path / "out", scheduler=scheduler, spacing=2.0, progress=told.append)
    assert (told[-1].done, told[-1].failed, told[-1].total) == (3, 2, 5)
    assert told[-1].bytes_done == told[-1].bytes_total > 0
    assert told[-1].workers.startswith("1 worker of tcp://")


def test_bad_arguments_are_one_line(folder, tmp_path, run):
    refused(run("batch", folder, tmp_path / "out"), 2, "spacing")
    refused(run("batch", tmp_path / "none", tmp_path / "out", *ASKED), 1, "is no folder")
    refused(run("batch", folder, tmp_path / "out", *ASKED, "--glob", "*.xyz"), 2, "no volumes match")
    refused(run("batch", folder, tmp_path / "out", *ASKED, "--workers", "2", "--scheduler", "tcp://x:1"), 2, "workers")
    assert not (tmp_path / "out").exists()


# Records


def test_a_journal_survives_torn_lines_and_forgets_what_begins_anew(tmp_path):
    journal = records.Journal(tmp_path)
    journal.add([{"kind": "done", "name": "a"}, {"kind": "done", "name": "b"}, {"kind": "begin", "name": "b"}])
    journal.close()
    with open(tmp_path / "journal.jsonl", "ab") as file:
        file.write(b'{"kind":"done","name":"c"')
    journal = records.Journal(tmp_path)
    assert set(journal.last) == {"a"}
    assert journal.begun == {"a", "b"}
    journal.add([{"kind": "failed", "name": "d"}])
    journal.close()
    journal = records.Journal(tmp_path)
    journal.close()
    assert set(journal.last) == {"a", "d"}
    lines = (tmp_path / "journal.jsonl").read_bytes().splitlines()
    last = json.loads(lines[-1])
    assert len(last.pop("crc")) == 8
    assert last == {"kind": "failed", "name": "d"}


def test_one_run_at_a_time(tmp_path):
    (tmp_path / "p").mkdir()
    with records.locked(tmp_path / "p") as before:
        assert before == ""
        with pytest.raises(BlockingIOError, match=f"another batch works on this folder .process {os.getpid()}"):
            records.locked(tmp_path / "p").__enter__()
    with records.locked(tmp_path / "p") as before:
        assert before == ""


def test_an_input_is_all_of_its_files(tmp_path):
    sitk.WriteImage(volume(), str(tmp_path / "v.mhd"))
    before = records.content(tmp_path / "v.mhd")
    raw = bytearray((tmp_path / "v.raw").read_bytes())
    raw[0] ^= 1
    (tmp_path / "v.raw").write_bytes(raw)
    assert records.content(tmp_path / "v.mhd") != before


@pytest.mark.parametrize("size", [(24, 20, 12), (24, 20)])
def test_thumbnails_are_what_they_show(size):
    image = volume(size=size)
    image.SetSpacing((1.0,) * len(size))
    pixels = thumbnails.unpacked(thumbnails.packed(image, image))
    assert pixels.shape == (round(20 * 128 / 24), 2 * 128 + 4)
    assert np.array_equal(pixels[:, :128], pixels[:, -128:])
    middle = sitk.GetArrayViewFromImage(image)[6] if len(size) == 3 else sitk.GetArrayViewFromImage(image)
    low, high = np.percentile(middle, (0.5, 99.5))
    assert pixels[0, 0] == int(np.clip((middle[0, 0] - low) / (high - low), 0, 1) * 255)


FORMULAS = [
    "=1+1", "+1+1", "-1+1", "@SUM(A1)", "=HYPERLINK(\"x\")", "-2+3+cmd|' /C calc'!A0", " =1+1", "\t=1+1", "\r=1+1",
    "\uff1d1+1", "-", "--1", "=", "|cmd", "%0A=1", "\u22121+1", "\ufe661+1", "\uff5ccmd", "\ufeff=1+1", "\u200b@x",
    '"=1+1', "\xa0=1+1", "\x0b=1+1", "\0=1+1",
]  # fmt: skip
SKIPPED = ' "\t\r\n\v\0\xa0\ufeff\u200b'
NUMBERS = ["-10 20 30", "-1", "+1e5", "-0.5 -0.5 1", "1 2 3", ""]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_of_the_report_is_a_formula(tmp_path, text):
    words = [text, f"{text}.nii.gz"]
    made = [
        {"kind": "failed", "name": w, "source": w, "reason": w, "version": w, "at": w, "warnings": [w]} for w in words
    ]
    reports.write_csv(tmp_path / "r.csv", made)
    with open(tmp_path / "r.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    for row, word in zip(rows, words, strict=True):
        sign = word.lstrip(SKIPPED)
        assert row.count(word.removesuffix(sign) + "'" + sign) == 6
        assert not any(cell.lstrip(SKIPPED)[:1] in ("=", "+", "-", "@", "|", "%", "\uff1d") for cell in row if cell)


@pytest.mark.parametrize("between", [";", "\t", "\n", "\r\n", '";"', "; ", ";;", ';"'])
def test_no_part_of_a_cell_is_a_formula_where_cells_are_parted_otherwise(tmp_path, between):
    word = f"/in/a{between}=1+1{between}b.nii.gz"
    reports.write_csv(tmp_path / "r.csv", [{"kind": "failed", "name": word, "source": word, "reason": f"{word}: gone"}])
    content = (tmp_path / "r.csv").read_text(encoding="utf-8")
    assert content.count("=1+1") == 3
    for cell in re.split("[;\t\r\n]", content):
        assert cell.strip(' "')[:1] not in ("=", "+", "-", "@"), cell
    settings = json.dumps({"clip": [-1, -2.5], "like": "a;b", "note": "x - y"})
    assert reports._text(settings) == settings


@pytest.mark.parametrize("text", NUMBERS)
def test_numbers_stay_numbers(text):
    assert reports._text(text) == text


# What a worker does


def test_a_volume_that_is_run_again_finds_its_own_result(folder, tmp_path, monkeypatch):
    """As Dask runs it again, if a worker dies between the last byte and the answer."""
    monkeypatch.setattr(items, "_listen", lambda: None)
    (made,) = inputs.items(folder, tmp_path / "out", TWO, pattern="a.nii.gz")
    ask = (made, TWO.identity(), str(tmp_path / "out"), False, False)
    first, again = items.run(*ask), items.run(*ask)
    assert (first["kind"], again["kind"]) == ("done", "done")
    assert again["output"] == first["output"]
    target = tmp_path / "out" / "a.nii.gz"
    target.write_bytes(b"somebody else's")
    last = items.run(*ask)
    assert last["kind"] == "failed"
    assert "has come into being meanwhile" in last["reason"]
    assert target.read_bytes() == b"somebody else's"
    assert tree(tmp_path / "out") == ["a.nii.gz"]

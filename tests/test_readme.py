"""The code and commands of the README and of docs/ are run as they stand.

tests/faces/integrations/ runs what needs torch and its kin, tests/omezarr/ the page on volumes larger than memory.
"""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import SimpleITK as sitk
from cli_support import volume
from support import ANISOTROPIC, labels, noise, same_bits, to_image

import gpuresample as gr
from benchmarks import readme
from gpuresample import engines
from gpuresample.bench import records

ROOT = Path(__file__).parents[1]
RECORDED = ROOT / "benchmarks" / "results" / "amd-epyc-2-cores-2026-11-28" / "benchmark.json"
PAGES = ("README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))
# Run elsewhere: by integrations/test_docs.py, test_loader.py, test_sample.py, test_warp.py, omezarr/test_omezarr.py.
ELSEWHERE = {
    "docs/integrations.md": ("Drop in", "Augmentations", "nnU-Net, in detail"),
    "docs/loader.md": ("Resampling in a data loader",),
    "docs/tiles.md": ("Volumes larger than memory",),
    "docs/transforms.md": ("Warps that learn", "Positions of your own", "A registration"),
}


def text_of(page):
    return (ROOT / page).read_text(encoding="utf-8")


def sections(page):
    """The code blocks of every section of a page, by the section's title."""
    parts = re.split(r"^#+ (?=\S)", re.sub(r"```.*?```", _indented, text_of(page), flags=re.DOTALL), flags=re.MULTILINE)
    return {
        part.split("\n")[0]: re.findall(r"```python\n(.*?)```", part.replace("\n ", "\n"), re.DOTALL) for part in parts
    }


def _indented(match):
    """A code block whose comments do not look like titles."""
    return match[0].replace("\n", "\n ")


def run_here(page):
    return [code for title, codes in sections(page).items() for code in codes if title not in ELSEWHERE.get(page, ())]


def test_sections_have_all_code():
    for page in PAGES:
        assert sum(map(len, sections(page).values())) == text_of(page).count("```python"), page
    for page, titles in ELSEWHERE.items():
        assert all(sections(page)[title] for title in titles), page


@pytest.fixture
def names(tmp_path, monkeypatch):
    """What the pages take for granted."""
    monkeypatch.chdir(tmp_path)
    z, y, x = ANISOTROPIC.size[::-1]
    # Blocks on docs/plans.md are the page's own: the volume must have room for them.
    ct = to_image(noise((40, 130, 200), "int16"), ANISOTROPIC._replace(size=(200, 130, 40)))
    sitk.WriteImage(ct, "ct.nii.gz")
    size = gr.resample(ct, spacing=(1, 1, 2), interpolation="nearest").GetSize()[::-1]
    for seed, name in enumerate(("fold0.npy", "fold1.npy")):
        np.save(name, noise((3, *size), "float32", seed))
    return {
        "sitk": sitk, "gr": gr, "ct": ct, "moving": ct, "fixed": ct, "registration": sitk.Euler3DTransform(),
        "labels": to_image(labels((z, y, x)), ANISOTROPIC), "array": noise((24, 40, 40), "float32"),
    }  # fmt: skip


def test_every_page_with_code_is_run_here_or_elsewhere():
    assert {page for page in PAGES if run_here(page)} == set(CHECKS)


def first_call(here):
    assert here["network_input"].GetSpacing() == (1, 1, 2)


def start(here):
    first_call(here)
    assert same_bits(sitk.GetArrayFromImage(here["ct_again"]), sitk.GetArrayFromImage(here["ct"]))
    assert here["again"].GetSize() == here["ct"].GetSize()


def ensembles(here):
    got, ct = sitk.ReadImage("labels.nii.gz"), sitk.ReadImage("ct.nii.gz")
    assert got.GetSize() == ct.GetSize()
    assert got.GetPixelID() == sitk.sitkUInt8
    assert set(np.unique(sitk.GetArrayFromImage(got))) == {0, 1, 5}
    assert here["labels"].GetSize() == got.GetSize()


def tiles(here):
    """A tile has the bits of the whole."""
    whole = here["tiles"].run(here["array"])
    assert same_bits(here["tile"], np.ascontiguousarray(whole[here["block"]]))


def drop_in(here):
    theirs = sitk.Resample(here["moving"], here["ct"], sitk.Transform(), sitk.sitkBSpline)
    assert same_bits(sitk.GetArrayFromImage(here["moved"]), sitk.GetArrayFromImage(theirs))


def scipys(here):
    volume = here["volume"]
    assert np.abs(here["thin"] - scipy.ndimage.zoom(volume, (0.5, 1, 1), order=3)).max() < 2e-6
    assert np.abs(here["smooth"] - scipy.ndimage.gaussian_filter(volume, 2, mode="wrap")).max() < 2e-6


CHECKS = {
    "README.md": first_call, "docs/ensembles.md": ensembles, "docs/integrations.md": drop_in, "docs/plans.md": tiles,
    "docs/ndimage.md": scipys, "docs/index.md": first_call, "docs/start.md": start,
}  # fmt: skip


@pytest.mark.parametrize("page", CHECKS)
def test_the_code_of_a_page(page, names):
    for number, code in enumerate(run_here(page)):
        exec(compile(code, f"{page}, {number}", "exec"), names)
    CHECKS[page](names)


# --- what the pages say ----------------------------------------------------------------------------------------------


def test_the_readme_is_short():
    assert len(text_of("README.md").encode()) <= 12_000


@pytest.mark.parametrize(("page", "name", "maker"), readme.OF_A_RUN, ids=lambda v: v if isinstance(v, str) else "")
def test_tables_are_those_of_the_recorded_run(page, name, maker):
    made = maker(records.read(RECORDED), RECORDED.parent.name)
    assert f"<!-- {name} -->\n{made}\n<!-- /{name} -->" in text_of(page)


def test_a_report_of_parity_fills_both_pages(tmp_path, monkeypatch, capsys):
    equal = ("nearest", *readme.FAMILIES["labels (Gaussian, linear)"])
    rows = [
        {
            "interpolation": name, "geometry": "finer", "bound": 0 if name in equal else bound,
            "error": 0 if name in equal else error, "differ": 0 if name in equal else 0.001,
        }
        for names in (*readme.FAMILIES.values(), *readme.FILTERS.values()) for name in names
        for bound, error in ((2e-6, 3e-7), (1e-9, 4e-11))
    ]  # fmt: skip
    machine = {"cpu": "Made-up", "cores": 2, "threads": 2, "date": "2026-01-02", "versions": {"SimpleITK": "2.5.7"}}
    report = {"ok": True, "rows": rows, "machine": machine, "command": "python -m benchmarks.parity --json x"}
    (tmp_path / "parity.json").write_text(json.dumps(report))
    (tmp_path / "docs").mkdir()
    for page in ("README.md", "docs/numbers.md"):
        (tmp_path / page).write_text(text_of(page))
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    assert readme.main([str(tmp_path / "parity.json")]) == 0
    assert capsys.readouterr().out == "written: README.md\nwritten: docs/numbers.md\n"
    worst = f"| worst of {len(rows)} comparisons; nearest and label modes are equal | 3e-07 | 4e-11 | 0.1 % |"
    assert worst in (tmp_path / "README.md").read_text()
    assert "| B-splines of order 1 to 5 | 3e-07 | 4e-11 | 0.1 % |" in (tmp_path / "docs/numbers.md").read_text()


def test_the_rule_of_auto_is_the_engines():
    """The table of docs/gpu.md: from how many voxels on the GPU is faster."""
    rows = re.findall(r"^ +\| (\d+) \| (.*) \| (.*) \|$", text_of("docs/gpu.md"), re.MULTILINE)
    assert [row[0] for row in rows] == ["2", "8", "16"]
    units = {"thousand": 1e3, "million": 1e6}
    for threads, *cells in rows:
        for cell, gathers in zip(cells, (False, True), strict=True):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(engines, "get_num_threads", lambda n=int(threads): n)
                if cell == "never":
                    assert not engines.pays(10**12, gathers)
                    continue
                number, unit, _ = cell.split()
                voxels = float(number) * units[unit]
                assert not engines.pays(int(0.94 * voxels), gathers), cell
                assert engines.pays(int(1.06 * voxels), gathers), cell


def link_targets(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)):
        if not target.startswith(("http:", "https:", "#")):
            yield target


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in link_targets(page):
        file, _, title = target.partition("#")
        path = (ROOT / page).parent / file
        assert path.exists(), target
        if title:
            titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert title in {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}, target


# --- the command line ------------------------------------------------------------------------------------------------

COMMANDS = text_of("docs/command-line.md").split("```")[1].strip().splitlines()
# Longer than the rest together, and run elsewhere: by `make demo`, by test_verify.py.
NOT_HERE = ("gpuresample demo", "gpuresample verify")


def test_the_readmes_commands_are_among_them():
    assert set(text_of("README.md").split("## Command line\n")[1].split("```")[1].strip().splitlines()) < set(COMMANDS)


@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.startswith(NOT_HERE)])
def test_the_commands(command, run, tmp_path, monkeypatch):
    pytest.importorskip("typer", reason="the command line is the extra gpuresample[cli]")
    monkeypatch.chdir(tmp_path)
    ct = volume()
    sitk.WriteImage(ct, "ct.nii.gz")
    sitk.WriteTransform(sitk.Euler3DTransform(ct.GetOrigin(), 0, 0, 0.1, (1, 2, 3)), "rigid.tfm")
    if "-o labels.nii.gz" not in command:
        sitk.WriteImage(ct > 100, "labels.nii.gz")
    for seed, name in enumerate(("fold0.npz", "fold1.npz")):
        np.savez_compressed(name, probabilities=noise((3, *ct.GetSize()[::-1]), "float32", seed))
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    program, *arguments = shlex.split(command)
    code, _, err = run(*arguments)
    assert program == "gpuresample"
    assert code == 0, err
    outputs = [a for a in arguments if re.search(r"\.(nii\.gz|html|zarr)$|/$", a) and a.rstrip("/") not in before]
    for name in outputs:
        assert Path(name).exists(), f"{command} made no {name}"

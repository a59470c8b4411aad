"""The README's code and commands are run as they stand; integrations/ runs its section on other libraries."""

import re
import shlex
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from cli_support import volume
from support import labels, noise, same_bits, to_image
from test_smoothing import ANISOTROPIC

import gpuresample as gr
from gpuresample.costs import rates

README = (Path(__file__).parents[1] / "README.md").read_text()
ELSEWHERE = ("Drop in",)


def blocks():
    """The code of every section that is not run elsewhere, by the section's title and a number."""
    found = {}
    for section in re.split(r"^##+ ", README, flags=re.MULTILINE):
        title = section.split("\n")[0].strip("# ")
        for number, code in enumerate(re.findall(r"```python\n(.*?)```", section, re.DOTALL)):
            if title not in ELSEWHERE:
                found[f"{title} {number}"] = code
    return found


def test_all_code_is_run_somewhere():
    assert README.count("```python") == len(blocks()) + README.split("### Drop in\n")[1].split("\n### ")[0].count(
        "```python"
    )


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the README takes for granted, and whatever its code has made by the end."""
    place = tmp_path_factory.mktemp("readme")
    z, y, x = ANISOTROPIC.size[::-1]
    ct = to_image(noise((z, y, x), "int16"), ANISOTROPIC)
    sitk.WriteImage(ct, str(place / "ct.nii.gz"))
    known = {
        "sitk": sitk, "gr": gr, "moving": ct, "fixed": ct, "registration": sitk.Euler3DTransform(),
        "labels": to_image(labels((z, y, x)), ANISOTROPIC), "array": noise((24, 40, 40), "float32"),
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for title, code in blocks().items():
            if title.startswith("Scores"):
                size = known["network_input"].GetSize()[::-1]
                for seed, name in enumerate(("fold0.npy", "fold1.npy")):
                    np.save(place / name, noise((3, *size), "float32", seed))
            if title.startswith("Plans"):
                # Blocks are the README's own: the volume must have room for them.
                known["ct"] = to_image(noise((40, 130, 200), "int16"), ANISOTROPIC._replace(size=(200, 130, 40)))
            exec(compile(code, f"README.md, {title}", "exec"), known)
            known[f"after {title}"] = dict(known)
    known["place"] = place
    return known


def test_the_first_call(names):
    spacing = names["after gpuresample 0"]["network_input"].GetSpacing()
    assert spacing == (1, 1, 2)


def test_the_laplacian_gives_the_image_back(names):
    here = names["after Blur, subsample, pyramid 0"]
    assert same_bits(sitk.GetArrayFromImage(here["ct_again"]), sitk.GetArrayFromImage(here["ct"]))
    assert here["again"].GetSize() == here["ct"].GetSize()


def test_the_ensembles_labels(names):
    got = sitk.ReadImage(str(names["place"] / "labels.nii.gz"))
    ct = sitk.ReadImage(str(names["place"] / "ct.nii.gz"))
    assert got.GetSize() == ct.GetSize()
    assert got.GetPixelID() == sitk.sitkUInt8
    assert set(np.unique(sitk.GetArrayFromImage(got))) == {0, 1, 5}


def test_a_tile_has_the_bits_of_the_whole(names):
    whole = names["tiles"].run(names["array"])
    assert same_bits(names["tile"], np.ascontiguousarray(whole[names["block"]]))


# --- the command line ------------------------------------------------------------------------------------------------

COMMANDS = README.split("## Command line\n")[1].split("```")[1].strip().splitlines()
# Longer than the rest together, and run elsewhere: by `make demo`, by test_verify.py.
NOT_HERE = ("gpuresample demo", "gpuresample verify")


@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.startswith(NOT_HERE)])
def test_the_commands(command, run, tmp_path, monkeypatch):
    pytest.importorskip("typer", reason="the command line is the extra gpuresample[cli]")
    monkeypatch.chdir(tmp_path)
    ct = volume()
    sitk.WriteImage(ct, "ct.nii.gz")
    if "-o labels.nii.gz" not in command:
        sitk.WriteImage(ct > 100, "labels.nii.gz")
    for seed, name in enumerate(("fold0.npz", "fold1.npz")):
        np.savez_compressed(name, probabilities=noise((3, *ct.GetSize()[::-1]), "float32", seed))
    # Measuring this machine is not what is asked here.
    monkeypatch.setenv(rates.ENVIRONMENT, str(tmp_path / "cache"))
    rates.save(rates.Rates(rates.identity(), time.time(), dict.fromkeys(rates.NAMES, 1e-9)))
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    program, *arguments = shlex.split(command)
    code, _, err = run(*arguments)
    assert program == "gpuresample"
    assert code == 0, err
    outputs = [a for a in arguments if re.search(r"\.(nii\.gz|html|zarr)$|/$", a) and a.rstrip("/") not in before]
    for name in outputs:
        assert Path(name).exists(), f"{command} made no {name}"

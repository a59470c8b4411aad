"""The code of docs/integrations.md is run; a library that is missing is named."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

PAGE = (Path(__file__).parents[3] / "docs" / "integrations.md").read_text()


def blocks():
    """The code of the page's section on dropping in, by the integration it is about."""
    section = PAGE.split("## Drop in\n")[1].split("\n## ")[0]
    found = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    return {re.search(r"gpuresample\.(\w+)", code)[1]: code for code in found}


def test_the_page_shows_all_four():
    assert list(blocks()) == ["torch", "monai", "torchio", "nnunet"]


def test_torch_as_on_the_page():
    samples = [{"image": torch.rand(1, 40 + k, 50, 60), "seg": torch.ones(1, 40 + k, 50, 60).byte()} for k in range(2)]
    names = {
        "volume": torch.rand(1, 2, 20, 30, 30, requires_grad=True),
        "dataset": samples,
        "DataLoader": torch.utils.data.DataLoader,
    }
    exec(blocks()["torch"], names)
    assert names["logits"].shape == (1, 2, 64, 96, 96)
    assert names["logits"].requires_grad
    (batch,) = names["loader"]
    assert {k: tuple(v.shape) for k, v in batch.items()} == dict.fromkeys(("image", "seg"), (2, 1, 48, 64, 64))


def test_monai_as_on_the_page():
    from monai.data import MetaTensor

    affine = torch.diag(torch.tensor([1.5, 1.5, 1.0, 1.0], dtype=torch.float64))
    sample = {
        "image": MetaTensor(torch.rand(1, 20, 22, 24), affine=affine),
        "label": MetaTensor(torch.randint(0, 4, (1, 20, 22, 24)).float(), affine=affine),
    }
    names = {"sample": sample}
    exec(blocks()["monai"], names)
    assert names["sample"]["image"].pixdim.tolist() == [1, 1, 2]
    assert set(names["sample"]["label"].unique().tolist()) == {0, 1, 2, 3}


def test_torchio_as_on_the_page():
    import torchio

    names = {"subject": torchio.Subject(image=torchio.ScalarImage(tensor=torch.rand(1, 20, 22, 24)))}
    exec(blocks()["torchio"], names)
    assert names["subject"].image.spacing == (1, 1, 2)


def test_augmentations_as_on_the_page():
    """On a subject that is large enough for the elastic ones not to fold."""
    import torchio
    from monai.data import MetaTensor

    monai, tio = re.findall(r"```python\n(.*?)```", PAGE.split("\n## Augmentations\n")[1].split("\n## ")[0], re.DOTALL)
    image, labels = torch.rand(1, 90, 92, 94), torch.randint(0, 4, (1, 90, 92, 94)).float()
    names = {"sample": {"image": MetaTensor(image), "label": MetaTensor(labels)}}
    exec(monai, names)
    assert names["sample"]["image"].shape == image.shape
    assert set(names["sample"]["label"].unique().tolist()) == {0, 1, 2, 3}
    names = {"subject": torchio.Subject(image=torchio.ScalarImage(tensor=image), label=torchio.LabelMap(tensor=labels))}
    torch.manual_seed(0)
    exec(tio, names)
    assert type(names["subject"].history[0]).__name__ == "GpuAffine"
    assert set(names["subject"].label.data.unique().tolist()) == {0, 1, 2, 3}


def test_nnunet_as_on_the_page():
    """In a process of its own: what it installs stays."""
    code = blocks()["nnunet"] + (
        "\nfrom nnunetv2.preprocessing.resampling.utils import recursive_find_resampling_fn_by_name as find"
        "\nprint(find('resample_data_or_seg_to_shape').__module__, find('resample_gpuresample').__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "gpuresample.nnunet resample_gpuresample"


def test_nnunet_in_detail():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.split("## nnU-Net, in detail\n")[1], re.DOTALL)
    code += (
        "\nfrom nnunetv2.preprocessing.resampling.utils import recursive_find_resampling_fn_by_name as find"
        "\nprint(find('resample_data_or_seg_to_shape').__module__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("nnunetv2.")


@pytest.mark.parametrize(
    ("module", "library", "extra"),
    [("torch", "torch", "PyTorch"), ("monai", "monai", "MONAI"), ("torchio", "torchio", "TorchIO"),
     ("nnunet", "nnunetv2", "nnU-Net")],
)  # fmt: skip
def test_a_missing_library_is_named_with_what_installs_it(module, library, extra):
    code = f"import sys; sys.modules[{library!r}] = None; import gpuresample.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    last = done.stderr.splitlines()[-1]
    assert last == f'ImportError: gpuresample.{module} needs {extra}: pip install "gpuresample[{module}]"'

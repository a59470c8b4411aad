"""The libraries that the integrations are tested against are really there."""

import importlib

import pytest


@pytest.mark.parametrize("name", ["torch", "monai", "torchio", "nnunetv2", "skimage", "nibabel", "itk", "nitransforms"])
def test_the_library_is_installed(name):
    assert importlib.import_module(name).__name__ == name

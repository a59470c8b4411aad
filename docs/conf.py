"""How Sphinx builds the site of docs/: `make docs`. Nothing is fetched from the network."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import gpuresample  # noqa: E402

project = "gpuresample"
author = "the authors of gpuresample"
project_copyright = author
version = release = gpuresample.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "gallery/*.rst"]
root_doc = "index"
highlight_language = "none"  # what is Python says so
# A name in single backquotes is code, and a link where the reference has that name.
default_role = "py:obj"

# --- the reference ---------------------------------------------------------------------------------------------------

# Libraries that the reference can do without: their integrations are documented from their docstrings.
autodoc_mock_imports = [
    "torch",
    "monai",
    "torchio",
    "batchgeneratorsv2",
    "nnunetv2",
    "batchgenerators",
    "cupy",
    "dask",
    "zarr",
    "distributed",
]
autodoc_typehints = "none"  # the docstrings say types, and shapes with them
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 88
autosummary_generate = True
numpydoc_show_class_members = False
numpydoc_use_plots = False

# --- pages -----------------------------------------------------------------------------------------------------------

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
html_theme = "pydata_sphinx_theme"
html_title = "gpuresample"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_show_copyright = False
html_theme_options = {
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "header_links_before_dropdown": 4,
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": [],
    "footer_end": ["sphinx-version"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}

# --- the gallery -----------------------------------------------------------------------------------------------------

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "examples",
    "filename_pattern": r"/plot_",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_signature": False,
    "min_reported_time": 1e9,  # times of a busy machine are no news
    "write_computation_times": False,
    "remove_config_comments": True,
    "abort_on_example_error": True,
    "capture_repr": (),
    "thumbnail_size": (480, 300),
    "plot_gallery": True,
}


def beyond_the_site(text: str) -> str:
    """Links from a page to files outside docs/ as plain names: the site does not hold these files."""
    return re.sub(r"\[([^\]]*)\]\(\.\./([^)#\s]+)[^)\s]*\)", _named, text)


def _named(match: re.Match[str]) -> str:
    words, path = match[1], match[2]
    named = f"`{path}`"
    return named if words.strip("`/") in path else f"{words} ({named})"


def to_the_gallery(text: str) -> str:
    """The gallery's folder as the page that is made of it."""
    return text.replace("](gallery/README.txt)", "](examples/index.rst)")


def without_missing_pages(text: str) -> str:
    """A table of contents without the line of a page that does not exist: docs/transforms.md."""
    return text if (HERE / "transforms.md").exists() else re.sub(r"^transforms\n", "", text, flags=re.MULTILINE)


def _on_source(_: Sphinx, page: str, source: list[str]) -> None:
    source[0] = to_the_gallery(beyond_the_site(source[0]))
    if page == "how-to":
        source[0] = without_missing_pages(source[0])


def _on_docstring(_: Sphinx, kind: str, __: str, ___: object, ____: object, lines: list[str]) -> None:
    """Docstrings are written for `help()`; this makes them markup."""
    # A star before a name, as in "*.nii", begins no emphasis.
    text = re.sub(r"""(["']|, )\*(?=\w)""", r"\1\\*", "\n".join(lines))
    if kind == "module":  # what is indented there is code, up to the next line that is not
        text = re.sub(r"(?<=\n\n)((?:    .*\n|\n(?=    ))+)", r".. code-block:: python\n\n\1", text)
    lines[:] = text.split("\n")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _on_source)
    app.connect("autodoc-process-docstring", _on_docstring, priority=400)  # numpydoc comes later

"""Reports: escaping, themes, one file."""

import re

import numpy as np
import pytest

from gpuresample.pages import COLOURS, Cell, Page, Picture


def draw(figure):
    axes = figure.subplots()
    axes.bar(["SimpleITK", "gpuresample"], [5.4, 0.05], label="seconds")
    axes.plot([0, 1], [5, 1], color="red", label="<script>")
    axes.set_ylabel("seconds")
    axes.legend()


@pytest.fixture
def page():
    page = Page("A report", "of <everything>")
    page.section("Figures")
    page.facts([("largest error", Cell("3e-7", "good")), ("broken", Cell("2", "bad"))])
    page.table(
        ("file", "seconds", "state"),
        [["a & b.nii", "1.5", Cell("done", "good")], ["<b>", "12", Cell("failed", "bad", "b.html")]],
        "two files",
    )
    page.section("Plots")
    page.plot("seconds of each", draw)
    page.plot("the same again", draw)
    page.pictures([Picture.of(np.arange(64, dtype=np.uint8).reshape(8, 8), "a ramp")])
    return page


def test_text_is_escaped(page):
    html = page.html()
    assert "of &lt;everything&gt;" in html
    assert "a &amp; b.nii" in html
    assert "<td>&lt;b&gt;</td>" in html
    assert "<script" not in html


def test_nothing_is_loaded_from_elsewhere(page):
    html = page.html()
    addresses = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert addresses
    assert all(a.startswith(("data:", "#")) or a == "b.html" for a in addresses)
    assert not re.search(r"url\((?!#)|@import|<link|<script", html)


def test_the_ink_of_plots_is_the_pages(page):
    html = page.html()
    assert "currentColor" in html
    assert "#010203" not in html
    assert "#040506" not in html
    assert "prefers-color-scheme: dark" in html


def test_names_within_plots_differ(page):
    # What a plot refers to by name, clip paths and markers, must be its own.
    html = page.html()
    used = set(re.findall(r"url\(#([^)]+)\)", html)) | set(re.findall(r'xlink:href="#([^"]+)"', html))
    names = re.findall(r' id="([^"]+)"', html)
    assert used
    assert {name: names.count(name) for name in used} == dict.fromkeys(used, 1)


def test_figures_stand_to_the_right(page):
    html = page.html()
    assert '<td class="right">12</td>' in html
    assert "<td>a &amp; b.nii</td>" in html


def test_a_page_is_written_whole(page, tmp_path):
    page.write(tmp_path / "report.html")
    page.write(tmp_path / "report.html")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text(encoding="utf-8").endswith("</html>")


def test_the_same_report_is_the_same_text(page):
    assert page.html() == page.html()


def contrast(a, b):
    """WCAG 2's ratio of two colours."""

    def luminance(colour):
        parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        r, g, b = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colour", COLOURS)
def test_colours_show_in_both_themes(colour):
    assert contrast(colour, "#ffffff") > 2
    assert contrast(colour, "#14171b") > 2


def test_letters_are_readable_in_both_themes(page):
    light, dark = re.findall(r":root \{([^}]*)\}", page.html())
    for theme in (light, dark):
        named = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", theme))
        for ink in ("ink", "soft", "good", "warn", "bad", "link"):
            assert contrast(named[ink], named["paper"]) > 4.5, ink
            assert contrast(named[ink], named["band"]) > 4.5, ink


def test_contents_fold_the_sections_of_a_group():
    page = Page("A report")
    page.section("First")
    for k in range(3):
        page.section(f"Case {k}", group="cases")
    page.section("Last")
    nav = re.search("<nav>.*</nav>", page.html()).group()
    assert re.sub(' href="#s.*?"', "", nav) == (
        "<nav><a>First</a><details><summary>3 cases</summary><a>Case 0</a><a>Case 1</a><a>Case 2</a></details>"
        "<a>Last</a></nav>"
    )
    assert all(f'id="{there}"' in page.html() for there in re.findall('href="#(.*?)"', nav))

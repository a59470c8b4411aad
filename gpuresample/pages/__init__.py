"""Reports as one HTML file: sections of text, tables, plots and pictures; readable in a light and a dark theme.

Nothing is loaded from elsewhere: style, plots (SVG) and pictures (PNG) are in the file. jinja2 escapes all text.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample import texts
from gpuresample.files import volumes as files

# Of plots: Okabe and Ito's, which colour-blind people tell apart; they stand out on white and on near black alike.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8c8c8c")
# Drawn in this colour, lines and letters of a plot take the page's own.
_INK = "#010203"
_FAINT = "#040506"


@dataclass(frozen=True)
class Cell:
    """A cell of a table with a state.

    Attributes
    ----------
    text : str
    state : {"", "good", "warn", "bad"}
        Its colour, and a sign before the text: colour alone says nothing to some.
    link : str
        A relative address, if the text is to lead somewhere.
    """

    text: str
    state: str = ""
    link: str = ""


@dataclass(frozen=True)
class Picture:
    """A grey or colour picture with a caption.

    Attributes
    ----------
    source : str
        A `data:` address.
    caption : str
    """

    source: str
    caption: str

    @classmethod
    def of(cls, pixels: npt.NDArray[np.uint8], caption: str) -> Picture:
        """A picture of pixels (rows, columns) or (rows, columns, 3)."""
        from matplotlib import image

        buffer = io.BytesIO()
        rgb = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
        image.imsave(buffer, rgb, format="png")
        return cls("data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode(), caption)


@dataclass
class Page:
    """A report under way: parts are added in their order, then it is written."""

    title: str
    subtitle: str = ""
    _parts: list[dict[str, Any]] = field(default_factory=list, repr=False)

    def section(self, title: str, group: str = "") -> None:
        """A heading; the page's contents list it, those of a `group` folded under what they are many of."""
        self._parts.append({"kind": "section", "title": title, "id": f"s{len(self._parts)}", "group": group})

    def text(self, text: str) -> None:
        """A paragraph of plain text."""
        self._parts.append({"kind": "text", "text": text})

    def facts(self, facts: Sequence[tuple[str, str | Cell]]) -> None:
        """Large figures in a row: what, and how much."""
        self._parts.append({"kind": "facts", "facts": [(what, _cell(value)) for what, value in facts]})

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str | Cell]], caption: str = "") -> None:
        """A table. A column of which every cell begins like a number stands to the right."""
        cells = [[_cell(c) for c in row] for row in rows]
        right = [bool(cells) and all(_is_figure(row[k].text) for row in cells) for k in range(len(header))]
        self._parts.append({"kind": "table", "header": list(header), "rows": cells, "right": right, "caption": caption})

    def pictures(self, pictures: Sequence[Picture]) -> None:
        """Pictures side by side."""
        self._parts.append({"kind": "pictures", "pictures": list(pictures)})

    def plot(self, caption: str, draw: Callable[[Any], None], width: float = 9.0, height: float = 4.0) -> None:
        """A plot.

        Parameters
        ----------
        caption : str
            What it shows; also its text for those who cannot see it.
        draw : callable
            Draws on the `matplotlib.figure.Figure` that it is given. Lines, letters and grid have the page's colour
            unless set; `COLOURS` serve both themes.
        width, height : float
            In inches of 72 points.
        """
        self._parts.append({"kind": "plot", "svg": _svg(draw, width, height, len(self._parts)), "caption": caption})

    def html(self) -> str:
        """The page as text."""
        import jinja2

        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("gpuresample", "pages"), autoescape=True, trim_blocks=True, lstrip_blocks=True
        )
        sections = [p for p in self._parts if p["kind"] == "section"]
        contents = [(group, list(listed)) for group, listed in groupby(sections, lambda p: p["group"])]
        template = environment.get_template("page.html")
        return template.render(
            title=self.title, subtitle=self.subtitle, parts=self._parts, contents=contents if len(sections) > 2 else []
        )

    def write(self, path: Path) -> None:
        """Write the page, whole or not at all; what was there is replaced.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        with files.replacing(path) as partial:
            partial.write_text(texts.printable(self.html()), encoding="utf-8")


def _cell(value: str | Cell) -> Cell:
    return value if isinstance(value, Cell) else Cell(value)


def _is_figure(text: str) -> bool:
    return not text or text[0].isdigit() or text in ("-", "?") or (text[0] in "+-<>~" and text[1:2].isdigit())


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib as mpl
    from cycler import cycler

    style: dict[str, Any] = {
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 10,
        "text.color": _INK,
        "axes.labelcolor": _INK,
        "axes.edgecolor": _FAINT,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.prop_cycle": cycler(color=COLOURS),
        "grid.color": _FAINT,
        "grid.linewidth": 0.5,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "legend.frameon": False,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "savefig.facecolor": "none",
    }
    with mpl.rc_context(style):
        yield


def _svg(draw: Callable[[Any], None], width: float, height: float, number: int) -> str:
    """What `draw` draws, as an SVG element whose ink is the page's."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    # Names within a plot must differ from those of the page's other plots.
    with _style(), mpl.rc_context({"svg.hashsalt": f"plot {number}", "svg.id": f"plot{number}"}):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    return svg.replace(_INK, "currentColor").replace(_FAINT, "var(--faint)")

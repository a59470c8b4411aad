"""What a batch is to do: volumes found in a folder, listed, or in a table, and where each result goes."""

from __future__ import annotations

import csv
import difflib
import os
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gpuresample import texts
from gpuresample.files import disk
from gpuresample.files import volumes as files
from gpuresample.files.job import Settings

# In OUT_DIR: records, lock, logs.
PRIVATE = ".gpuresample"
REPORTS = ("report.csv", "report.html")

# Formats of volumes. Pictures (PNG, JPEG) are taken by pattern only: folders of volumes have previews in them.
READABLE = (
    ".nii", ".nii.gz", ".nii.zst", ".nrrd", ".nhdr", ".mha", ".mhd", ".hdr", ".h5", ".hdf5", ".mnc", ".mrc", ".gipl",
    ".gipl.gz", ".vtk", ".tif", ".tiff", ".mgz", ".mgh",
)  # fmt: skip
_DICOM = (".dcm", ".ima", ".dicom")
# What a result becomes whose input's format is not written.
_INSTEAD = {".mhd": ".mha", ".nhdr": ".nrrd", ".hdr": ".nii"}
_DEFAULT = ".nii.gz"
_WHOLE_RUN = ("overwrite", "threads", "level")


@dataclass(frozen=True)
class Item:
    """One volume of a batch.

    Attributes
    ----------
    source, target : str
        Absolute paths.
    name : str
        Of the target, relative to OUT_DIR: the item's key in records.
    settings : Settings
    where : str
        "line 7 of cohort.csv", or nothing.
    """

    source: str
    target: str
    name: str
    settings: Settings
    where: str = ""


def items(
    source: Path,
    target: Path,
    settings: Settings,
    pattern: str | None = None,
    listing: Path | None = None,
    table: Path | None = None,
    file_format: str | None = None,
) -> list[Item]:
    """What is to be done, in a stable order; whatever is wrong with it is refused here.

    Parameters
    ----------
    source, target : Path
        IN_DIR and OUT_DIR. Relative paths of lists and tables are relative to IN_DIR and OUT_DIR.
    settings : Settings
        Of all volumes, unless the table says otherwise.
    pattern : str, optional
        Glob of files, such as "*.nii.gz"; without a slash it is for names in all folders.
    listing, table : Path, optional
        A file with one path a line; a CSV file.
    file_format : str, optional
        Extension of the results, one of `files.WRITABLE`; the input's unless given.

    Raises
    ------
    ValueError
        With the line, for unknown columns, bad values, paths that leave OUT_DIR, two inputs for one output.
    OSError
        For what is missing or cannot be read.
    """
    if sum(x is not None for x in (pattern, listing, table)) > 1:
        raise ValueError("pattern, list and csv are three ways to say which volumes: give one")
    if not source.is_dir():
        raise NotADirectoryError(f"{source}: is no folder")
    if file_format is not None and file_format not in files.WRITABLE:
        raise ValueError(f"format must be one of {', '.join(files.WRITABLE)}, got {file_format!r}")
    source, target = Path(os.path.realpath(source)), Path(os.path.realpath(target))
    if source == target:
        raise ValueError(f"the output folder must be another one than the input folder, got {target} for both")
    if table is not None:
        rows = _table_rows(table, source, settings)
    elif listing is not None:
        rows = [(path, None, settings, where) for path, where in _listed(listing, source)]
        settings.check()
    else:
        found = _matching(source, target, pattern) if pattern is not None else _found(source, target)
        rows = [(path, None, settings, "") for path in sorted(found)]
    made = [_item(source, target, *row, file_format) for row in rows]
    if not made:
        raise ValueError(f"{table or listing or source}: no volumes" + (f" match {pattern!r}" if pattern else ""))
    _refuse_collisions(made)
    _check_settings(made)
    return made


def _found(root: Path, out: Path) -> Iterator[Path]:
    """Volumes below a folder: files by extension; a folder's DICOM files as one series."""
    for folder, names in _walk(root, out):
        dicom = []
        for name in names:
            path = folder / name
            if name.lower().endswith(READABLE):
                yield path
            elif _is_dicom(path):
                dicom.append(path)
        # A file alone may be an enhanced one that holds a volume.
        if dicom:
            yield dicom[0] if len(dicom) == 1 else folder


def _matching(root: Path, out: Path, pattern: str) -> Iterator[Path]:
    for folder, names in _walk(root, out):
        for name in names:
            inside = (folder / name).relative_to(root)
            if inside.match(pattern):
                yield folder / name


def _walk(root: Path, out: Path) -> Iterator[tuple[Path, list[str]]]:
    """Folders and the files in them, without OUT_DIR, hidden files and what batches keep for themselves."""
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        folders[:] = sorted(f for f in folders if not f.startswith(".") and Path(os.path.realpath(here / f)) != out)
        yield here, sorted(n for n in names if not n.startswith("."))


def _is_dicom(path: Path) -> bool:
    # A pipe would be waited for.
    if disk.odd_kind(path):
        return False
    suffix = path.suffix.lower()
    if suffix in _DICOM:
        return True
    if suffix and not suffix[1:].isdigit():
        return False
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _listed(listing: Path, root: Path) -> Iterator[tuple[Path, str]]:
    text = listing.read_text(encoding="utf-8-sig", errors="surrogateescape")
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield _input(root, line.strip()), f"line {number} of {listing.name}"


def _table_rows(table: Path, root: Path, settings: Settings) -> list[tuple[Path, str | None, Settings, str]]:
    rows = []
    with open(table, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        columns = [(c or "").strip().replace("-", "_") for c in reader.fieldnames or []]
        _check_columns(table, columns)
        reader.fieldnames = columns
        try:
            for row in reader:
                where = f"line {reader.line_num} of {table.name}"
                if None in row or None in row.values():
                    raise ValueError(f"{where}: {len(columns)} cells are expected, one for each column")
                cells = {name: text.strip() for name, text in row.items()}
                rows.append(_row(cells, root, settings, where))
        except csv.Error as error:
            raise ValueError(f"line {reader.line_num} of {table.name}: no CSV: {error}") from None
    return rows


def _row(cells: dict[str, str], root: Path, settings: Settings, where: str) -> tuple[Path, str | None, Settings, str]:
    if not cells["input"]:
        raise ValueError(f"{where}: input is empty")
    words = {name: cells.get(name) or None for name in Settings.names()}
    for name in ("like", "transform"):
        words[name] = None if words[name] is None else str(root / texts.path_of(str(words[name])))
    try:
        output = texts.path_of(cells.get("output", "")) or None
        return _input(root, cells["input"]), output, settings.changed(words), where
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _check_columns(table: Path, columns: list[str]) -> None:
    allowed = ["input", "output", *Settings.names()]
    where = f"line 1 of {table.name}"
    if "input" not in columns:
        raise ValueError(f"{where}: there must be a column input, got {', '.join(columns) or 'nothing'}")
    for name in columns:
        if name in _WHOLE_RUN:
            raise ValueError(f"{where}: {name} is for the whole run; give it on the command line")
        if name not in allowed:
            near = difflib.get_close_matches(name, allowed, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; columns are {', '.join(allowed)}"
            raise ValueError(f"{where}: unknown column {name!r}{hint}")
        if columns.count(name) > 1:
            raise ValueError(f"{where}: column {name!r} is there twice")


def _input(root: Path, text: str) -> Path:
    return Path(os.path.normpath(root / texts.path_of(text)))


def _item(
    root: Path, out: Path, path: Path, output: str | None, settings: Settings, where: str, file_format: str | None
) -> Item:
    start = f"{where}: " if where else ""
    if where and not path.exists():
        raise ValueError(f"{start}{path}: no such file or folder")
    if output is None:
        if not path.is_relative_to(root):
            raise ValueError(
                f"{start}{path}: lies outside {root}, so its output needs a name: a CSV file's output column"
            )
        output = _mirrored(path, root, file_format)
    return Item(str(path), *_inside(out, output, start), settings, where)


def _mirrored(path: Path, root: Path, file_format: str | None) -> str:
    """Where a result goes: the same place under OUT_DIR."""
    inside = path.relative_to(root)
    if path.is_dir():
        name, ending = path.name, ""
        inside = Path(name) if path == root else inside
    else:
        known = (*READABLE, *_DICOM)
        ending = next((e for e in sorted(known, key=len, reverse=True) if path.name.lower().endswith(e)), path.suffix)
        name = path.name[: len(path.name) - len(ending)]
    own = _INSTEAD.get(ending.lower(), ending.lower())
    new = file_format or (own if own in files.WRITABLE else _DEFAULT)
    return (inside.parent / f"{name}{new}").as_posix()


def _inside(out: Path, output: str, start: str) -> tuple[str, str]:
    """Absolute and relative path of an output.

    Raises
    ------
    ValueError
        If it would lie outside OUT_DIR, by its words or by a symbolic link, or has no writable extension.
    """
    target = Path(os.path.normpath(out / output))
    if Path(output).is_absolute() or not target.is_relative_to(out) or ".." in Path(output).parts or target == out:
        raise ValueError(f"{start}output {output!r} leaves the output folder; a path within it is asked for")
    if not Path(os.path.realpath(target)).is_relative_to(out):
        raise ValueError(f"{start}output {output!r} leaves the output folder through a symbolic link")
    if os.path.realpath(target) != str(target):
        raise ValueError(f"{start}output {output!r} goes through a symbolic link; outputs are files in plain folders")
    name = target.relative_to(out).as_posix()
    if name.split("/")[0] == PRIVATE:
        raise ValueError(f"{start}output {output!r}: {PRIVATE} is for the batch's records")
    try:
        files.check_extension(target.name)
    except ValueError as error:
        raise ValueError(f"{start}output {error}") from None
    return str(target), name


def _refuse_collisions(made: Iterable[Item]) -> None:
    made = list(made)
    inputs = {_folded(os.path.realpath(item.source)) for item in made}
    outputs: dict[str, Item] = {}
    for item in made:
        other = outputs.setdefault(_folded(item.target), item)
        if other is not item:
            both = " and ".join(i.source + (f" ({i.where})" if i.where else "") for i in (other, item))
            alike = "" if other.name == item.name else f" and {other.name}, which are one file on some systems"
            raise ValueError(f"two inputs would be written to {item.name}{alike}: {both}")
        if _folded(item.target) in inputs:
            raise ValueError(f"{item.target} is an input, and would be replaced by the result of {item.source}")
    folders = {str(parent) for path in outputs for parent in Path(path).parents}
    clash = next((path for path in outputs if path in folders), None)
    if clash is not None:
        raise ValueError(f"{clash}: would be an output and a folder of outputs")


def _folded(path: str) -> str:
    """Equal for paths that are one where letters' case and Unicode form make no difference (macOS, Windows)."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", path).casefold())


def _check_settings(made: Iterable[Item]) -> None:
    """Refuse what no volume could be resampled with; each set of settings is tried once."""
    seen: set[Settings] = set()
    for item in made:
        if item.settings in seen:
            continue
        seen.add(item.settings)
        try:
            item.settings.check()
        except (ValueError, TypeError, OSError) as error:
            if not item.where:
                raise
            raise ValueError(f"{item.where}: {error}") from None

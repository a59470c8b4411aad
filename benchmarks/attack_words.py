"""Drawn command lines: hostile names, headers, sizes and options in odd combinations; a kind of `attack.py`.

A command line works, or it ends with exit code 1 (a file, memory) or 2 (the words) and one line that says why. Either
way there is no traceback, no file is half-written, and what was there before is as it was.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import os
import random
import re
import struct
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from gpuresample.cli import main
from gpuresample.files import volumes as files

# Not of the tools that start processes of their own, measure, or write nothing.
COMMANDS = ("resample", "resample", "resample", "blur", "downsample", "pyramid", "ensemble", "info", "plan-cost")

NUMBERS = (
    "1e400", "-1e400", "nan", "inf", "-inf", "5e-324", "1e-300", "1e300", "1e308", "0", "-0", "-1", "1", "2", "3",
    "0.7",
    "2.5", "1e9", "2147483648", "9223372036854775808", "18446744073709551616", "1" * 400, "0x10", "1_0", "\uff12",
    "\u0662", "\u22121", "1,5", "1;2", "", " ", "x", "--", "-", "%s%n", "$(id)", "\u202e2", "1\n2", "1e5", "100000",
    "1j",
)  # fmt: skip
WORDS = (
    "", " ", "nearest", "linear", "bspline", "bspline5", "lanczos", "label_gaussian", "LINEAR", "lin\u200bear", "mode",
    "edge", "mirror", "constant", "truncate", "skimage", "scipy", "nibabel", "simpleitk", "itk", "auto", "cpu", "cuda",
    "cuda:99", "cuda:-1", "float16", "float32", "uint8", "int64", "bool", "complex64", "object", "U9", "none", "..",
    "/",
    "\u0301", "x" * 5000, "isotropic", "1 / 2 / 4", "1 / 2 2 1", "/", "1 //", "recursive", "sampled", "true", "no",
)  # fmt: skip
SOUND = {
    "--interpolation": "nearest linear bspline label_linear", "--anchor": "first edge center", "--levels": "1 2 3",
    "--boundary": "nearest mirror reflect constant", "--rounding": "nearest truncate", "--device": "cpu auto",
    "--convention": "simpleitk scipy torch nibabel", "--dtype": "float32 int16 uint8", "--kind": "mean mode gaussian",
    "--reduce": "mode label mean", "--factors": "2 3 isotropic", "--schedule": "1 2", "--chunks": "4 8",
    "--ignore": "0 9",
    "--activation": "softmax none", "--threshold": "0.5", "--labels": "0 5", "--order": "0 1", "--volumes": "1 100",
    "--default-value": "0 -5", "--weights": "1", "--type": "int16 float32",
}  # fmt: skip
NAMES = (
    "ct.nii.gz", "ct.nii.gz", "ct.nrrd", "ct.mha", "flat.png", "flat.nrrd", "rgb.mha", "time.nii", "labels.nii.gz",
    "floats.nrrd", "one.nrrd", "caf\u00e9.nrrd", "cafe\u0301.nrrd", "a b\u202ec.nrrd", "line\nbreak.nrrd", "-1.nrrd",
    "--size.nrrd", "x" * 240 + ".nrrd", "empty.nii", "text.nii.gz", "cut.nii.gz", "cut.nrrd", "long.nii.gz", "folder",
    "nothing.nrrd", "link.nrrd", "pipe.nrrd", "huge.nrrd", "negative.mha", "nan.nii", "zero.nii", "dims.nii", "big.nii",
    "away.mha", "up.nhdr", "flipped.nrrd", "tiny.nrrd", "far.nrrd", "scores.npz", "scores.npy", "objects.npz", "t.tfm",
    "bad.tfm", "bytes\udcff.nrrd", "no.format", ".nrrd", "a.ome.zarr", ".", "..", "/dev/null", "/dev/zero",
    "\u0130.nrrd",
)  # fmt: skip
TARGETS = (
    "out.nii.gz", "out.nrrd", "out.mha", "out.nii", "out.png", "out.tif", "out.h5", "out.jpg", "out.ome.zarr", "out",
    "out.xyz", "there.nrrd", "sub/out.nrrd", "folder", "out\u00e9.nrrd", "out\n.nrrd", "y" * 240 + ".nrrd", "", ".",
    "z" * 300 + ".nrrd", "link.nrrd", "OUT.NII.GZ", "out.nii.gz.nrrd", "out.mgz", "-o.nrrd", "bytes\udcfe.nrrd",
    ".nrrd",
)  # fmt: skip


class Place:
    """A folder of inputs, sound and hostile ones, and one for outputs."""

    def __init__(self) -> None:
        self.kept = tempfile.TemporaryDirectory()
        self.root = Path(self.kept.name)
        (self.root / "in").mkdir()
        self._sound()
        self._hostile()

    def at(self, name: str) -> str:
        """Where an input of this name is."""
        return name if name.startswith(("/", ".")) and name != ".nrrd" else str(self.root / "in" / name)

    def _sound(self) -> None:
        voxels = np.random.default_rng(0).integers(0, 200, (7, 8, 9))
        ct = sitk.GetImageFromArray(voxels.astype(np.int16))
        ct.SetSpacing((0.8, 0.9, 1.5))
        for name in NAMES:
            if name.endswith((".nrrd", ".mha", "ct.nii.gz")) and "\udcff" not in name:
                sitk.WriteImage(ct, self.at(name))
        labels = sitk.Cast(sitk.GetImageFromArray((voxels > 150).astype(np.uint8)), sitk.sitkUInt8)
        sitk.WriteImage(labels, self.at("labels.nii.gz"))
        sitk.WriteImage(sitk.Cast(ct, sitk.sitkFloat32), self.at("floats.nrrd"))
        sitk.WriteImage(ct[:1, :1, :1], self.at("one.nrrd"))
        sitk.WriteImage(sitk.Cast(ct[:, :, 3], sitk.sitkUInt8), self.at("flat.png"))
        sitk.WriteImage(ct[:, :, 3], self.at("flat.nrrd"))
        sitk.WriteImage(sitk.Compose([sitk.Cast(ct, sitk.sitkUInt8)] * 3), self.at("rgb.mha"))
        sitk.WriteImage(sitk.JoinSeries([ct, ct]), self.at("time.nii"))
        sitk.WriteTransform(sitk.Euler3DTransform((1.0, 2.0, 3.0), 0.1, 0.0, 0.2), self.at("t.tfm"))
        scores = np.random.default_rng(1).random((2, 7, 8, 9)).astype(np.float32)
        np.savez(self.at("scores.npz"), probabilities=scores)
        np.save(self.at("scores.npy"), scores)
        Path(self.at("folder")).mkdir()

    def _hostile(self) -> None:
        put = {name: Path(self.at(name)) for name in NAMES}
        put["empty.nii"].write_bytes(b"")
        put["text.nii.gz"].write_bytes(gzip.compress(b"no image"))
        whole = put["ct.nii.gz"].read_bytes()
        put["cut.nii.gz"].write_bytes(whole[: len(whole) // 2])
        put["long.nii.gz"].write_bytes(gzip.compress(gzip.decompress(whole) + bytes(1000)))
        nrrd = put["ct.nrrd"].read_bytes()
        put["cut.nrrd"].write_bytes(nrrd[:-100])
        plain = nrrd.split(b"\n\n", 1)[0]
        for name, old, new in (
            ("huge.nrrd", rb"sizes: 9 8 7", b"sizes: 99999 99999 99999"),
            ("flipped.nrrd", rb"\(0.8", b"(-0.8"),
            ("tiny.nrrd", rb"\(0.8[^)]*\) \(0", b"(1e-300,0,0) (0"),
            ("far.nrrd", rb"space origin: \(0,0,0\)", b"space origin: (1e300,0,0)"),
        ):
            put[name].write_bytes(re.sub(old, new, plain) + b"\n\n" + nrrd.split(b"\n\n", 1)[1])
        put["up.nhdr"].write_bytes(plain.replace(b"encoding: gzip", b"encoding: raw") + b"\ndata file: ../../x.raw\n")
        mha = "ObjectType = Image\nNDims = 3\nDimSize = {}\nElementSpacing = {}\nElementType = MET_SHORT\n"
        put["negative.mha"].write_bytes(
            (mha.format("9 -8 7", "1 1 1") + "ElementDataFile = LOCAL\n").encode() + bytes(999)
        )
        put["away.mha"].write_text(mha.format("9 8 7", "1 nan 1") + "ElementDataFile = /etc/passwd\n")
        header = bytearray(gzip.decompress(whole))
        for name, at, form, value in (
            ("nan.nii", 80, "f", float("nan")), ("zero.nii", 84, "f", 0.0), ("dims.nii", 40, "h", 99),
            ("big.nii", 42, "h", 32767),
        ):  # fmt: skip
            changed = bytearray(header)
            struct.pack_into(f"<{form}", changed, at, value)
            put[name].write_bytes(changed)
        put["link.nrrd"].unlink()
        put["link.nrrd"].symlink_to("nothing at all")
        put["pipe.nrrd"].unlink()
        os.mkfifo(put["pipe.nrrd"])
        put["nothing.nrrd"].unlink()
        put["bytes\udcff.nrrd"].write_bytes(nrrd)
        np.savez(self.at("objects.npz"), probabilities=np.array([object], dtype=object))
        put["bad.tfm"].write_text(
            "#Insight Transform File V1.0\nTransform: Euler3DTransform_double_3_3\nParameters: 1 nan\n"
        )


@functools.cache
def place() -> Place:
    """The folder of this process."""
    return Place()


@functools.cache
def options_of(command: str) -> list[tuple[str, Any]]:
    """Every option of a command, and what it says of itself."""
    import typer

    from gpuresample.cli.app import app

    found: Any = typer.main.get_command(app())
    made = []
    for parameter in found.commands[command].params:
        if parameter.param_type_name == "option" and parameter.name not in ("threads", "overwrite"):
            made += [
                (word, parameter) for word in (*parameter.opts, *parameter.secondary_opts) if word.startswith("--")
            ]
    return made


def _value(rng: random.Random, word: str) -> list[str]:
    """What follows an option: sound, of another kind, or hostile."""
    how = rng.random()
    if word in ("--like", "--transform", "--output", "--probabilities", "--confidence", "--entropy"):
        name = "t.tfm" if word == "--transform" and how < 0.5 else rng.choice(NAMES)
        return [place().at(name if how < 0.8 else rng.choice(NAMES))]
    if word in ("--spacing", "--size", "--sigma", "--antialias", "--clip", "--factors", "--ignore", "--default-value"):
        if how < 0.6:
            return [rng.choice(("1", "2", "3", "1 1 2", "2 2 1", "0.7", "4 5 6"))]
        return [rng.choice(NUMBERS) for _ in range(rng.choice((1, 1, 3, 3, 2, 5)))]
    if word in SOUND and how < 0.6:
        return [rng.choice(SOUND[word].split())]
    return [rng.choice(WORDS if how < 0.8 else NUMBERS)]


def drawn(rng: random.Random, out: Path) -> list[str]:
    """A command line that writes to a folder, if anywhere."""
    command = rng.choice(COMMANDS)
    source = place().at(rng.choice(NAMES[: 10 if rng.random() < 0.6 else None]))
    target = out / rng.choice(TARGETS[: 4 if rng.random() < 0.6 else None])
    words = [command, source]
    if command in ("resample", "blur", "downsample", "pyramid"):
        words.append(str(target))
        if rng.random() < 0.8:
            words += {
                "resample": ["--spacing", "2"], "blur": ["--sigma", "1"], "downsample": ["--factors", "2"],
                "pyramid": ["--levels", "2"],
            }[command]  # fmt: skip
    elif command == "ensemble":
        words[1] = place().at(rng.choice(("scores.npz", "scores.npy", "objects.npz", rng.choice(NAMES))))
        words += ["--like", place().at("ct.nrrd"), "-o", str(target), "--no-picture"]
    elif command == "plan-cost" and rng.random() < 0.8:
        words += ["--spacing", "2"]
    for word, parameter in rng.choices(options_of(command), k=rng.choice((0, 0, 1, 1, 2, 6))):
        value = [] if getattr(parameter, "is_flag", False) else _value(rng, word)
        if rng.random() < 0.15:
            words.append(f"{word}={' '.join(value)}")
        else:
            words += [word, *value]
    if rng.random() < 0.1:
        words.insert(rng.randrange(len(words) + 1), rng.choice((*NUMBERS, *WORDS, "--overwrite", "--threads", "-h")))
    return words


def _tree(folder: Path) -> dict[str, Any]:
    """What is in a folder, to compare: sizes and times; a pipe is not opened."""
    return {str(p): (s.st_mode, s.st_size, s.st_mtime_ns) for p in folder.rglob("*") for s in (p.lstat(),)}


def command_lines(rng: random.Random) -> tuple[str, Callable[[], str]]:
    """A case of `attack.py`."""
    seed = rng.random()
    text = " ".join(map(repr, drawn(random.Random(seed), Path("OUT")))).replace(str(place().root), "ROOT")

    def run() -> str:
        from benchmarks.attacks import Found

        with tempfile.TemporaryDirectory() as name:
            out = Path(name)
            (out / "folder").mkdir()
            (out / "there.nrrd").write_bytes(b"was here")
            (out / "link.nrrd").symlink_to("there.nrrd")
            words = drawn(random.Random(seed), out)
            before, inputs = _tree(out), _tree(place().root)
            code, said, err = _called(words)
            after = _tree(out)
            if _tree(place().root) != inputs:
                raise Found("an input was changed")
            fresh = [p for p in after if p not in before]
            lines = [line for line in err.splitlines() if not line.startswith("warning: ")]
            if re.search(r"Traceback|unexpected \w+:|itk::ERROR|ITK ERROR|Exception thrown in|Errno", said + err):
                raise Found(f"exit code {code}: {err.strip()[-300:]!r}")
            if partial := [p for p in fresh if "partial" in p and not p.endswith("y" * 9)]:
                raise Found(f"exit code {code}, and {partial[0]} is left behind")
            if code == 0:
                if lines:
                    raise Found(f"exit code 0, and says {lines}")
                _check_written(fresh)
                return "answered"
            if code not in (1, 2) or len(lines) != 1 or not lines[0].startswith("error: ") or len(lines[0]) < 20:
                raise Found(f"exit code {code}, and says {err[-300:]!r}")
            if after != before and "--overwrite" not in words:
                raise Found(f"exit code {code}, but {sorted(set(after) ^ set(before))} were made or changed")
            return "refused"

    return text, run


def _called(words: list[str]) -> tuple[int, str, str]:
    """Exit code, output and errors of a command line, what C libraries say included."""
    said, err = io.StringIO(), io.StringIO()
    with tempfile.TemporaryFile() as native, warnings.catch_warnings():
        saved = os.dup(2)
        try:
            os.dup2(native.fileno(), 2)
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(err):
                code = main(words)
        finally:
            os.dup2(saved, 2)
            os.close(saved)
        native.seek(0)
        return code, said.getvalue(), err.getvalue() + native.read().decode("utf-8", "replace")


def _check_written(made: list[str]) -> None:
    """Whether what was made can be read."""
    from benchmarks.attacks import Found

    for path in made:
        if Path(path).suffix in (".nrrd", ".gz", ".mha", ".nii") and Path(path).is_file() and ".zarr" not in path:
            try:
                files.read(path)
            except (OSError, ValueError) as error:
                raise Found(f"{path} was written and cannot be read: {error}") from error

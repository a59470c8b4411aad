"""`gpuresample ensemble SCORES... --like IMAGE -o LABELS`: class scores of several models to one label map."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

import gpuresample as gr
from gpuresample.cli import console, filtering, flags, nnunet_scores, options, overlay
from gpuresample.files import scores as score_files
from gpuresample.files import volumes as files
from gpuresample.ops.ensemble import ACTIVATIONS

_SCORES, _LABELS, _MORE = "Scores", "Labels", "More outputs"


def ensemble(
    scores: Annotated[
        list[Path],
        typer.Argument(metavar="SCORES...", help=f"A file for each model: {', '.join(score_files.READABLE)}; .b2nd."),
    ],
    like: Annotated[Path, typer.Option(metavar="IMAGE", help="The image whose grid the labels will have.")],
    target: Annotated[
        Path, typer.Option("--output", "-o", metavar="LABELS", help=f"Where to write: {', '.join(files.WRITABLE)}.")
    ],
    activation: Annotated[
        str,
        typer.Option(
            help="softmax, sigmoid, or none for probabilities; auto: none for .npz, softmax otherwise.",
            rich_help_panel=_SCORES,
        ),
    ] = "auto",
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="A B ...", help="Share of each model; equal shares unless given.", rich_help_panel=_SCORES
        ),
    ] = None,
    interpolation: Annotated[
        str, typer.Option(help="linear, bspline, nearest, ...", rich_help_panel=_SCORES)
    ] = "linear",
    resample_after: Annotated[
        bool,
        typer.Option("--resample-after", help="Resample probabilities in place of scores.", rich_help_panel=_SCORES),
    ] = False,
    anchor: Annotated[
        str,
        typer.Option(help="How arrays without geometry lie: first, edge, center.", rich_help_panel=_SCORES),
    ] = "first",
    scores_spacing: Annotated[
        str | None,
        typer.Option(
            metavar="X Y Z",
            help="Spacing of arrays without geometry, in mm; unless given they cover the image.",
            rich_help_panel=_SCORES,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--array", metavar="NAME", help="Name of the array in .npz or zarr files.", rich_help_panel=_SCORES
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="A B ...",
            help="Value of each class in the label map; 0 1 2 ... unless given.",
            rich_help_panel=_LABELS,
        ),
    ] = None,
    threshold: Annotated[
        str,
        typer.Option(
            metavar="P ...",
            help="Of classes that may overlap: one number for all, or one for each.",
            rich_help_panel=_LABELS,
        ),
    ] = "0.5",
    regions: Annotated[
        str | None,
        typer.Option(
            metavar="A B ...",
            help="Of classes that may overlap: the label of each, later ones on top; for sigmoid bits unless given.",
            rich_help_panel=_LABELS,
        ),
    ] = None,
    probabilities: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the averages, one component for each class.", rich_help_panel=_MORE),
    ] = None,
    confidence: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the largest average.", rich_help_panel=_MORE)
    ] = None,
    entropy: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the entropy of the averages.", rich_help_panel=_MORE)
    ] = None,
    picture: Annotated[
        bool, typer.Option(help="Draw the labels on the image, beside LABELS.", rich_help_panel=_MORE)
    ] = True,
    device: flags.Device = "auto",
    threads: flags.Threads = None,
    level: flags.Level = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace outputs that exist.", rich_help_panel=flags.RUN)
    ] = False,
) -> None:
    """Resample the class scores of one or more models to an image's grid, average them, and write the label map.

    gpuresample ensemble fold0.npz fold1.npz --like ct.nii.gz -o labels.nii.gz

    gpuresample ensemble a.npy b.npy --like ct.nii.gz -o labels.nii.gz --scores-spacing 1 1 2 --labels 0 5 7
    """
    written = {"labels": target, "probabilities": probabilities, "confidence": confidence, "entropy": entropy}
    paths = {key: path for key, path in written.items() if path is not None}
    drawn = files.png_beside(target) if picture else None
    for path in paths.values():
        files.check_output(path, overwrite)
        files.check_level(path, level, "--level")
    if drawn is not None and drawn.exists() and not overwrite:
        raise FileExistsError(f"{drawn}: exists already; to replace it, say so (--overwrite)")
    for path in scores:
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder")
    if activation == "auto":
        kinds = {score_files.holds_probabilities(path) for path in scores}
        if len(kinds) > 1:
            raise ValueError("--activation must be given where .npz files and others are mixed")
        activation = "none" if kinds.pop() else "softmax"
    elif activation in ACTIVATIONS and name is None:
        for path in filter(score_files.holds_probabilities, scores):
            raise ValueError(
                f"{path}: an .npz holds probabilities, as nnU-Net writes them; --activation must be none, "
                f"got {activation}. If it holds scores, name their array (--array)"
            )
    spacing = options.one_or_all("--scores-spacing", scores_spacing)
    least = options.one_or_all("--threshold", threshold)
    keywords: dict[str, Any] = {
        "activation": None if activation == "none" else activation,
        "weights": options.numbers("--weights", weights, float),
        "interpolation": interpolation,
        "resample_after": resample_after,
        "anchor": anchor,
        "input_spacing": spacing[::-1] if isinstance(spacing, list) else spacing,
        "labels": options.numbers("--labels", labels, int),
        "threshold": least,
        "regions": options.numbers("--regions", regions, int),
        "output": list(paths),
        "device": device,
    }
    if weights is not None and len(keywords["weights"]) != len(scores):
        raise ValueError(f"--weights must be one number for each of the {len(scores)} models, got {weights!r}")
    with console.Phases() as phases:
        with phases.phase("read", f"reading {like.name}"), console.native_stderr_hidden():
            image = files.read(like, progress=phases.part)
        with phases.phase("combine", f"combining {len(scores)} models"):

            def one_by_one() -> Iterator[Any]:
                for number, path in enumerate(scores, start=1):
                    phases.say(f"reading {path.name}, model {number} of {len(scores)}")
                    with console.native_stderr_hidden():
                        read = nnunet_scores.read(path, name, image, spacing is not None, regions is not None)
                    yield read
                phases.say(f"combining {len(scores)} models")

            made = gr.ensemble(
                one_by_one(), like=image,
                progress=lambda share: phases.say(f"combining {len(scores)} models: {share:.0%}"), **keywords,
            )  # fmt: skip
        results = made if isinstance(made, tuple) else (made,)
        for result, path in zip(results, paths.values(), strict=True):
            with phases.phase("write", f"writing {path.name}"), console.native_stderr_hidden():
                files.keep_notes(image, result)
                files.write(result, path, overwrite, level, phases.part)
        if drawn is not None:
            with phases.phase("draw", f"drawing {drawn.name}"):
                overlay.draw(image, results[0], drawn, overwrite)
    for result, path in zip(results, paths.values(), strict=True):
        typer.echo(f"{path}: {filtering.geometry(files.Header.of(result))}")
    if drawn is not None:
        typer.echo(f"{drawn}: the labels on {like.name}")
    typer.echo(f"{len(scores)} models; {filtering.spent(phases)}")

"""`gpuresample reorient IN OUT`: the axes in another order and sense."""

from __future__ import annotations

import gpuresample as gr
from gpuresample.cli import filtering, flags


def reorient(
    source: flags.Source,
    target: flags.Target,
    orientation: flags.Orientation = "RAS",
    threads: flags.Threads = None,
    level: flags.Level = None,
    series: flags.Series = None,
    overwrite: flags.Overwrite = False,
) -> None:
    """Put a volume's axes into another order and sense. Voxels are copied, bit by bit; nothing moves in space.

    gpuresample reorient ct.nii.gz ras.nii.gz --orientation RAS
    """
    keywords = {"orientation": orientation, "device": "cpu"}
    filtering.run(gr.reorient, "reorient", "reorienting", source, target, keywords, series, overwrite, level=level)

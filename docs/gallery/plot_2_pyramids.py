"""
Pyramids
========

A pyramid holds a volume at ever coarser grids. Each level has its own spacing and origin, so all levels lie in
the same place in space.
"""

# %%
# The volume is a synthetic chest CT with thin voxels in the slice's plane and thick slices.
import matplotlib.pyplot as plt
import numpy as np
import SimpleITK as sitk

import gpuresample as gr
from gpuresample.bench.phantom import phantom

ct = phantom((160, 160, 48), (2.4, 2.4, 5.0))
levels = gr.pyramid(ct, 4)
for level in levels:
    print(level.GetSize(), [round(s, 2) for s in level.GetSpacing()], [round(o, 2) for o in level.GetOrigin()])

# %%
# Every picture below covers the same part of the body; only the voxels grow.


def show(images, titles, cmap="gray", window=(-1000, 300)):
    """The middle slice of every image."""
    figure, axes = plt.subplots(1, len(images), figsize=(2.7 * len(images), 3.1), layout="constrained")
    for ax, image, title in zip(axes, images, titles, strict=True):
        array = sitk.GetArrayViewFromImage(image)
        ax.imshow(
            array[array.shape[0] // 2], cmap=cmap, vmin=window[0], vmax=window[1], interpolation="nearest",
            extent=(0, 1, 1, 0),
        )  # fmt: skip
        ax.set_title(title, fontsize=10)
        ax.set_axis_off()
    return figure


show(levels, [" x ".join(map(str, level.GetSize())) for level in levels])

# %%
# Thick slices
# ------------
#
# ``factors="isotropic"`` halves only the axes with fine voxels, until the others have caught up.
for level in gr.pyramid(ct, 4, factors="isotropic"):
    print(level.GetSize(), [round(s, 2) for s in level.GetSpacing()])

# %%
# Laplacian pyramid
# -----------------
#
# Every level holds the detail that the next coarser level cannot hold. ``reconstruct`` adds it all up again:
# integers come back exactly.
laplacian = gr.laplacian(ct, 4)
same = np.array_equal(sitk.GetArrayFromImage(laplacian.reconstruct()), sitk.GetArrayFromImage(ct))
print("exactly the image:", same)
show(laplacian.levels[:3], ["finest detail", "finer detail", "coarser detail"], window=(-200, 200))

# %%
# Labels
# ------
#
# Means of labels make no sense: between 1 and 3 there would be a 2. ``kind="mode"`` takes the label of most
# voxels of a block.
labels = sitk.Cast(ct > -300, sitk.sitkUInt8) + sitk.Cast(ct > 200, sitk.sitkUInt8)
modes = gr.pyramid(labels, 4, kind="mode")
show(modes, [f"level {k}" for k in range(4)], cmap="viridis", window=(0, 2))

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
    spacing, origin = level.GetSpacing(), level.GetOrigin()
    print(level.GetSize(), np.round(spacing, 2), np.round(origin, 2))

# %%
# Every picture below covers the same part of the body; only the voxels grow.


def show(images, titles, cmap="gray", window=(-1000, 300)):
    """The middle slice of every image."""
    figure, axes = plt.subplots(1, len(images), figsize=(2.7 * len(images), 3.1), layout="constrained")
    for ax, image, title in zip(axes, images, titles, strict=True):
        array = sitk.GetArrayViewFromImage(image)
        middle = array[array.shape[0] // 2]
        low, high = window
        ax.imshow(middle, cmap=cmap, vmin=low, vmax=high, interpolation="nearest", extent=(0, 1, 1, 0))
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
    print(level.GetSize(), np.round(level.GetSpacing(), 2))

# %%
# Laplacian pyramid
# -----------------
#
# Every level holds the detail that the next coarser level cannot hold. ``reconstruct`` adds it all up again:
# integers come back exactly.
laplacian = gr.laplacian(ct, 4)
again = sitk.GetArrayFromImage(laplacian.reconstruct())
print("exactly the image:", np.array_equal(again, sitk.GetArrayFromImage(ct)))

titles = ["finest detail", "finer detail", "coarser detail"]
show(laplacian.levels[:3], titles, window=(-200, 200))

# %%
# Labels
# ------
#
# Means of labels make no sense: between 1 and 3 there would be a 2. ``kind="mode"`` takes the label of most
# voxels of a block.
labels = sitk.Cast(ct > -300, sitk.sitkUInt8) + sitk.Cast(ct > 200, sitk.sitkUInt8)
modes = gr.pyramid(labels, 4, kind="mode")
show(modes, [f"level {k}" for k in range(4)], cmap="viridis", window=(0, 2))

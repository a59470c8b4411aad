"""
Label modes
===========

Labels are names, not amounts. These modes never mix them.
"""

# %%
# A label map with coarse voxels: three organs with slanted borders, drawn on 24 x 24 x 8 voxels.
import matplotlib.pyplot as plt
import numpy as np

import gpuresample as gr

z, y, x = np.meshgrid(np.arange(8), np.arange(24), np.arange(24), indexing="ij")
labels = np.zeros((8, 24, 24), np.uint8)
labels[(x - 9) ** 2 + (y - 12) ** 2 < 60] = 1
labels[(x - 16) ** 2 + (y - 9) ** 2 < 30] = 2
labels[np.abs(y - 20 + 0.4 * x) < 1.5] = 3

# %%
# To finer voxels
# ---------------
#
# ``"nearest"`` keeps the steps of the old voxels. ``"label_linear"`` and ``"label_gaussian"`` let the labels
# vote, and give smoother borders. A linear interpolation of the numbers invents labels: between 1 and 3 lies 2.
spacing = (1, 0.25, 0.25)
modes = ("nearest", "label_linear", "label_gaussian", "linear")
finer = {}
for mode in modes:
    finer[mode] = gr.resample(labels, spacing=spacing, interpolation=mode)

figure, axes = plt.subplots(1, 4, figsize=(11, 3.1), layout="constrained")
for ax, (mode, array) in zip(axes, finer.items(), strict=True):
    ax.imshow(array[4], cmap="viridis", vmin=0, vmax=3, interpolation="nearest")
    title = f'"{mode}"'
    if mode == "linear":
        title += ": wrong for labels"
    ax.set_title(title, fontsize=10)
    ax.set_axis_off()

# %%
# To coarser voxels
# -----------------
#
# This label map has wrong voxels here and there, as noisy segmentations do. ``"nearest"`` takes one voxel of every
# block and ignores the others, so it keeps wrong voxels and makes them larger. ``gr.bin_shrink(..., reduce="mode")``
# takes the label of most voxels.
fine = finer["label_linear"].copy()
rng = np.random.default_rng(0)
wrong = rng.random(fine.shape) < 0.08
fine[wrong] = rng.integers(0, 4, wrong.sum())
picked = gr.resample(fine, size=(8, 32, 32), interpolation="nearest", anchor="edge")
most = gr.bin_shrink(fine, (1, 3, 3), reduce="mode")

panels = {"input": fine, '"nearest"': picked, "mode of blocks": most}
figure, axes = plt.subplots(1, 3, figsize=(8.5, 3.1), layout="constrained")
for ax, (title, array) in zip(axes, panels.items(), strict=True):
    ax.imshow(array[4], cmap="viridis", vmin=0, vmax=3, interpolation="nearest")
    ax.set_title(title, fontsize=10)
    ax.set_axis_off()

# %%
# Labels of any integer type survive: they are compared, never computed with.
big = labels.astype(np.uint64) * (2**60 + 1)
print(np.unique(gr.resample(big, spacing=spacing, interpolation="nearest")) == np.unique(big))

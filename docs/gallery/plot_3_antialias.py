"""
Antialiasing
============

A coarser grid cannot hold fine patterns. Without a blur they come back as coarse patterns that were never
there.
"""

# %%
# The rings of this volume become finer from the centre to the rim.
import matplotlib.pyplot as plt
import numpy as np

import gpuresample as gr

n = 240
z, y, x = np.meshgrid(*[np.arange(k) - (k - 1) / 2 for k in (8, n, n)], indexing="ij")
radius = np.sqrt(x * x + y * y)
rings = np.where(radius < n / 2, np.cos(np.pi * radius**2 / n), 0).astype(np.float32)

# %%
# We keep every third voxel or so, along y and x. ``antialias=True`` blurs before it samples, and only along axes
# that shrink.
spacing = (1, 3.2, 3.2)  # of an array: z, y, x
plain = gr.resample(rings, spacing=spacing)
blurred = gr.resample(rings, spacing=spacing, antialias=True)

figure, axes = plt.subplots(1, 3, figsize=(9.3, 3.4), layout="constrained")
panels = {"input": rings, "antialias=False: false rings": plain, "antialias=True": blurred}
for ax, (title, array) in zip(axes, panels.items(), strict=True):
    ax.imshow(array[4], cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
    ax.set_title(title, fontsize=10)
    ax.set_axis_off()

# %%
# The rings that the new grid can hold lie within the dashed circle. The curves show the values along a line
# through the centre.
figure, ax = plt.subplots(figsize=(8, 3), layout="constrained")
for array, label in ((plain, "antialias=False"), (blurred, "antialias=True")):
    row = array[4, array.shape[1] // 2]
    ax.plot((np.arange(row.size) * 3.2 - n / 2)[row.size // 2 :], row[row.size // 2 :], label=label)
ax.axvline(n / 2 / 3.2, color="gray", linestyle="--", label="finest rings that the grid can hold")
ax.set(xlabel="distance from the centre, in input voxels", ylabel="value")
ax.legend(fontsize=9)

# %%
# The page on antialiasing measures every filter: what is kept, and what is false.

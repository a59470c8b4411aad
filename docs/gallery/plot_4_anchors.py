"""
Anchors
=======

Eight voxels become five. They cannot all stay in place; ``anchor=`` says which points do.
"""

# %%
# A row of eight voxels, and the three grids of five that ``gr.plan`` makes from it. A grid in a plan has an
# origin (the centre of its first voxel) and a spacing.
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

import gpuresample as gr

row = np.array([[0, 10, 20, 30, 40, 50, 60, 70]], np.float32).repeat(4, axis=0)

grids = {}
for anchor in ("first", "edge", "center"):
    plan = gr.plan(row, size=(4, 5), interpolation="linear", anchor=anchor)
    grids[anchor] = plan.target
    print(f"{anchor:6}  origin {plan.target.origin[0]:.2f}  spacing {plan.target.spacing[0]:.2f}", plan.run(row)[0])

# %%
# Boxes are voxels, dots their centres. What the red lines mark stays in place.


def draw(ax, origin, spacing, count, bottom, colour):
    """Voxels along a line."""
    for centre in origin + spacing * np.arange(count):
        ax.add_patch(Rectangle((centre - spacing / 2, bottom), spacing, 0.8, facecolor=colour, edgecolor="black"))
        ax.plot(centre, bottom + 0.4, "ko", markersize=4)


kept = {"first": [0], "edge": [-0.5, 7.5], "center": [0, 7]}
figure, axes = plt.subplots(3, 1, figsize=(9, 4.2), layout="constrained", sharex=True)
for ax, (anchor, grid) in zip(axes, grids.items(), strict=True):
    draw(ax, 0, 1, 8, 1, "lightgray")
    draw(ax, grid.origin[0], grid.spacing[0], grid.size[0], 0, "lightskyblue")
    for where in kept[anchor]:
        ax.axvline(where, color="orangered", linewidth=2)
    ax.set_title(f'anchor="{anchor}"', fontsize=10, loc="left", family="monospace")
    ax.set(ylim=(-0.2, 2), xlim=(-1, 8.7))
    ax.set_axis_off()

# %%
# ``"first"`` is what SimpleITK recipes do, and the default. ``"edge"`` is torch's ``align_corners=False`` and
# scikit-image's ``resize``. ``"center"`` is SciPy's ``zoom`` and torch's ``align_corners=True``.

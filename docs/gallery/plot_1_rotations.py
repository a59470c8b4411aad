"""
Rotations
=========

A scan is tilted, and we want its slices straight. SimpleITK describes the turn; gpuresample computes the
voxels.
"""

# %%
# The volume is a synthetic chest CT that ships with gpuresample: 96 x 96 x 64 voxels. Any ``SimpleITK.Image`` will do.
import math

import matplotlib.pyplot as plt
import SimpleITK as sitk

import gpuresample as gr
from gpuresample.bench.phantom import phantom

ct = phantom((96, 96, 64), (4.0, 4.0, 4.0))
print(ct.GetSize(), ct.GetSpacing(), ct.GetPixelIDTypeAsString())

# %%
# A transform maps points of the *output* to points of the *input*, as in SimpleITK. This one turns about the
# volume's centre, by 20 degrees in the slice's plane.
centre = ct.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in ct.GetSize()])
turn = sitk.Euler3DTransform()
turn.SetCenter(centre)
turn.SetRotation(0.0, 0.0, math.radians(20))

turned = gr.resample(ct, transform=turn, default_value=-1024)

# %%
# With nothing but a transform, the grid stays as it was, and voxels from outside the volume take
# ``default_value``. The cubic B-spline is the default; ``interpolation="nearest"`` only copies voxels, so edges
# become jagged.
nearest = gr.resample(ct, transform=turn, interpolation="nearest", default_value=-1024)


def show(panels, column, window=(-1000, 300)):
    """Slices of several images, side by side."""
    figure, axes = plt.subplots(1, len(panels), figsize=(3.1 * len(panels), 3.4), layout="constrained")
    for ax, (title, image) in zip(axes, panels.items(), strict=True):
        array = sitk.GetArrayViewFromImage(image)
        ax.imshow(array[column], cmap="gray", vmin=window[0], vmax=window[1], interpolation="nearest")
        ax.set_title(title, fontsize=10)
        ax.set_axis_off()
    return figure


show({"input": ct, "turned, cubic B-spline": turned, "turned, nearest": nearest}, 32)

# %%
# Turning back is one more call. What is lost on the way is mostly what left the volume at its corners.
back = gr.resample(turned, transform=turn.GetInverse(), default_value=-1024)
show({"input": ct, "turned and turned back": back, "difference": back - ct}, 32)

# %%
# A turn and a new spacing need only one interpolation. Give both in one call.
coarse = gr.resample(ct, spacing=(6, 6, 6), transform=turn, default_value=-1024)
print(coarse.GetSize(), coarse.GetSpacing())

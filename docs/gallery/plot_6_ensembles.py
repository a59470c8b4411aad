"""
Ensembles
=========

Two networks have scored the same patient, each on its own coarse grid. One call makes a label map on the
patient's fine grid.
"""

# %%
# We make up the truth on a fine grid, and two networks that see it coarsely and with noise. Scores are ``(class,
# z, y, x)``.
import matplotlib.pyplot as plt
import numpy as np

import gpuresample as gr

z, y, x = np.meshgrid(np.arange(16), np.arange(96), np.arange(96), indexing="ij")
truth = np.zeros((16, 96, 96), np.int64)
truth[((x - 40) / 26) ** 2 + ((y - 48) / 36) ** 2 < 1] = 1
truth[(x - 60) ** 2 + (y - 40) ** 2 < 220] = 2


def network(spacing, seed):
    """Scores of three classes on a coarse grid."""
    indicators = (truth == np.arange(3)[:, None, None, None]).astype(np.float32)
    coarse = gr.resample(indicators, spacing=spacing, interpolation="linear", antialias=True)
    noise = np.random.default_rng(seed).standard_normal(coarse.shape).astype(np.float32)
    return 6 * coarse + 1.2 * noise


a, b = network((1, 3, 3), seed=1), network((2, 4, 4), seed=2)
print(a.shape, b.shape)

# %%
# ``gr.ensemble`` interpolates the scores, applies softmax, averages the models and takes the largest class. It
# never makes a full-size volume per class. ``gr.Volume`` tells the spacing (x, y, z) of each model's scores.
models = [gr.Volume(a, (3, 3, 1)), gr.Volume(b, (4, 4, 2))]
patient = gr.Volume(np.zeros(truth.shape, np.float32), (1, 1, 1))
labels, confidence, entropy = gr.ensemble(models, like=patient, output=("labels", "confidence", "entropy"))
print(labels.array.shape, labels.array.dtype)

# %%
# The noise is gone where the models agree. Confidence is low, and entropy high, at the borders: these are the
# places to look at.
one = gr.ensemble(models[:1], like=patient)
panels = {
    "truth": (truth, "viridis", 2), "one model": (one.array, "viridis", 2), "both models": (labels.array, "viridis", 2),
    "confidence": (confidence.array, "magma", 1), "entropy": (entropy.array, "magma", np.log(3)),
}  # fmt: skip
figure, axes = plt.subplots(1, 5, figsize=(12.5, 2.9), layout="constrained")
for ax, (title, (array, cmap, top)) in zip(axes, panels.items(), strict=True):
    ax.imshow(array[8], cmap=cmap, vmin=0, vmax=top, interpolation="nearest")
    ax.set_title(title, fontsize=10)
    ax.set_axis_off()

# %%
# How many voxels have the right label:
for title, array in (("one model", one.array), ("both models", labels.array)):
    print(f"{title}: {100 * (array == truth).mean():.1f} %")

"""What the way back of a warp costs beside torch's: `python -m benchmarks.gradients [EDGE]`.

Needs the environment of `make test-integrations`. One volume of EDGE^3 float32 voxels (96), trilinear, clamped at the
border; gradients by the volume and by what moves it. Both sides take turns; medians of `ROUNDS`. torch works on the
grid that belongs to the matrix or the displacement, which it is handed ready made.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch

import gpuresample as gr
from gpuresample.torch import warp

ROUNDS = 15


def rotation() -> torch.Tensor:
    """A turn by 0.1, 0.15 and 0.2 rad about the three axes."""
    out = torch.eye(3, dtype=torch.float64)
    for axis, angle in enumerate((0.1, 0.15, 0.2)):
        a, b = (k for k in range(3) if k != axis)
        turn = torch.eye(3, dtype=torch.float64)
        turn[a, a] = turn[b, b] = torch.cos(torch.tensor(angle, dtype=torch.float64))
        turn[a, b] = -torch.sin(torch.tensor(angle, dtype=torch.float64))
        turn[b, a] = -turn[a, b]
        out = out @ turn
    return out


def seconds(back: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    back()
    return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 96
    torch.manual_seed(0)
    volume = torch.randn(1, 1, n, n, n, requires_grad=True)
    weights = torch.randn(1, 1, n, n, n)
    centre = (n - 1) / 2 * torch.ones(3, dtype=torch.float64)
    turn = rotation()
    matrix = torch.cat([turn, (centre - turn @ centre)[:, None]], dim=1).requires_grad_()
    coarse = 3 * torch.randn(1, 3, 6, 6, 6)
    field = torch.nn.functional.interpolate(coarse, size=(n, n, n), mode="trilinear").requires_grad_()
    place = torch.stack(torch.meshgrid(*[torch.arange(n, dtype=torch.float64)] * 3, indexing="ij"), dim=-1)
    positions = {
        "matrix": place @ matrix.detach()[:, :3].T + matrix.detach()[:, 3],
        "displacement": place + field.detach()[0].movedim(0, -1),
    }
    print(f"| gradients by volume and ({n}^3, {gr.get_num_threads()} threads) | torch grid_sample | warp | ratio |")
    print("| --- | ---: | ---: | ---: |")
    for name, moved in (("matrix", matrix), ("displacement", field)):
        grid = (2 * positions[name] / (n - 1) - 1).flip(-1)[None].float().requires_grad_()
        theirs = torch.nn.functional.grid_sample(volume, grid, padding_mode="border", align_corners=True)
        ours = warp(volume, boundary="nearest", **{name: moved})
        assert (ours - theirs).abs().max() < 1e-3
        calls = [
            partial(torch.autograd.grad, made, (volume, by), weights, retain_graph=True)
            for made, by in ((theirs, grid), (ours, moved))
        ]
        for call in calls:
            call()
        times = [[seconds(call) for call in calls] for _ in range(ROUNDS)]
        a, b = (median(t[k] for t in times) for k in range(2))
        print(f"| {name} | {1e3 * a:.1f} ms | {1e3 * b:.1f} ms | {a / b:.1f}x |")


if __name__ == "__main__":
    main()

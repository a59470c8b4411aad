"""Launches of ensembles on CUDA: scores of several models to labels, without a volume per class in between."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gpuresample.engines import ensembles as rules
from gpuresample.engines.cuda.axis import BLOCK, Axes, narrowest, pointer
from gpuresample.engines.cuda.runtime import Argument, Launch, Pointer, Runtime, Types
from gpuresample.engines.cuda.streams import SHARE
from gpuresample.engines.cuda.views import View, volumes
from gpuresample.engines.interface import Outputs, Store
from gpuresample.planning.works import ACTIVATIONS, Ensemble, Member, Separable, Work

SINGLE = np.dtype(np.float32)
NULL = Pointer(0, 4, None)

# `member_t` of kernels/ensemble.cu.
MEMBER = np.dtype(
    [
        *[(name, np.uint64) for name in (
            "src", "index_z", "weight_z", "index_y", "weight_y", "index_x", "weight_x", "top", "sum",
        )],
        ("strides", np.int64, 4), ("inside", np.int32, 6), ("share", np.float32), ("padding", np.int32),
    ]
)  # fmt: skip


class CudaCombiner:
    """A `interface.Combiner` for arrays on a runtime.

    Parameters
    ----------
    runtime : Runtime
    axes : Axes
    resample : callable
        `resample(work, src, dst, store)`: the engine's way with views (batch, z, y, x).
    view : callable
        An array as a view.
    models : int
    """

    types = ("float16", "float32")
    stages = False

    def __init__(
        self,
        runtime: Runtime,
        axes: Axes,
        resample: Callable[[Work, View, View, Store], None],
        view: Callable[[Any], View],
        models: int,
    ) -> None:
        self._runtime = runtime
        self._axes = axes
        self._resample = resample
        self._view = view
        self._counts = runtime.upload(np.zeros(models, np.uint64))

    @property
    def room(self) -> int:
        """See `interface.Combiner`."""
        return int(SHARE * self._runtime.free_memory())

    def counts(self) -> list[int]:
        """See `interface.Combiner`."""
        out = np.empty(self._counts.shape, np.uint64)
        self._runtime.download(self._counts, out)
        return [int(n) for n in out]

    def combine(self, work: Ensemble, scores: Sequence[Any], outputs: Outputs) -> None:
        """See `interface.Combiner`; in the order of the current stream."""
        with self._runtime.on(self._counts):
            places = {name: self._view(array) for name, array in vars(outputs).items() if array is not None}
            # The kernel writes in C order; what is laid out otherwise is copied there.
            fresh = {name: view if view.is_contiguous else self._scratch(view) for name, view in places.items()}
            self._combine(work, [self._view(part) for part in scores], Outputs(**fresh), self._view(self._counts))
            for name, view in places.items():
                if fresh[name] is not view:
                    self._copy(fresh[name], view)

    def _scratch(self, like: View) -> View:
        return self._axes.scratch(like.shape, like.dtype)

    def _copy(self, src: View, dst: View) -> None:
        """Voxels to another layout, or another type; views (class,) z, y, x."""
        n_z, n_y, n_x = dst.shape[-3:]
        for s, d in volumes(src, dst):
            self._resample(rules.unchanged((n_z, n_y, n_x)), s, d, Store())

    def _combine(self, work: Ensemble, scores: Sequence[View], outputs: Outputs, counts: View) -> None:
        alone = rules.is_alone(work, outputs.only_labels)
        if work.before and work.activation != "none":
            scores = [self._activated(view, work.activation) for view in scores]
        if len({view.dtype for view in scores}) > 1:
            scores = [self._single(view) for view in scores]
        if not all(rules.has_pairs(member) for member in work.members):
            scores = [self._resampled(work, m, view) for m, view in enumerate(scores)]
            work = replace(work, members=tuple(self._done(work, m) for m in range(len(scores))))
        activation, choose = rules.codes(work)
        members, keep = self._members(work, scores, softmax=activation == ACTIVATIONS["softmax"] and not alone)
        n_z, n_y, n_x = work.n_dst
        voxels = math.prod(work.n_dst)
        written = voxels * (1 if outputs.probabilities is None else work.classes)
        idx = narrowest(*[view.reach for view in scores], written)
        label = "uint8" if outputs.labels is None else outputs.labels.dtype.name
        types = Types(scores[0].dtype.name, label, "float32", idx.__name__)
        certain = tuple(np.float32(value) for value in rules.certain(work))
        sizes = (np.int32(n_z), np.int32(n_y), np.int32(n_x))
        blocks, classes = -(-voxels // BLOCK), np.int32(work.classes)
        if activation == ACTIVATIONS["softmax"] and not alone:
            for m in range(len(scores)):
                arguments: list[Argument] = [members, np.int32(m), classes, *sizes, *certain]
                self._launch("ensemble_normalise", types, blocks, arguments)
        places = [
            NULL if view is None else pointer(view)
            for view in (outputs.probabilities, outputs.confidence, outputs.entropy)
        ]
        first = Pointer(0, np.dtype(label).itemsize, None) if outputs.labels is None else pointer(outputs.labels)
        arguments = [
            members, self._axes.upload(rules.limits(work, alone)), self._axes.upload(work.values), first, *places,
            pointer(counts), np.int32(len(scores)), classes, *sizes, np.int32(activation), np.int32(alone),
            np.int32(work.overlaps), np.int32(choose), *certain,
        ]  # fmt: skip
        self._launch("ensemble_decide", types, blocks, arguments)
        del keep

    def _launch(self, function: str, types: Types, blocks: int, arguments: Sequence[Argument]) -> None:
        self._runtime.launch(Launch("ensemble", function, types, blocks, (BLOCK, 1), arguments))

    def _members(self, work: Ensemble, scores: Sequence[View], softmax: bool) -> tuple[Pointer, list[Any]]:
        """The models as the kernels read them, and what must outlive the launches."""
        rows, keep = np.zeros(len(scores), MEMBER), list[Any]()
        for row, member, view in zip(rows, work.members, scores, strict=True):
            assert isinstance(member.work, Separable)
            upright, turned = rules.upright(member.work, view)
            row["src"], row["strides"], row["share"] = turned.address, turned.strides, member.weight
            row["inside"] = [edge for pair in upright.inside for edge in pair]
            for name, table, n, (lo, _) in zip("zyx", upright.tables, work.n_dst, upright.inside, strict=True):
                index, weight = rules.pairs(table, lo, n)
                for part, array in (("index", index.astype(np.int32)), ("weight", weight)):
                    copy = self._axes.upload(array)
                    row[f"{part}_{name}"] = copy.address
                    keep.append(copy)
            if softmax:
                for name in ("top", "sum"):
                    scratch = self._axes.scratch(work.n_dst, SINGLE)
                    row[name] = scratch.address
                    keep.append(scratch)
        return self._axes.upload(rows.view(np.uint8), MEMBER.itemsize), keep

    def _resampled(self, work: Ensemble, m: int, src: View) -> View:
        """A model's scores on the target."""
        out = self._axes.scratch((work.classes, *work.n_dst), SINGLE)
        first, rest = rules.certain(work)
        self._resample(work.members[m].work, src.narrow(0, 0, 1), out.narrow(0, 0, 1), Store(first))
        if work.classes > 1:
            others = src.narrow(0, 1, work.classes), out.narrow(0, 1, work.classes)
            self._resample(work.members[m].work, *others, Store(rest))
        return out

    def _done(self, work: Ensemble, m: int) -> Member:
        """A model whose scores are on the target already."""
        return replace(work.members[m], work=rules.unchanged(work.n_dst))

    def _single(self, src: View) -> View:
        """A copy in float32."""
        out = self._axes.scratch(src.shape, SINGLE)
        self._copy(src, out)
        return out

    def _activated(self, src: View, activation: str) -> View:
        """Probabilities of scores, on the scores' own grid."""
        out = self._single(src)
        n = math.prod(src.shape[1:])
        idx = narrowest(out.reach, n)
        types = Types("float32", "uint8", "float32", idx.__name__)
        arguments: list[Argument] = [pointer(out), idx(n), np.int32(src.shape[0]), np.int32(ACTIVATIONS[activation])]
        self._launch("ensemble_activate", types, -(-n // BLOCK), arguments)
        return out

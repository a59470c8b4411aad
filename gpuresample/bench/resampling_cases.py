"""Cases of resampling: one volume, a series or a batch, by gpuresample and by every peer that offers the same.

Libraries disagree about where samples lie and what is beyond the border. Each is checked against gpuresample asked for
that library's rules, which is a row of its own ("as SciPy"); gpuresample under its own rules is checked against
SimpleITK. So like is timed with like.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import gpuresample as gr
from gpuresample.bench import exact
from gpuresample.bench.cases import Array, Geometry, Job, volume
from gpuresample.bench.devices import synchronised
from gpuresample.bench.peers import GPU_PEERS, OURS, PEERS, Call, Peer, own_keywords
from gpuresample.bench.records import Target
from gpuresample.bench.tasks import Case, Doer, Error

Targets = Mapping[str, Target]


@dataclass(frozen=True, eq=False)
class Stack:
    """Volumes on one grid, as an array with leading axes: a series, a batch."""

    array: Array
    job: Job

    def jobs(self) -> list[Job]:
        """One for every volume."""
        volumes = self.array.reshape(-1, *self.array.shape[-3:])
        return [Job(v, self.job.geometry, self.job.interpolation, self.job.boundary) for v in volumes]

    def of_type(self, dtype: Any) -> Stack:
        """The same with voxels of another type."""
        return Stack(self.array.astype(dtype, copy=False), self.job.of_type(dtype))


def _stack(data: Job | Stack) -> Stack:
    return data if isinstance(data, Stack) else Stack(data.volume, data)


def _ours(data: Job | Stack, keywords: dict[str, Any], device: str = "cpu") -> Call:
    stack = _stack(data)
    source = volume(stack.array, stack.job.geometry.source)
    return lambda: gr.resample(source, device=device, **keywords)


def _ours_on_device(data: Job | Stack, keywords: dict[str, Any]) -> Call:
    import cupy

    stack = _stack(data)
    source = volume(cupy.asarray(stack.array), stack.job.geometry.source)
    return synchronised(lambda: gr.resample(source, **keywords))


def _of_peer(peer: Peer, device: bool) -> Callable[[Job | Stack], Call]:
    """A peer's call: a stack's volumes one after the other, for none but torch takes them at once."""

    def prepare(data: Job | Stack) -> Call:
        if not isinstance(data, Stack):
            call = peer.prepare(peer.job(data))
        elif peer.module == "torch" and "matmul" not in peer.label:
            call = _torch_stack(data.of_type(np.float32), "cuda" if device else "cpu")
        else:
            calls = [peer.prepare(peer.job(job)) for job in data.jobs()]
            call = lambda: [c() for c in calls]  # noqa: E731
        return synchronised(call) if device else call

    return prepare


def _torch_stack(data: Stack, device: str) -> Call:
    import torch as t

    volumes = data.array.reshape(-1, 1, *data.array.shape[-3:])
    source, shape = t.from_numpy(volumes).to(device), data.job.shape
    mode = {"nearest": "nearest-exact", "linear": "trilinear"}[data.job.interpolation]
    return lambda: t.nn.functional.interpolate(source, shape, mode=mode)


def _reference(peer: Peer) -> Callable[[Job | Stack], Error | None]:
    def reference(data: Job | Stack) -> Error | None:
        job = _stack(data).jobs()[0] if isinstance(data, Stack) else data
        found = exact.resampling(peer, peer.job(job))
        return None if found is None else lambda result: found(result.reshape(-1, *result.shape[-3:])[0])

    return reference


def _type_of(peer: Peer, dtype: str, interpolation: str) -> str | None:
    """The voxel type a peer is given, if it is another than the case's."""
    tiny = Job(np.zeros((1, 1, 1), dtype), None, interpolation)  # type: ignore[arg-type]
    given = str(peer.job(tiny).volume.dtype)
    return None if given == dtype else given


def offers(peer: Peer, job: Job, stacked: bool) -> bool:
    """Whether a peer can be asked for this."""
    if job.interpolation not in peer.interpolations or not (job.aligned or peer.oblique):
        return False
    # Its batch of dense products would be another program.
    return not (stacked and peer.label.endswith("matmuls"))


def doers(job: Job, dtype: str, stacked: bool, gpu: bool, targets: Targets) -> tuple[Doer, ...]:
    """Ours, ours by each convention that a peer follows, and the peers that are installed.

    Parameters
    ----------
    job : Job
        Without voxels: only its grids and its interpolation count.
    dtype : str
    stacked : bool
        Whether the case has several volumes.
    gpu : bool
        Whether there is one to use.
    targets : mapping
        By key of `peers.PEERS` or "gpuresample-as-...".
    """
    found = [_plain(key, dtype, stacked, targets) for key in OURS if not (stacked and key == "gpuresample-image")]
    rest: list[Doer] = []
    asked = {key: p for key, p in PEERS.items() if key not in OURS and p.installed and offers(p, job, stacked)}
    for key, peer in asked.items():
        expected = _expected(peer)
        given = _type_of(peer, dtype, job.interpolation)
        rest.append(Doer(
            key, peer.label, _of_peer(peer, False), peer.version, judge=key == "simpleitk",
            expected=None if key == "simpleitk" else expected, reference=_reference(peer), dtype=given,
        ))  # fmt: skip
        if expected not in ("gpuresample", *(d.key for d in found)):
            found.append(_as_peer(peer, expected, given, targets, None if job.aligned else key))
    if gpu:
        found += _on_device(job, targets)
        for key, peer in GPU_PEERS.items():
            if peer.installed and offers(peer, job, stacked):
                expected = _expected(peer)
                if expected not in ("gpuresample", *(d.key for d in found)):
                    given = _type_of(peer, dtype, job.interpolation)
                    found.append(_as_peer(peer, expected, given, targets, None))
                rest.append(Doer(
                    f"{key}-cuda", peer.label, _of_peer(peer, True), peer.version, "cuda:0", "kernel",
                    expected=expected, reference=_reference(peer), dtype=_type_of(peer, dtype, job.interpolation),
                ))  # fmt: skip
    return (*found, *rest)


def _expected(peer: Peer) -> str:
    return "gpuresample" if peer.convention == "simpleitk" else f"gpuresample-as-{peer.convention}"


def _plain(key: str, dtype: str, stacked: bool, targets: Targets) -> Doer:
    peer = PEERS[key]

    def prepare(data: Job | Stack) -> Call:
        return peer.prepare(data) if isinstance(data, Job) else _ours(data, own_keywords(data.job))

    return Doer(
        key, peer.label, prepare, gr.__version__, expected="simpleitk", reference=_reference(peer),
        target=targets.get(key),
    )  # fmt: skip


def _as_peer(peer: Peer, key: str, dtype: str | None, targets: Targets, expected: str | None) -> Doer:
    """Ours by a peer's rules; `expected` where no float64 reference judges it."""

    def prepare(data: Job | Stack) -> Call:
        given = data if dtype is None else data.of_type(dtype)
        return _ours(given, peer.keywords(_stack(given).job))

    label = f"gpuresample, as {peer.label.removesuffix(' interpolate')}"
    return Doer(
        key, label, prepare, gr.__version__, expected=expected, reference=_reference(peer), dtype=dtype,
        target=targets.get(key),
    )  # fmt: skip


def _on_device(job: Job, targets: Targets) -> list[Doer]:
    peer = PEERS["gpuresample"]
    shared: dict[str, Any] = {"version": gr.__version__, "expected": "simpleitk", "reference": _reference(peer)}
    return [
        Doer(
            "gpuresample", peer.label, lambda data: _ours_on_device(data, own_keywords(_stack(data).job)),
            device="cuda:0", scope="kernel", target=targets.get("gpuresample-cuda"), **shared,
        ),
        Doer(
            "gpuresample", peer.label, lambda data: _ours(data, own_keywords(_stack(data).job), "cuda"),
            device="cuda:0", scope="end-to-end", **shared,
        ),
    ]  # fmt: skip


def case(
    name: str,
    what: str,
    geometry: Geometry,
    interpolation: str,
    dtype: str,
    make: Callable[[tuple[int, ...]], Array],
    *,
    leading: tuple[int, ...] = (),
    gpu: bool = False,
    targets: Targets | None = None,
) -> Case:
    """A case of resampling.

    Parameters
    ----------
    name, what : str
    geometry : Geometry
    interpolation : str
    dtype : str
    make : callable
        From a shape to its voxels.
    leading : tuple of int
        Of a series or a batch.
    gpu : bool
    targets : mapping, optional
        From a key of ours to its target.
    """
    n, m = geometry.source.size[::-1], geometry.target.size[::-1]

    def data() -> Job | Stack:
        array = np.asarray(make((*leading, *n)))
        if not leading:
            return Job(array, geometry, interpolation)
        return Stack(array, Job(array.reshape(-1, *n)[0], geometry, interpolation))

    empty = Job(np.zeros((1, 1, 1), dtype), geometry, interpolation)
    return Case(
        name, what, data, lambda d: _stack(d).array, doers(empty, dtype, bool(leading), gpu, targets or {}),
        (*leading, *n), (*leading, *m), dtype, dtype, exact=interpolation == "nearest",
    )  # fmt: skip

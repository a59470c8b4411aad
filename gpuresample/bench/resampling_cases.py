"""Cases of resampling: one volume, a series or a batch, by gpuresample and by every peer that offers the same.

Libraries disagree about where samples lie and what is beyond the border. Each is checked against gpuresample asked for
that library's rules, which is a row of its own ("as SciPy"); gpuresample under its own rules is checked against
SimpleITK. So like is timed with like.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import gpuresample as gr
from gpuresample.bench import devices, exact
from gpuresample.bench.cases import Array, Geometry, Job, volume
from gpuresample.bench.devices import synchronised
from gpuresample.bench.peers import GPU_PEERS, OURS, PEERS, Call, Peer, own_keywords
from gpuresample.bench.tasks import Case, Doer, Error


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
    source = _lying(stack.array, stack.job, keywords)
    return lambda: gr.resample(source, device=device, **keywords)


def _lying(array: Any, job: Job, keywords: dict[str, Any]) -> gr.Volume:
    """A volume on a job's grid; as nibabel, with axes to RAS as the peer's has them, for it turns others."""
    grid = job.geometry.source
    if keywords.get("convention") == "nibabel":
        grid = replace(grid, direction=(-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0))
    return volume(array, grid)


def _ours_on_device(data: Job | Stack, keywords: dict[str, Any]) -> Call:
    import cupy

    stack = _stack(data)
    source = _lying(cupy.asarray(stack.array), stack.job, keywords)
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


def doers(job: Job, dtype: str, stacked: bool, gpu: bool) -> tuple[Doer, ...]:
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
    """
    found = [_plain("gpuresample")]
    if not stacked:
        found.append(_plain("gpuresample-image"))
        if np.dtype(dtype).kind in "iu" and job.interpolation != "nearest":
            found.append(_plain("gpuresample-truncate"))
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
            found.append(_as_peer(peer, expected, given, None if job.aligned else key))
    if gpu:
        _of_gpu(job, dtype, stacked, found, rest)
    return (*found, *rest)


def _of_gpu(job: Job, dtype: str, stacked: bool, found: list[Doer], rest: list[Doer]) -> None:
    """Add those that work on a GPU: ours to `found`, others to `rest`."""
    found += _on_device(stacked)
    if not stacked:
        rest.append(_copies())
    for key, peer in GPU_PEERS.items():
        if not peer.installed or not offers(peer, job, stacked):
            continue
        expected, given = _expected(peer), _type_of(peer, dtype, job.interpolation)
        if expected not in ("gpuresample", *(d.key for d in found)):
            found.append(_as_peer(peer, expected, given, None))
        if expected != "gpuresample":
            there = _as_peer(peer, expected, given, expected, on_device=True)
            if there.key not in [d.key for d in found]:
                found.append(there)
        rest.append(Doer(
            f"{key}-cuda", peer.label, _of_peer(peer, True), peer.version, "cuda:0", "kernel",
            expected=expected, reference=_reference(peer), dtype=given,
        ))  # fmt: skip


def _expected(peer: Peer) -> str:
    return "gpuresample" if peer.convention == "simpleitk" else f"gpuresample-as-{peer.convention}"


def _plain(key: str) -> Doer:
    peer = PEERS[key]

    def prepare(data: Job | Stack) -> Call:
        return peer.prepare(data) if isinstance(data, Job) else _ours(data, own_keywords(data.job))

    return Doer(
        key, peer.label, prepare, gr.__version__, expected="simpleitk", reference=_reference(peer),
    )  # fmt: skip


def _as_peer(peer: Peer, key: str, dtype: str | None, expected: str | None, on_device: bool = False) -> Doer:
    """Ours by a peer's rules; `expected` where no float64 reference judges it."""

    def prepare(data: Job | Stack) -> Call:
        given = data if dtype is None else data.of_type(dtype)
        keywords = peer.keywords(_stack(given).job)
        return _ours_on_device(given, keywords) if on_device else _ours(given, keywords)

    where = ("cuda:0", "kernel") if on_device else ("cpu", "call")
    label = f"gpuresample, as {peer.label.removesuffix(' interpolate')}"
    if peer.convention == "scipy":
        label = "gpuresample, as SciPy"
    return Doer(key, label, prepare, gr.__version__, *where, expected=expected, reference=_reference(peer), dtype=dtype)


def _on_device(stacked: bool) -> list[Doer]:
    """Ours with arrays on the device, with pageable ones in host memory, and with pinned ones."""
    peer = PEERS["gpuresample"]
    shared: dict[str, Any] = {"version": gr.__version__, "expected": "simpleitk", "reference": _reference(peer)}

    def there(data: Job | Stack) -> Call:
        return _ours_on_device(data, own_keywords(_stack(data).job))

    def pageable(data: Job | Stack) -> Call:
        return _ours(data, own_keywords(_stack(data).job), "cuda")

    def pinned(data: Job | Stack) -> Call:
        job = _stack(data).job
        source = volume(devices.pinned(job.volume), job.geometry.source)
        out = devices.pinned(np.empty(job.shape, job.volume.dtype))
        return lambda: gr.resample(source, device="cuda", out=out, **own_keywords(job))

    found = [
        Doer("gpuresample", peer.label, there, device="cuda:0", scope="kernel", **shared),
        Doer("gpuresample", peer.label, pageable, device="cuda:0", scope="end-to-end", **shared),
    ]
    if not stacked:
        label = "gpuresample, pinned memory"
        found.append(Doer("gpuresample-pinned", label, pinned, device="cuda:0", scope="end-to-end", **shared))
    return found


def _copies() -> Doer:
    """The case's voxels to the device and the result's from there, and nothing else."""

    def prepare(data: Job | Stack) -> Call:
        job = _stack(data).job
        return devices.copies(job.volume, np.empty(job.shape, job.volume.dtype))

    return Doer(
        "copies", "bare copies, pinned", prepare, device="cuda:0", scope="end-to-end", unchecked="it computes nothing"
    )


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
    """
    n, m = geometry.source.size[::-1], geometry.target.size[::-1]

    def data() -> Job | Stack:
        array = np.asarray(make((*leading, *n)))
        if not leading:
            return Job(array, geometry, interpolation)
        return Stack(array, Job(array.reshape(-1, *n)[0], geometry, interpolation))

    empty = Job(np.zeros((1, 1, 1), dtype), geometry, interpolation)
    return Case(
        name, what, data, lambda d: _stack(d).array, doers(empty, dtype, bool(leading), gpu),
        (*leading, *n), (*leading, *m), dtype, dtype, exact=interpolation == "nearest",
    )  # fmt: skip

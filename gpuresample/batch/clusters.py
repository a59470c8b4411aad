"""Workers for a batch: a Dask cluster on this machine, or one that runs already."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import signal
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from distributed import Client, LocalCluster, Security, WorkerPlugin

from gpuresample.batch import items
from gpuresample.batch.interrupts import held_back
from gpuresample.engines.threads import cores, get_num_threads

# Volumes under way in a worker: one is read, one resampled, one written, one in reserve.
AT_ONCE = 4
# Cores of a worker, where nobody says how many workers there shall be: files are packed by one thread each.
_CORES = 4
_DASHBOARD = 8787
_WAIT = 60.0  # seconds for a cluster's first worker


@dataclass
class Workers:
    """Workers that are ready.

    Attributes
    ----------
    client : distributed.Client
    dashboard : str
        Address of Dask's dashboard, or nothing.
    text : str
        What they are, in words.
    own : distributed.LocalCluster or None
        Where they were started for this batch.
    """

    client: Any
    dashboard: str
    text: str
    own: Any = None

    def slots(self) -> int:
        """Volumes that can be under way at once."""
        return max(1, sum(w["nthreads"] for w in self.client.scheduler_info(n_workers=-1)["workers"].values()))

    def lost(self) -> bool:
        """Whether the scheduler is gone."""
        return self.client.status not in ("running", "connecting")

    def kill(self) -> None:
        """End the workers that were started for this batch, whatever they do."""
        for nanny in [] if self.own is None else self.own.workers.values():
            nanny.auto_restart = False
            with contextlib.suppress(ProcessLookupError, TypeError):
                os.kill(nanny.pid, signal.SIGKILL)


@contextlib.contextmanager
def local(count: int | None, device: str, log: Path, dashboard: bool = False) -> Iterator[Workers]:
    """Processes on this machine, each with a GPU of its own where there are any.

    Dask runs whatever reaches its ports. So other users of this machine are kept out: every connection is encrypted by
    keys that live in the memory of these processes alone, and the folder that Dask imports from belongs to this user.

    Parameters
    ----------
    count : int, optional
        Of workers; one for each GPU unless given, or else one for 4 cores.
    device : str
        As `gpuresample.resample` takes it: "cpu" leaves GPUs alone, "cuda:1" is for all workers.
    log : Path
        File for what libraries write to stderr.
    dashboard : bool
        Whether to serve Dask's dashboard. It has no password: every user of this machine can read it.
    """
    import dask

    gpus = _gpus() if device in ("auto", "cuda") else []
    cores = get_num_threads()
    n = count or len(gpus) or max(1, cores // _CORES)
    plugin = _Prepare({}, max(1, cores // n), n, gpus, str(log))
    with contextlib.ExitStack() as stack:
        private = stack.enter_context(tempfile.TemporaryDirectory(prefix="gpuresample-", ignore_cleanup_errors=True))
        with dask.config.set(_config(private, dashboard)), held_back(), warnings.catch_warnings():
            # Of the dashboard's port, where it is taken: it gets another.
            warnings.simplefilter("ignore")
            cluster = LocalCluster(
                n_workers=n, threads_per_worker=AT_ONCE, processes=True, host="127.0.0.1", memory_limit=0,
                security=_keys(), dashboard_address=f"127.0.0.1:{_DASHBOARD if dashboard else 0}",
                scheduler_kwargs={"dashboard": dashboard}, silence_logs="CRITICAL",
            )  # fmt: skip
        stack.callback(_close, cluster)
        with Client(cluster, set_as_default=False) as client:
            client.register_plugin(plugin)
            each = (
                "a GPU each" if gpus and n <= len(gpus) else f"{len(gpus)} GPUs" if gpus else _threads(plugin.threads)
            )
            text = f"{n} worker{'s' if n > 1 else ''} on this machine, {each}"
            link = cluster.dashboard_link if dashboard and _has_dashboard() else ""
            yield Workers(client, link, text, cluster)


def _config(private: str, dashboard: bool) -> dict[str, Any]:
    """Dask's settings for processes on this machine."""
    return {
        # A volume whose worker dies is tried again by us, alone: Dask would blame all that were under way with it.
        "distributed.scheduler.allowed-failures": 0,
        # Dask puts this folder first on sys.path. Its own choice is a fixed name in /tmp, which another user may own.
        "temporary-directory": private,
        # Dask's web pages are served without the dashboard, too.
        **({} if dashboard else {"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": []}),
    }


def _keys() -> Security:
    """Keys for one run.

    Raises
    ------
    ModuleNotFoundError
        If cryptography is missing; Dask's own error does not say so in its name.
    """
    import cryptography  # noqa: F401

    return Security.temporary()


def _close(cluster: Any) -> None:
    with contextlib.suppress(Exception):
        cluster.close(timeout=10)


@contextlib.contextmanager
def remote(address: str, folder: Path, tls: Sequence[str | os.PathLike[str]] | None = None) -> Iterator[Workers]:
    """The workers of a scheduler that runs already.

    Parameters
    ----------
    address : str
        Of the scheduler: "tls://host:8786". A "tcp://" scheduler asks nobody who they are, and what it sends back is
        unpickled, which can run any code: only for a network where everybody may run code as this user.
    folder : Path
        Where records are kept; workers must see it.
    tls : sequence of path-like, optional
        PEM files of a "tls://" scheduler: the certificate authority, this client's certificate, its key. Those of
        Dask's own configuration unless given.

    Raises
    ------
    OSError
        If there is no scheduler at the address, no worker comes, or one cannot see the folder.
    RuntimeError
        If a worker has no gpuresample, or another version.
    """
    try:
        client = Client(address, timeout=15, set_as_default=False, security=_security(tls))
    except (OSError, ValueError, TypeError) as error:
        raise OSError(f"scheduler {address}: cannot be reached: {error}") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=_WAIT)
        except TimeoutError:
            raise OSError(f"scheduler {address}: no worker within {_WAIT:.0f} s") from None
        _check(client, folder)
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        hosts = Counter(w["host"] for w in workers)
        name = f"gpuresample-{secrets.token_hex(4)}"
        client.register_plugin(_Prepare(dict(hosts), None, 1, [], None), name=name)
        text = f"{len(workers)} worker{'s' if len(workers) != 1 else ''} of {address}"
        # An address without a scheme has one by now: Dask's default, "tcp://".
        if not client.scheduler.address.startswith(("tls://", "wss://")):
            text += ", which is not encrypted: whoever reaches that port can run code as you (take tls://)"
        try:
            yield Workers(client, client.dashboard_link or "", text)
        finally:
            with contextlib.suppress(Exception):
                client.unregister_worker_plugin(name)


def _security(tls: Sequence[str | os.PathLike[str]] | None) -> Security | None:
    """What a client shows and asks for; nothing where Dask's configuration says it."""
    if tls is None:
        return None
    authority, certificate, key = (os.fspath(path) for path in tls)
    return Security(
        tls_ca_file=authority, tls_client_cert=certificate, tls_client_key=key, require_encryption=True
    )  # fmt: skip


class _Prepare(WorkerPlugin):  # type: ignore[misc]
    """Makes each worker ready, those too that Dask starts in place of one that died."""

    def __init__(
        self, hosts: dict[str, int], threads: int | None, share: int, gpus: list[str], log: str | None
    ) -> None:
        self.hosts, self.threads, self.share, self.gpus, self.log = hosts, threads, share, gpus, log

    def setup(self, worker: Any) -> None:
        """Called by Dask in the worker."""
        share = self.hosts.get(worker.host, self.share) if self.hosts else self.share
        gpu = self.gpus[int(worker.name) % len(self.gpus)] if self.gpus else None
        items.prepare(self.threads or max(1, cores() // share), share, gpu, self.log)


def _check(client: Any, folder: Path) -> None:
    """Refuse workers that could not do a volume."""
    token = secrets.token_hex(8)
    probe = folder / "probe"
    probe.write_text(token)
    try:
        answers = client.run(_seen, str(probe))
    except Exception as error:
        raise RuntimeError(f"the cluster's workers cannot run gpuresample[batch]: {error}") from None
    finally:
        probe.unlink(missing_ok=True)
    version = metadata.version("gpuresample")
    for worker, (theirs, text) in answers.items():
        if theirs != version:
            raise RuntimeError(f"worker {worker} has gpuresample {theirs}, this is {version}")
        if text != token:
            raise OSError(
                f"worker {worker} does not see {folder.parent}: inputs and outputs must have the same paths there"
            )


def _seen(path: str) -> tuple[str, str]:
    try:
        text = Path(path).read_text()
    except OSError:
        text = ""
    return metadata.version("gpuresample"), text


def _threads(count: int | None) -> str:
    return "1 thread each" if count == 1 else f"{count} threads each"


def _has_dashboard() -> bool:
    return importlib.util.find_spec("bokeh") is not None


def _gpus() -> list[str]:
    """GPUs that may be used, as CUDA_VISIBLE_DEVICES names them; no context is made."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import cupy

            count = int(cupy.cuda.runtime.getDeviceCount())
    except (ImportError, RuntimeError):
        return []
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] if named else [str(k) for k in range(count)]

"""A batch's processes on this machine: nobody else may reach them, and nothing of anybody else's is imported."""

import contextlib
import os
import socket
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("distributed", reason="batches are the extra gpuresample[batch]")
import psutil
from cli_support import refused, volume
from distributed import Client, LocalCluster, Security

from gpuresample.batch import clusters
from gpuresample.distributed import batch


def listening():
    """Addresses on which this process and those below it listen."""
    me = psutil.Process()
    found = set()
    for process in (me, *me.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            found |= {c.laddr for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    return found


@pytest.fixture(scope="module")
def team(tmp_path_factory):
    """Two workers, as a batch starts them, and the addresses that listen because of them."""
    before = listening()
    with clusters.local(2, "cpu", tmp_path_factory.mktemp("log") / "log") as found:
        yield found, listening() - before


def test_only_this_machine_is_listened_to(team):
    _, addresses = team
    # A scheduler, two workers and their two keepers, and the web servers of three of them.
    assert len(addresses) >= 8
    assert {host for host, _port in addresses} == {"127.0.0.1"}


@pytest.mark.parametrize("keys", [None, "others"])
def test_who_has_no_keys_runs_nothing(team, keys, tmp_path):
    """Tried on every port: the scheduler's, the workers', their keepers'."""
    from distributed.comm import connect
    from distributed.utils import sync

    found, addresses = team
    security = Security.temporary() if keys else Security()
    kind = "tls" if keys else "tcp"

    async def told(address):
        comm = await connect(address, timeout=0.4, **security.get_connection_args("client"))
        try:
            await comm.write({"op": "identity", "reply": True})
            return await comm.read()
        finally:
            comm.abort()

    # The others are web servers, which know no such questions.
    ports = [(host, port) for host, port in sorted(addresses) if not pages([(host, port)], "/")]
    assert len(ports) >= 5
    for host, port in ports:
        with pytest.raises(OSError):
            sync(found.client.loop, told, f"{kind}://{host}:{port}", callback_timeout=20)
    # The same question, asked by who has the keys.
    security = found.client.security
    assert sync(found.client.loop, told, found.client.scheduler.address, callback_timeout=20)["type"] == "Scheduler"


def test_another_user_s_client_is_refused(team):
    found, _ = team
    port = found.client.scheduler.address.rsplit(":", 1)[1]
    with pytest.raises(OSError):  # noqa: SIM117
        with Client(f"tcp://127.0.0.1:{port}", timeout=2, set_as_default=False) as client:
            client.submit(os.getpid).result(timeout=2)


def pages(addresses, path):
    """Status codes of a web page on all addresses that speak HTTP."""
    codes = []
    for host, port in addresses:
        try:
            with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=2) as answer:
                codes.append(answer.status)
        except urllib.error.HTTPError as error:
            codes.append(error.code)
        except OSError:
            pass
    return codes


@pytest.mark.parametrize(
    "path", ["/", "/status", "/health", "/metrics", "/json/counts.json", "/info/main/workers.html", "/statics/x.js"]
)
def test_there_are_no_web_pages(team, path):
    codes = pages(team[1], path)
    assert len(codes) >= 3
    assert set(codes) == {404}


def test_the_dashboard_is_there_when_asked_for_whoever_has_its_port(tmp_path):
    before = listening()
    with contextlib.closing(socket.socket()) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            taken.bind(("127.0.0.1", clusters._DASHBOARD))
            taken.listen()
        with clusters.local(1, "cpu", tmp_path / "log", dashboard=True) as found:
            assert found.slots() > 0
            assert found.dashboard.startswith("http://127.0.0.1:")
            assert 200 in pages(listening() - before - {("127.0.0.1", clusters._DASHBOARD)}, "/health")


def test_code_comes_from_no_folder_that_others_may_write(team):
    """Dask puts its scratch folder first on the path of imports, in this process and in workers."""
    found, _ = team
    known = {path for path in sys.path if "dask" in path}
    paths = found.client.run(lambda: __import__("sys").path)
    known |= {path for each in paths.values() for path in each if "dask" in path}
    assert known
    for path in known:
        folders = [Path(path), *Path(path).parents]
        private = [f for f in folders if f.exists() and f.stat().st_uid == os.getuid() and not f.stat().st_mode & 0o077]
        assert private, path


def test_keys_are_in_no_command_line_and_no_environment(team):
    me = psutil.Process()
    for process in me.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            assert "PRIVATE KEY" not in " ".join([*process.cmdline(), *process.environ().values()])


# A scheduler of one's own


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    """A scheduler of tls:// with one worker, and the three files that open it."""
    security, folder = Security.temporary(), tmp_path_factory.mktemp("keys")
    files = {"ca.pem": security.tls_ca_file, "cert.pem": security.tls_client_cert, "key.pem": security.tls_client_key}
    for name, text in files.items():
        (folder / name).write_text(text)
    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=True, host="127.0.0.1", memory_limit=0, security=security,
        dashboard_address=":0", local_directory=str(folder), silence_logs="CRITICAL",
    ) as cluster:  # fmt: skip
        yield cluster.scheduler_address, [folder / name for name in files]


def test_a_scheduler_of_tls_opens_to_its_files(locked, tmp_path, run):
    import SimpleITK as sitk

    address, (authority, certificate, key) = locked
    (tmp_path / "in").mkdir()
    sitk.WriteImage(volume(), str(tmp_path / "in" / "a.nii.gz"))
    words = ("batch", tmp_path / "in", tmp_path / "out", "--spacing", "2", "--scheduler", address)
    code, said, err = run(*words, "--tls-ca", authority, "--tls-cert", certificate, "--tls-key", key)
    assert code == 0, err
    assert "1 done" in said
    assert "not encrypted" not in err
    refused(run(*words, "--tls-ca", authority), 2, "give all three or none")
    refused(
        run(*words, "--tls-ca", authority, "--tls-cert", certificate, "--tls-key", tmp_path / "no.pem"), 1, "no.pem"
    )
    # The key of another certificate.
    other = tmp_path / "other.pem"
    other.write_text(Security.temporary().tls_client_key)
    words = (*words[:2], tmp_path / "other", *words[3:])
    refused(run(*words, "--tls-ca", authority, "--tls-cert", certificate, "--tls-key", other), 1, "cannot be reached")
    refused(run(*words), 1, "cannot be reached")
    # All files of another authority; a scheduler that is not of ours, asked with a certificate that is.
    foreign = Security.temporary()
    for name, text in {
        "ca": foreign.tls_ca_file,
        "cert": foreign.tls_client_cert,
        "key": foreign.tls_client_key,
    }.items():
        (tmp_path / name).write_text(text)
    for files in (
        [tmp_path / "ca", tmp_path / "cert", tmp_path / "key"],
        [tmp_path / "ca", certificate, key],
        [authority, tmp_path / "cert", tmp_path / "key"],
    ):
        options = zip(("--tls-ca", "--tls-cert", "--tls-key"), files, strict=True)
        refused(run(*words, *(word for option in options for word in option)), 1, "cannot be reached")
    # Another scheme, or none, at the same port.
    for other_address in (address.replace("tls://", "tcp://"), address.removeprefix("tls://")):
        refused(run(*words[:-1], other_address), 1, "cannot be reached")


def test_dask_s_settings_open_no_door(tmp_path):
    import dask

    before = listening()
    setting = {
        "distributed.comm.require-encryption": False,
        "distributed.comm.default-scheme": "tcp",
        "distributed.comm.tls.ca-file": "/nonexistent/ca.pem",
        "distributed.scheduler.http.routes": ["distributed.http.health"],
        "distributed.worker.http.routes": ["distributed.http.health"],
        "temporary-directory": "/nonexistent",
    }
    with dask.config.set(setting), clusters.local(1, "cpu", tmp_path / "log") as found:
        addresses = listening() - before
        assert found.client.scheduler.address.startswith("tls://127.0.0.1:")
        assert {host for host, _port in addresses} == {"127.0.0.1"}
        assert set(pages(addresses, "/health")) == {404}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"tls": ["a", "b", "c"]}, "tls is for a scheduler of tls://"),
        ({"tls": ["a", "b", "c"], "scheduler": "tcp://127.0.0.1:1"}, "tls is for a scheduler of tls://"),
        ({"tls": ["a", "b"], "scheduler": "tls://127.0.0.1:1"}, "tls must be three files"),
        ({"tls": "abc", "scheduler": "tls://127.0.0.1:1"}, "tls must be three files"),
        ({"dashboard": True, "scheduler": "tls://127.0.0.1:1"}, "dashboard is for processes on this machine"),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path, more, message):
    with pytest.raises(ValueError, match=message):
        batch(tmp_path, tmp_path / "out", spacing=2.0, **more)
    assert not (tmp_path / "out").exists()

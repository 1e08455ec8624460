"""Real storages on this machine: a PostgreSQL cluster of one's own, and Optuna's proxy."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.autopar.cli.processes import Process

PASSWORD = "s3cret/w:rd@"  # noqa: S105
QUOTED = "s3cret%2Fw%3Ard%40"
PATIENCE_S = 60.0


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, server: "Process | subprocess.Popen[bytes]") -> None:
    """Until the server listens."""
    until_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < until_s:
        assert server.poll() is None, "the server did not start"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the server does not listen")


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of a new database with a password; skips where there is no server."""
    pytest.importorskip("psycopg", reason="no driver: pip install 'autopar[postgres]'")
    folder = _binaries()
    if folder is None:
        pytest.skip("no PostgreSQL server here (initdb and postgres)")
    words = _as_somebody()
    home = Path(tempfile.mkdtemp(prefix="autopar-pg-"))
    try:
        if words:
            shutil.chown(home, words["user"], words["group"])
        secret = home / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        run: dict[str, Any] = {"cwd": home, "stdout": subprocess.DEVNULL, **words}
        init: list[str | Path] = [
            folder / "initdb",
            "-D",
            home / "data",
            "-U",
            "autopar",
            "-A",
            "scram-sha-256",
        ]
        init += ["--pwfile", secret, "--no-sync", "-E", "UTF8", "--locale", "C"]
        subprocess.run(init, check=True, stderr=subprocess.DEVNULL, **run)
        port = free_port()
        start: list[str | Path] = [
            folder / "postgres",
            "-D",
            home / "data",
            "-p",
            str(port),
            "-k",
            home,
            "-F",
        ]
        start += ["-c", "listen_addresses=127.0.0.1", "-c", "max_connections=50"]
        server = subprocess.Popen(start, stderr=subprocess.DEVNULL, **run)
        try:
            wait_for_port(port, server)
            url = f"postgresql://autopar:{QUOTED}@127.0.0.1:{port}/postgres"
            _wait_for_answer(url)
            yield url
        finally:
            server.send_signal(signal.SIGINT)  # does not wait for those who are connected
            server.wait(timeout=PATIENCE_S)
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def proxy(database: Path) -> Iterator[str]:
    """The URL of Optuna's gRPC proxy in front of an SQLite database; skips without grpcio."""
    pytest.importorskip("grpc", reason="no grpcio: pip install 'autopar[grpc]'")
    port = free_port()
    server = Process(_serve, f"sqlite:///{database}", port)
    try:
        wait_for_port(port, server)
        yield f"grpc://127.0.0.1:{port}"
    finally:
        server.kill()


def _serve(database: str, port: int) -> None:
    import warnings

    from optuna.storages import get_storage, run_grpc_proxy_server

    warnings.simplefilter("ignore")
    run_grpc_proxy_server(get_storage(database), host="127.0.0.1", port=port)


def _wait_for_answer(url: str) -> None:
    """Until the server has started up behind its port."""
    import psycopg

    until_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            if time.monotonic() > until_s:
                raise
            time.sleep(0.1)
        else:
            return


def _binaries() -> Path | None:
    """Where ``initdb`` and ``postgres`` are, on the path or where distributions put them."""
    folders = [Path(found).parent for found in [shutil.which("initdb")] if found]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in folders:
        if all((folder / name).exists() for name in ("initdb", "postgres")):
            return folder
    return None


def _as_somebody() -> dict[str, Any]:
    """The server refuses root: run it as another user, or skip where there is none."""
    if os.name == "nt" or os.geteuid() != 0:
        return {}
    import pwd

    for name in ("postgres", "nobody"):
        try:
            who = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}
    pytest.skip("PostgreSQL refuses root, and there is no other user")

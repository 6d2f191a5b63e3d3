"""Database servers of one's own, in a temporary folder, on a free port of this computer's loopback."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from glob import glob
from pathlib import Path
from typing import Any

from search import storages

USER, PASSWORD = "archspec", "s3cret-w0rd"
START_SECONDS = 120


class Absent(Exception):
    """A server's program or its driver is not installed on this computer; ``str()`` says what would bring it."""


@contextmanager
def postgresql() -> Iterator[str]:
    """A PostgreSQL server; the URL of its database. Raises `Absent`."""
    _require_driver("postgresql")
    programs = _programs("postgres", *sorted(glob("/usr/lib/postgresql/*/bin"), reverse=True), what="postgresql")
    with _folder("postgres") as (folder, owner):
        (folder / "password").write_text(PASSWORD)
        data, port = folder / "data", _free_port()
        own = {"user": owner, "group": pwd.getpwuid(owner).pw_gid, "extra_groups": []} if os.getuid() == 0 else {}
        initdb = [programs / "initdb", "-D", data, "-U", USER, "-A", "scram-sha-256", "--no-sync", "-E", "UTF8"]
        _run([*initdb, f"--pwfile={folder / 'password'}"], **own)
        serve = [programs / "postgres", "-D", data, "-p", str(port), "-k", folder, "-c", "listen_addresses=127.0.0.1"]
        with _serving(serve, folder / "log", lambda: _answers(port, folder / "log", "ready to accept"), **own):
            yield f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{port}/postgres"


@contextmanager
def mysql() -> Iterator[str]:
    """A MariaDB server; the URL of its database. Raises `Absent`."""
    _require_driver("mysql")
    programs = _programs("mariadbd", "/usr/sbin", "/usr/libexec", what="mariadb-server")
    install = shutil.which("mariadb-install-db")
    if install is None:
        raise Absent("mariadb-install-db is not there: apt-get install mariadb-server")
    with _folder("mysql") as (folder, owner):
        data, port, name = folder / "data", _free_port(), pwd.getpwuid(owner).pw_name
        own = {"user": owner, "group": pwd.getpwuid(owner).pw_gid, "extra_groups": []} if os.getuid() == 0 else {}
        options = ["--no-defaults", f"--datadir={data}", f"--user={name}"]
        _run([install, *options, "--auth-root-authentication-method=normal"], **own)
        socket_file, first = folder / "socket", folder / "first.sql"
        statements = (  # one a line, or the server reads them as one
            "CREATE DATABASE studies;",
            f"CREATE USER '{USER}'@'localhost' IDENTIFIED BY '{PASSWORD}';",
            f"GRANT ALL ON studies.* TO '{USER}'@'localhost';",
        )
        first.write_text("\n".join(statements) + "\n")
        serve = [programs / "mariadbd", *options, f"--socket={socket_file}", f"--port={port}"]
        serve += ["--bind-address=127.0.0.1", f"--init-file={first}", f"--pid-file={folder / 'pid'}"]
        with _serving(serve, folder / "log", lambda: _answers(port, folder / "log", "ready for connections"), **own):
            yield f"mysql://{USER}:{PASSWORD}@127.0.0.1:{port}/studies"


@contextmanager
def grpc(url: str) -> Iterator[str]:
    """Our own ``archc serve`` before a database; its URL. Raises `Absent`."""
    _require_driver("grpc")
    port = _free_port()
    command = [sys.executable, "-c", "from archc.main import app; app()", "serve", url, "--port", str(port)]
    with (
        tempfile.TemporaryDirectory() as folder,
        _serving(command, Path(folder) / "log", lambda: _answers(port, None, "")),
    ):
        yield f"grpc://127.0.0.1:{port}"


def _require_driver(scheme: str) -> None:
    driver = storages.DRIVERS[scheme]
    if importlib.util.find_spec(driver) is None:
        raise Absent(f"{driver} is not installed: pip install 'archspec-nas[{scheme}]'")


def _programs(name: str, *places: str, what: str) -> Path:
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *places]))
    if found is None:
        raise Absent(f"{name} is not there: apt-get install {what}")
    return Path(found).resolve().parent


@contextmanager
def _folder(name: str) -> Iterator[tuple[Path, int]]:
    """A folder and who owns it: not the super-user, for whom database servers refuse to run."""
    owner = os.getuid()
    if owner == 0:
        names = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()}
        owner = names.get(name, names["nobody"])
    with tempfile.TemporaryDirectory(prefix="archspec-") as place:
        os.chown(place, owner, -1)
        yield Path(place), owner


@contextmanager
def _serving(command: Sequence[Any], log: Path, is_ready: Callable[[], bool], **own: Any) -> Iterator[None]:
    with open(log, "wb") as file:
        process = subprocess.Popen(list(map(os.fspath, command)), stdout=file, stderr=file, **own)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} does not start: {log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()


def _run(command: Sequence[Any], **own: Any) -> None:
    done = subprocess.run(list(map(os.fspath, command)), capture_output=True, text=True, **own)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stdout[-1000:]}{done.stderr[-1000:]}")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _answers(port: int, log: Path | None, said: str) -> bool:
    if log is not None and said not in log.read_text(errors="replace"):
        return False
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0

"""``archc serve``: a database for workers that cannot reach it themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def serve(
    url: Annotated[str, typer.Argument(metavar="URL", help="A database, as postgresql://user@host/name.")],
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Where it listens.")] = 13000,
    host: Annotated[str, typer.Option("--host", help="An address of this computer.")] = "localhost",
) -> None:
    """Serve a database to studies whose storage is grpc://HOST:PORT, until it is interrupted.

    There is no password: let only trusted machines reach the port.

    \b
        archc serve postgresql://me@db/studies --host 0.0.0.0 --port 13000
    """
    from search.storages import serve as serve_storage

    typer.echo(f"serving grpc://{host}:{port}")
    serve_storage(url, Path(), host, port)

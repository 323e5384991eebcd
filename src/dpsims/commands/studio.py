"""`dpsims studio`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from dpsims.commands.parts import Device
from dpsims.studio.limits import LOOPBACK

TOKEN = "DPSIMS_STUDIO_TOKEN"


def studio(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...",
            help="run directories, checkpoints, or `earth` (ships with the package) [default: earth]",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="address to listen at; others than this machine's want a token")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one")] = 7860,
    maps: Annotated[Path | None, typer.Option(help="folder of label maps to start from")] = None,
    token: Annotated[
        str | None, typer.Option(help=f"who uses it must know this word [default: ${TOKEN}]")
    ] = None,
    open_to_all: Annotated[
        bool, typer.Option("--open-to-all", help="no token, though others can reach it")
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="name that a proxy in front goes by (repeat for several)"),
    ] = None,
    device: Device = "auto",
) -> None:
    """Paint label maps in the browser and see the pictures; also an HTTP API (/openapi.json)."""
    token = token if token is not None else os.environ.get(TOKEN)
    if token is not None and (not token.isascii() or not token.isprintable() or " " in token or not token):
        raise ValueError("--token: use letters, digits and signs of ASCII, without spaces")
    if host not in LOOPBACK and not token and not open_to_all:
        raise ValueError(
            f"--host {host}: others may reach it; give --token WORD (or, if it shall be open, --open-to-all)"
        )
    try:
        from dpsims.studio.serving import serve
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] == "dpsims":
            raise
        raise ValueError(f"{error.name} is missing: pip install 'dpsims[studio]'") from error
    from dpsims.studio.hosted import host as load

    serve(
        load(models or ["earth"], device, maps),
        host,
        port,
        token,
        [name.lower() for name in allow_host or ()],
    )

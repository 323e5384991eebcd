"""Running the application: address, token, shutdown."""

from __future__ import annotations

import contextlib
import socket
import urllib.parse
from collections.abc import Collection, Mapping

import uvicorn

from dpsims.studio.app import create_app
from dpsims.studio.hosted import Hosted
from dpsims.studio.limits import LOOPBACK, MAX_BATCH, REQUEST_SECONDS


def open_socket(host: str, port: int) -> socket.socket:
    """Listening at host:port (0: a free one). Raises ValueError where that cannot be."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, OverflowError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"{host}:{port}: {reason}; choose another --host or --port") from error
    return listening


def serve(
    models: Mapping[str, Hosted],
    host: str,
    port: int,
    token: str | None,
    sites: Collection[str] = (),
    max_batch: int = MAX_BATCH,
) -> None:
    """Serve until SIGINT or SIGTERM; what was accepted is finished. Prints the address once it answers."""
    listening = open_socket(host, port)
    # another site's name that resolves to this machine must not reach a server without a token
    hosts = {*LOOPBACK, host.lower()} if host in LOOPBACK else None
    app = create_app(models, token, hosts, sites, max_batch)
    name = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    address = f"http://{name}:{listening.getsockname()[1]}/"
    if token:
        address += f"#token={urllib.parse.quote(token, safe='')}"
    config = uvicorn.Config(
        app,
        log_level="warning",
        timeout_graceful_shutdown=int(REQUEST_SECONDS),
        server_header=False,
        ws="none",
    )
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again once it is done: the usual end
        _Announcing(config, address).run(sockets=[listening])


class _Announcing(uvicorn.Server):
    """Says where it is once it answers."""

    def __init__(self, config: uvicorn.Config, address: str) -> None:
        super().__init__(config)
        self.address = address

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            print(f"studio: {self.address} (Ctrl-C ends it)", flush=True)

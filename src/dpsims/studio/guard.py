"""What stands in front of the application: who may ask, how much, and what a browser may do with answers."""

from __future__ import annotations

import hmac
import json
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dpsims.studio.limits import MAX_BODY

HEADERS = {
    # no script, style or picture from elsewhere, nothing inline, no frame around the page
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' "
    "blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
PROTECTED = ("/v1/", "/metrics")


class Guard:
    """ASGI middleware. hosts: names that a request may address (None: any; another site's name that resolves
    to this machine is then let in). token: wanted by everything under PROTECTED, as `Authorization: Bearer
    TOKEN`. Other sites' pages are refused by Origin, but for those of `sites` (names that a proxy in front
    goes by, which are hosts, too); long bodies are refused while they arrive.
    """

    def __init__(
        self, app: ASGIApp, token: str | None, hosts: Collection[str] | None, sites: Collection[str] = ()
    ) -> None:
        self.app, self.token, self.sites = app, token, sites
        self.hosts = None if hosts is None else {*hosts, *sites}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets here
            return
        headers = Headers(scope=scope)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refusal = self._refusal(scope["path"], headers)
        if refusal is not None:
            await _refuse(*refusal, send_guarded)
            return
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY:
                raise HTTPException(413, _TOO_LARGE)
            return message

        await self.app(scope, receive_limited, send_guarded)

    def _refusal(self, path: str, headers: Headers) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if self.hosts is not None and _name(host) not in self.hosts:
            return 400, f"this server is not {host!r}; use the address that `dpsims studio` printed"
        origin = headers.get("origin")
        site = origin.partition("://")[2] if origin is not None else host
        if site != host and _name(site) not in self.sites:
            return 403, "pages of other sites may not use this server"
        given = headers.get("authorization", "").removeprefix("Bearer ").encode()
        wanted = self.token.encode() if self.token is not None and path.startswith(PROTECTED) else given
        if not hmac.compare_digest(given, wanted):
            return 401, "a token is needed: send the header `Authorization: Bearer TOKEN`"
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > MAX_BODY:
            return 413, _TOO_LARGE
        return None


_TOO_LARGE = f"the request has more than {MAX_BODY:,} bytes; make the label map smaller"


def _name(host: str) -> str:
    """Of a Host header, without the port: `[::1]:7860` -> `::1`."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


async def _refuse(status: int, detail: str, send: Send) -> None:
    body = json.dumps({"detail": detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status == 413:
        headers.append((b"connection", b"close"))  # what is still coming is not read
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

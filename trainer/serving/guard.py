"""Who may ask: checks before any request is looked at, and the headers that keep a page to itself.

A page of somebody else, open in the same browser, can send requests to this machine as well. It cannot read what comes
back, unless its name is made to mean this machine (DNS rebinding): so the name that a browser asks for must be known.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode

from trainer.serving.limits import MOST_REQUESTS, RETRY_AFTER_S

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

COOKIE = "lienzo-token-{}"  # by port: browsers send cookies to all ports of a machine
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Guard:
    """Lets through who may ask, so many at a time.

    Args:
        app: what is behind it.
        token: that everybody must have; None: nobody needs one.
        names: of hosts, besides those that are known anyway.
    """

    def __init__(self, app: Application, token: str | None, names: Iterable[str] = ()) -> None:
        self.app, self.token = app, token
        self.names = {"localhost", socket.gethostname().lower(), *(name.lower() for name in names)}
        self.under_way = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request, or let it through."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        cookie = COOKIE.format(port_of(headers.get("host", "")))
        query = parse_qsl(scope["query_string"].decode("latin-1"))
        if not self.knows(headers.get("host", "")):
            return await say(send, 421, "this name of the machine is not known here: use its address, or --allow-host")
        if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
            return await say(send, 403, "another site's page may not ask")
        if self.token is not None and scope["path"] == "/" and self.fits(dict(query).get("token", "")):
            # Not in the address any more, where it would be seen, and kept in the browser's history.
            there = "/?" + urlencode([(name, value) for name, value in query if name != "token"])
            return await say(send, 303, "come in", location=there, **{"set-cookie": self.kept(cookie)})
        if self.token is not None and not self.fits(presented(headers, cookie)):
            problem = "a token is needed: open the link that `trainer serve` printed"
            return await say(send, 401, problem, **{"www-authenticate": "Bearer"})
        if self.under_way >= MOST_REQUESTS:
            problem = f"{MOST_REQUESTS} requests are under way: try again"
            return await say(send, 503, problem, **{"retry-after": str(RETRY_AFTER_S)})
        self.under_way += 1
        try:
            await self.app(scope, receive, with_headers(send))
        finally:
            self.under_way -= 1

    def knows(self, host: str) -> bool:
        """Tell whether a Host header names this machine: by an address, which no DNS can change, or by a known name."""
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        try:
            ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return name.lower().removesuffix(".") in self.names
        return True

    def fits(self, presented: str) -> bool:
        """Compare a token, in a time that says nothing of it."""
        return self.token is not None and hmac.compare_digest(presented.encode(), self.token.encode())

    def kept(self, cookie: str) -> str:
        """Return what makes the browser keep the token, out of the reach of scripts and other sites."""
        return f"{cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict"


def port_of(host: str) -> str:
    """Return the port of a Host header, 80 if it names none."""
    port = host.rpartition(":")[2]
    return port if port.isdecimal() and ":" in host else "80"


def presented(headers: MutableMapping[str, str], cookie: str) -> str:
    """Return the token of a request: from its header `Authorization: Bearer`, or the cookie of this name."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    try:
        cookies = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return ""
    return cookies[cookie].value if cookie in cookies else ""


def with_headers(send: Send) -> Send:
    """Return a `send` that adds the headers of every answer."""

    async def add(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *encoded(HEADERS)]
        await send(message)

    return add


def encoded(headers: MutableMapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Return headers as ASGI wants them."""
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


async def say(send: Send, status: int, detail: str, **headers: str) -> None:
    """Answer a request that is not let through."""
    body = json.dumps({"detail": detail}).encode()
    about = {"content-type": "application/json", "content-length": str(len(body)), "cache-control": "no-store"}
    await send({"type": "http.response.start", "status": status, "headers": encoded(HEADERS | about | headers)})
    await send({"type": "http.response.body", "body": body})

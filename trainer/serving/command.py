"""`trainer serve`: from the command line to a server that listens, and to its end."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import math
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import torch
import uvicorn

from trainer.core.fields import Refused
from trainer.core.stopping import Outcome, StopRequest
from trainer.serving.answers import Answers
from trainer.serving.app import create_app
from trainer.serving.arguments import Serve
from trainer.serving.catalogue import Catalogue
from trainer.serving.guard import Guard
from trainer.serving.limits import MOST_PICTURES

LEAST_TOKEN = 16  # characters
TOKEN = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~")  # in links and cookies as they are
BACKLOG = 2048  # connections that wait to be accepted
GRACE_S = 5  # for answers that are on their way when the server is to stop


class Server(uvicorn.Server):
    """A server that ends when the process is asked to stop: it listens no more, and gives the answers it has begun."""

    def __init__(self, config: uvicorn.Config, stop: StopRequest) -> None:
        super().__init__(config)
        self.stop = stop

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the command."""
        yield

    async def on_tick(self, counter: int) -> bool:
        """Tell whether to end."""
        return await super().on_tick(counter) or self.stop()


def run_serve(args: Serve) -> Outcome:
    """Serve until a signal asks for the end.

    Raises:
        Refused: it cannot be done; nobody could see anything.
    """
    check(args)
    token = choose_token(args)
    with listening(args.host, args.port) as listener:
        catalogue = Catalogue(args.runs, args.batch_size or default_batch(), args.generators)
        stop = StopRequest()
        stop.install()
        try:
            app = create_app(catalogue, Answers(args.cache_mb << 20, args.timeout_s))
            config = uvicorn.Config(
                Guard(app, token, args.allow_host),
                http="h11",
                ws="none",
                lifespan="off",
                log_level="warning",
                access_log=False,  # addresses may hold a token
                server_header=False,
                proxy_headers=False,
                backlog=BACKLOG,
                timeout_graceful_shutdown=GRACE_S,
            )
            # Once, and only to who started it; flushed, for a pipe has a buffer.
            print(f"{', '.join(catalogue.runs)}: {link(args.host, listener, token)}   (Ctrl-C ends it)", flush=True)
            Server(config, stop).run(sockets=[listener])
        finally:
            catalogue.stop()
    return Outcome.FINISHED


def check(args: Serve) -> None:
    """Refuse a lack of runs, and numbers that make no sense, before anything is loaded.

    Raises:
        Refused: naming the first.
    """
    if not args.runs:
        raise Refused("there is no run to serve: name a run folder, or several")
    limits = (
        ("port", args.port, 0, 65535),
        ("batch-size", 1 if args.batch_size is None else args.batch_size, 1, MOST_PICTURES),
        ("generators", args.generators, 1, 64),
        ("cache-mb", args.cache_mb, 0, 65536),
    )
    for name, value, least, most in limits:
        if not least <= value <= most:
            raise Refused(f"--{name} must be from {least} to {most:,}, but is {value:,}")
    if not (math.isfinite(args.timeout_s) and args.timeout_s > 0):
        raise Refused(f"--timeout-s must be positive, but is {args.timeout_s:g}")


def default_batch() -> int:
    """Return how many pictures are painted at once: every batch is filled up, and one picture is what most ask for."""
    return 16 if torch.cuda.is_available() else 2


def choose_token(args: Serve) -> str | None:
    """Return the token that everybody needs; None: who is on this machine needs none.

    Raises:
        Refused: the file cannot be read, or holds none that is good.
    """
    if args.token_file is not None:
        return read_token(args.token_file)
    return None if is_loopback(args.host) else secrets.token_urlsafe()


def read_token(path: Path) -> str:
    """Return the first line of a file.

    Raises:
        Refused: it cannot be read, or is no good token.
    """
    try:
        with path.open(encoding="ascii") as file:
            token = file.readline(4096).strip()
    except (OSError, ValueError) as error:
        raise Refused(f"--token-file {path} cannot be read: {error}") from error
    if len(token) < LEAST_TOKEN or not TOKEN.issuperset(token):
        raise Refused(
            f"the token in {path} must have {LEAST_TOKEN} characters at least, letters, digits and -_.~ alone; leave "
            "--token-file out for a random one"
        )
    return token


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """Return a socket that listens, and closes in the end. Who connects before the server runs waits for it.

    Raises:
        Refused: there is no such address here, or the port is in use.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise Refused(f"--host {host} cannot be listened at: {error.strerror}") from error
    with contextlib.closing(listener):
        try:
            # A server that has just ended must not keep its port; one that runs still does.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError as error:
            what = f"--host {host} --port {port} cannot be listened at: {error.strerror}"
            if error.errno == errno.EADDRINUSE:
                what += "; name another with --port, or 0 for a free one"
            raise Refused(what) from error
        yield listener


def link(host: str, listener: socket.socket, token: str | None) -> str:
    """Return the link that opens the page."""
    name = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return f"http://{name}:{listener.getsockname()[1]}/" + (f"?token={token}" if token else "")

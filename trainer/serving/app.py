"""The API: queries in, pictures out. Equal requests have equal bytes, whatever else is asked for at the same time."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from shards.errors import DataError
from trainer.core.fields import Refused
from trainer.sampling.sampler import Images
from trainer.serving import queries
from trainer.serving.answers import Answers, Gone
from trainer.serving.catalogue import Catalogue
from trainer.serving.describe import describe_run
from trainer.serving.encoding import encode_frames, encode_picture, encode_wall
from trainer.serving.limits import MOST_PICTURES, RETRY_AFTER_S, Busy, TooMuch, Unknown, Waiting
from trainer.serving.queries import FilmQuery, PictureQuery, Problem, RunsAnswer, WallQuery
from trainer.serving.worker import Job

ASSETS = Path(__file__).parent / "assets"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
PICTURES = {"png": "image/png", "webp": "image/webp", "gif": "image/gif"}
STATUS: dict[type[Exception], int] = {
    Refused: 400,
    DataError: 400,
    Unknown: 404,
    TooMuch: 413,
    Gone: 499,  # nobody reads it
    Busy: 503,
}
Encode = Callable[[Images, dict[str, Any]], bytes]


class PictureServer:
    """Answers queries with files.

    Args:
        catalogue: what is served.
        answers: keeps files.
    """

    def __init__(self, catalogue: Catalogue, answers: Answers) -> None:
        self.catalogue, self.answers, self.waiting = catalogue, answers, Waiting()
        # Another machine, or another version, may round otherwise: what a browser kept is not taken for what is here.
        self.salt = secrets.token_hex(8)

    async def answer(self, request: Request, query: queries.Query, encode: Encode) -> Response:
        """Answer a query with a file.

        Raises:
            Refused, DataError, TooMuch, Unknown, Busy: it cannot be.
        """
        run, checkpoint = self.catalogue.find(query.run, query.checkpoint)
        query = query.model_copy(update={"run": run.name, "checkpoint": checkpoint})
        wanted = query.model_dump_json(by_alias=True, exclude={"download"})
        key = hashlib.sha256(f"{self.salt} {type(query).__name__} {wanted}".encode()).hexdigest()[:32]
        headers = {"etag": f'"{key}"', "cache-control": "private, no-cache"}
        if f'"{key}"' in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        content = await self.answers.get(key, partial(self.make, query, encode), request.is_disconnected)
        if query.download:
            name = "-".join([run.name, *([checkpoint] if checkpoint else []), key[:8]])
            safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in name)
            headers["content-disposition"] = f'attachment; filename="{safe}.{query.format}"'
        return Response(content, media_type=PICTURES[query.format], headers=headers)

    async def make(self, query: queries.Query, encode: Encode) -> bytes:
        """Generate and encode what a query of a known run and checkpoint wants."""
        run, checkpoint = self.catalogue.find(query.run, query.checkpoint)
        height, width = self.catalogue.served[run.name].network.shape
        points = query.points()
        with ExitStack() as stack:
            stack.enter_context(self.waiting.admit(len(points), height * width))
            worker = await run_in_threadpool(self.catalogue.worker, run, checkpoint)
            job = Job(query.style(), points)
            worker.submit(job)
            pictures = await asyncio.wrap_future(job.answer)
            parameters = query.model_dump(mode="json", by_alias=True, exclude={"download", "format"})
            return await run_in_threadpool(encode, pictures, parameters)


def create_app(catalogue: Catalogue, answers: Answers) -> FastAPI:
    """Return the application: the page, the pictures, and their description at /openapi.json."""
    server = PictureServer(catalogue, answers)
    # Its pages of documentation load scripts from other machines.
    app = FastAPI(title="lienzo", version=version("lienzo"), docs_url=None, redoc_url=None)
    problems: dict[int | str, dict[str, Any]] = {status: {"model": Problem} for status in (400, 404, 413, 422, 503)}

    def picture(*kinds: str) -> dict[int | str, dict[str, Any]]:
        return {200: {"content": {PICTURES[kind]: {} for kind in kinds}}, **problems}

    @app.get("/generate", response_class=Response, responses=picture("png", "webp"))
    async def generate(request: Request, query: Annotated[PictureQuery, Query()]) -> Response:
        """One picture."""
        return await server.answer(request, query, lambda p, about: encode_picture(p[0], query.format, about))

    @app.get("/wall", response_class=Response, responses=picture("png", "webp"))
    async def wall(request: Request, query: Annotated[WallQuery, Query()]) -> Response:
        """Pictures in rows, as one."""
        return await server.answer(request, query, lambda p, about: encode_wall(p, query.columns, query.format, about))

    @app.get("/interpolate", response_class=Response, responses=picture("webp", "gif"))
    async def interpolate(request: Request, query: Annotated[FilmQuery, Query()]) -> Response:
        """A film from picture to picture."""
        return await server.answer(request, query, lambda p, _: encode_frames(p, query.format, query.fps, query.loop))

    @app.get("/runs")
    async def runs() -> RunsAnswer:
        """What is served, and what can be asked of it."""
        found = [
            await run_in_threadpool(describe_run, run, catalogue.served[run.name]) for run in catalogue.runs.values()
        ]
        return RunsAnswer(runs=found, most_pictures=MOST_PICTURES, version=app.version)

    add_page(app)
    add_problems(app)
    return app


def add_page(app: FastAPI) -> None:
    """Add the page and what it is made of."""
    files = {
        path.name: (path.read_bytes(), f"{TYPES[path.suffix]}; charset=utf-8")
        for path in ASSETS.iterdir()
        if path.suffix in TYPES
    }

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return asset("index.html")

    @app.get("/assets/{name}", include_in_schema=False)
    async def asset_file(name: str) -> Response:
        return asset(name)

    def asset(name: str) -> Response:
        if name not in files:
            raise Unknown("there is no such file")
        content, kind = files[name]
        return Response(content, media_type=kind, headers={"cache-control": "no-cache"})


def add_problems(app: FastAPI) -> None:
    """Answer what cannot be with a status and one sentence."""

    async def refuse(request: Request, error: Exception) -> Response:
        status = next(code for kind, code in STATUS.items() if isinstance(error, kind))
        headers = {"retry-after": str(RETRY_AFTER_S)} if status == 503 else {}
        # The message of a command names its flag; here it is a parameter.
        return JSONResponse({"detail": str(error).removeprefix("--")}, status, headers)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:])
        return JSONResponse({"detail": f"{place}: {first['msg']}"}, 422)

    for kind in STATUS:
        app.add_exception_handler(kind, refuse)
    app.add_exception_handler(RequestValidationError, invalid)

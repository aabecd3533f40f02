"""The parts of `trainer serve` by themselves: who may ask, what is kept, where pictures lie, what is refused."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from trainer.__main__ import main
from trainer.core.fields import Refused
from trainer.serving.answers import Answers, Gone
from trainer.serving.arguments import Serve
from trainer.serving.command import choose_token, is_loopback, link, listening
from trainer.serving.guard import COOKIE, Guard, Message, Receive, Send
from trainer.serving.limits import MOST_PICTURES, MOST_REQUESTS, MOST_WAITING_PICTURES, Busy, TooMuch, Waiting
from trainer.serving.points import Point, Style, film, wall
from trainer.serving.queries import FilmQuery, PictureQuery, WallQuery
from trainer.serving.worker import Job, Worker

HERE = COOKIE.format(8000)
TOKEN = "correct-horse-battery-staple"


def ask(guard: Guard, path: str = "/runs", query: str = "", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Send a request to a guard, and return status, headers and body."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    given = {"host": "localhost:8000"} | {name.replace("_", "-"): value for name, value in headers.items()}
    scope = {"type": "http", "path": path, "query_string": query.encode()}
    scope |= {"headers": [(name.encode(), value.encode()) for name, value in given.items()]}
    asyncio.run(guard(scope, receive, send))
    return sent[0]["status"], {k.decode(): v.decode() for k, v in sent[0]["headers"]}, sent[1]["body"]


async def behind(scope: Message, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"seen"})


def test_only_names_of_this_machine_are_known() -> None:
    guard = Guard(behind, None, ["Paint.example"])
    known = ("localhost", "LOCALHOST:80", "127.0.0.1:8000", "[::1]:8000", "192.168.7.9", "paint.example:8000")
    for host in (*known, f"{socket.gethostname()}:8000"):
        assert ask(guard, host=host)[0] == 200, host
    # The last ones would be known if an end, or a beginning, were enough.
    for host in ("", "evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "a:b:c"):
        status, headers, body = ask(guard, host=host)
        assert status == 421, host
        assert b"seen" not in body
        assert "default-src 'none'" in headers["content-security-policy"]


def test_pages_of_other_sites_may_link_here_and_not_ask() -> None:
    guard = Guard(behind, None)
    assert ask(guard, sec_fetch_site="cross-site", sec_fetch_mode="no-cors")[0] == 403
    assert ask(guard, sec_fetch_site="cross-site", sec_fetch_mode="navigate")[0] == 200
    assert ask(guard, sec_fetch_site="same-origin", sec_fetch_mode="cors")[0] == 200


def test_a_token_comes_by_link_header_or_cookie() -> None:
    guard = Guard(behind, TOKEN)
    for headers in ({}, {"authorization": "Bearer wrong"}, {"cookie": f"{HERE}=wrong"}, {"authorization": TOKEN}):
        status, answer, body = ask(guard, **headers)
        assert (status, answer["www-authenticate"]) == (401, "Bearer")
        assert TOKEN not in body.decode()
    assert ask(guard, authorization=f"Bearer {TOKEN}")[0] == 200
    assert ask(guard, cookie=f"other=1; {HERE}={TOKEN}")[0] == 200
    assert ask(guard, cookie="; ;=\x01")[0] == 401
    assert ask(guard, cookie=f"{COOKIE.format(8001)}={TOKEN}")[0] == 401, "that of another server on this machine"
    assert ask(guard, "/", f"token={TOKEN}x")[0] == 401
    assert ask(guard, "/runs", f"token={TOKEN}")[0] == 401, "by the page's address alone: others are logged by proxies"
    status, answer, _ = ask(guard, "/", f"view=a&token={TOKEN}&view=b&class=%3Cb%3E")
    assert (status, answer["location"]) == (303, "/?view=a&view=b&class=%3Cb%3E")
    assert answer["set-cookie"] == f"{HERE}={TOKEN}; Path=/; HttpOnly; SameSite=Strict"


def test_so_many_requests_are_under_way_and_no_more() -> None:
    guard = Guard(behind, None)
    guard.under_way = MOST_REQUESTS
    status, headers, _ = ask(guard)
    assert (status, headers["retry-after"]) == (503, "1")
    guard.under_way = MOST_REQUESTS - 1
    assert ask(guard)[0] == 200
    assert guard.under_way == MOST_REQUESTS - 1


Make = Callable[[], Coroutine[Any, Any, bytes]]


async def never() -> bool:
    return False


def test_answers_are_made_once_and_kept_within_their_bytes() -> None:
    made: list[str] = []

    def maker(name: str) -> Make:
        async def make() -> bytes:
            await asyncio.sleep(0.01)
            made.append(name)
            return name.encode() * 10

        return make

    async def scenario() -> None:
        answers = Answers(25, timeout_s=9)
        both = await asyncio.gather(*(answers.get("a", maker("a"), never) for _ in range(50)))
        assert {*both} == {b"a" * 10}
        assert made == ["a"]
        await answers.get("b", maker("b"), never)
        await answers.get("a", maker("a"), never)  # wanted again, so b is what has not been wanted for longest
        await answers.get("c", maker("c"), never)
        assert ([*answers.kept], answers.bytes) == (["a", "c"], 20)
        await answers.get("long", maker("long"), never)
        assert [*answers.kept] == ["a", "c"], "what is larger than all of it is not kept"
        assert not answers.making
        assert not answers.waiting

    asyncio.run(scenario())


def test_nobody_waits_for_ever_and_nothing_is_made_for_nobody() -> None:
    ended: list[str] = []

    async def endless() -> bytes:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("cancelled")
        return b""

    async def fails() -> bytes:
        raise Refused("no")

    async def gone() -> bool:
        return True

    async def scenario() -> None:
        answers = Answers(100, timeout_s=0.05)
        with pytest.raises(Busy, match=r"more than 0\.05 s"):
            await answers.get("a", endless, never)
        answers.timeout_s = 60
        with pytest.raises(Gone):
            await answers.get("a", endless, gone)
        with pytest.raises(Refused):
            await answers.get("b", fails, never)
        await asyncio.sleep(0.01)
        assert ended == ["cancelled"] * 2
        assert not answers.making
        assert not answers.kept

    asyncio.run(scenario())


def test_what_waits_is_bounded() -> None:
    waiting = Waiting()
    with (
        pytest.raises(TooMuch, match=f"at most {MOST_PICTURES} of these pictures"),
        waiting.admit(MOST_PICTURES + 1, 1),
    ):
        pass
    with pytest.raises(TooMuch, match="at most 16 of these"), waiting.admit(17, 1 << 20):
        pass
    held = [waiting.admit(MOST_PICTURES, 1) for _ in range(MOST_WAITING_PICTURES // MOST_PICTURES)]
    for one in held:
        one.__enter__()
    with pytest.raises(Busy), waiting.admit(1, 1):
        pass
    held[0].__exit__(None, None, None)
    with waiting.admit(1, 1):
        pass
    large = [waiting.admit(16, 1 << 20) for _ in range(4)]
    with large[0], large[1], large[2], pytest.raises(Busy), large[3]:
        pass


def test_the_plane_has_a_seed_at_each_whole_number_and_no_end() -> None:
    assert Point(1005).corners() == ([1005, 1006, 2005, 2006], 0, 0)
    assert Point(999_999).corners()[0] == [999_999, 999_000, 999, 0]
    assert Point(0, dx=-1, dy=-2).seeds() == {998_999}
    assert Point(7, dx=0.25).seeds() == {7, 8}
    assert Point(7, dy=-0.25).seeds() == {999_007, 7}
    assert Point(7, dx=0.5, dy=0.5, mix=42).seeds() == {7, 8, 1007, 1008, 42}
    assert [p.corners()[0][0] for p in wall(Point(998), 3, 2, 1.0)] == [998, 999, 0, 1998, 1999, 1000]
    assert [(p.seed, p.mix, p.share) for p in film([3, 7], 2, False, ())] == [(3, 7, 0), (3, 7, 0.5), (7, None, 0)]
    assert [(p.seed, p.mix, p.share) for p in film([3, 7], 1, True, ())] == [(3, 7, 0), (7, 3, 0)]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (PictureQuery, {"seed": -1}),
        (PictureQuery, {"seed": 1_000_000}),
        (PictureQuery, {"dx": "nan"}),
        (PictureQuery, {"share": 1.1}),
        (PictureQuery, {"truncation": "inf"}),
        (PictureQuery, {"format": "svg"}),
        (PictureQuery, {"class": "x" * 301}),
        (PictureQuery, {"sed": 3}),
        (WallQuery, {"columns": 0}),
        (WallQuery, {"spacing": 0}),
        (FilmQuery, {"seeds": "/etc/hostname"}),
        (FilmQuery, {"steps": 0}),
    ],
)
def test_queries_that_make_no_sense_are_invalid(kind: type[PictureQuery], values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        kind.model_validate(values)


def test_queries_that_cannot_be_are_refused() -> None:
    for text in ("x", "0", "0:", "0:1e9", "-1:2", "0:nan"):
        with pytest.raises(Refused, match="move must be"):
            PictureQuery.model_validate({"move": (text,)}).points()
    assert PictureQuery.model_validate({"move": ("0:-1.5", "3:2")}).moves() == ((0, -1.5), (3, 2.0))
    for text in ("4", "4-", "1,1000000"):
        with pytest.raises(Refused, match="seeds"):
            FilmQuery.model_validate({"seeds": text}).points()
    assert len(FilmQuery.model_validate({"seeds": "0-99999"}).points()) > MOST_PICTURES
    assert len(WallQuery.model_validate({"columns": 256, "rows": 256}).points()) > MOST_PICTURES


class Numbers:
    """Stands in for a generator: the picture of a seed is one pixel."""

    class Batch:
        batch_size = 4

    sampler = Batch()

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def statistics_of(self, truncation: float | None) -> float | None:
        return truncation

    def check(self, style: Style, points: list[Point]) -> None:
        if points[0].seed == 13:
            raise Refused("no such picture")

    def generate(self, wanted: list[tuple[Style, Point]]) -> list[Any]:
        self.batches.append([point.seed for _, point in wanted])
        if 666 in self.batches[-1]:
            raise MemoryError("too large")
        return [np.full((1, 1, 1), point.seed % 256, np.uint8) for _, point in wanted]


def jobs_of(*seeds: list[int], truncation: float | None = None) -> list[Job]:
    return [Job(Style(truncation=truncation), [*map(Point, some)]) for some in seeds]


def work(*jobs: Job) -> Numbers:
    """Let a worker paint jobs that are all there when it begins."""
    numbers, all_there = Numbers(), threading.Event()

    def load() -> Any:
        all_there.wait(10)
        return numbers

    worker = Worker("test", load)
    for job in jobs:
        worker.submit(job)
    all_there.set()
    for job in jobs:
        if not job.answer.cancelled():
            job.answer.exception(timeout=10)
    worker.stop()
    worker.thread.join(10)
    assert not worker.thread.is_alive()
    with pytest.raises(Busy):
        worker.submit(Job(Style(), [Point(0)]))
    return numbers


def test_jobs_take_turns_and_share_batches() -> None:
    film, one, two = jobs_of([*range(10)], [100], [200, 201])
    numbers = work(film, one, two)
    # The film gives way after each of its batches, and fills what the others leave.
    assert numbers.batches == [[0, 1, 2, 3], [100, 200, 201, 4], [5, 6, 7, 8], [9]]
    assert film.answer.result()[:, 0, 0, 0].tolist() == [*range(10)]
    assert two.answer.result().shape == (2, 1, 1, 1)


def test_other_statistics_are_another_batch() -> None:
    plain, strict, more = (*jobs_of([1]), *jobs_of([2], truncation=0.5), *jobs_of([3]))
    assert work(plain, strict, more).batches == [[1, 3], [2]]


def test_nobody_suffers_from_what_others_ask() -> None:
    left, bad, good = jobs_of([1], [13], [3])
    left.answer.cancel()
    assert work(left, bad, good).batches == [[3]]
    assert isinstance(bad.answer.exception(), Refused)
    assert good.answer.result().item() == 3


def test_a_batch_that_fails_is_not_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    large, *others = jobs_of([0, 1, 2, 666, 4], [5])
    work(large, *others)
    assert isinstance(large.answer.exception(), MemoryError)
    assert others[0].answer.result().item() == 5
    assert "MemoryError: too large" in capsys.readouterr().err


def test_who_waits_for_a_generator_that_cannot_be_loaded_is_told() -> None:
    def load() -> Any:
        raise Refused("damaged")

    worker = Worker("test", load)
    worker.thread.join(10)
    with pytest.raises(Refused, match="damaged"):
        worker.served.result(1)


def test_other_machines_need_a_token(tmp_path: Path) -> None:
    assert choose_token(Serve(())) is None
    random = {choose_token(Serve((), host="0.0.0.0")) for _ in range(2)}
    assert len(random) == 2
    assert all(len(token or "") >= 32 for token in random)
    assert [is_loopback(host) for host in ("localhost", "127.0.0.9", "::1", "0.0.0.0", "::", "10.0.0.1", "a")] == [
        *(True,) * 3,
        *(False,) * 4,
    ]
    (tmp_path / "token").write_text(f"{TOKEN}\nmore\n")
    assert choose_token(Serve((), token_file=tmp_path / "token")) == TOKEN
    for bad in ("short", "", "with a space, and long enough", "ümlaut-and-long-enough"):
        (tmp_path / "token").write_text(bad)
        with pytest.raises(Refused, match="token"):
            choose_token(Serve((), token_file=tmp_path / "token"))
    with listening("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert link("127.0.0.1", listener, None) == f"http://127.0.0.1:{port}/"
        assert link("::1", listener, TOKEN) == f"http://[::1]:{port}/?token={TOKEN}"
        assert link("0.0.0.0", listener, None) == f"http://{socket.gethostname()}:{port}/"


def test_what_cannot_be_served_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--port", "0"]) == 2
    assert "there is no run to serve: name a run folder, or several" in capsys.readouterr().err
    with listening("127.0.0.1", 0) as listener:
        port = str(listener.getsockname()[1])
        (tmp_path / "empty").mkdir()
        for words, said in {
            ("nowhere",): "holds no run: there is no config.json in it",
            ("empty",): "holds no run",
            ("nowhere", "--port", port): "Address already in use; name another with --port, or 0 for a free one",
            ("nowhere", "--port", "70000"): "--port must be from 0 to 65,535",
            ("nowhere", "--host", "192.0.2.1"): "--host 192.0.2.1 --port 0 cannot be listened at",
            ("nowhere", "--timeout-s", "nan"): "--timeout-s must be positive",
            ("nowhere", "--token-file", "nowhere"): "cannot be read",
        }.items():
            folder, *more = words
            assert main(["serve", str(tmp_path / folder), "--port", "0", *more]) == 2  # the last --port counts
            assert said in capsys.readouterr().err, words


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", "nowhere"]) == 2
    assert "pip install lienzo[serve]" in capsys.readouterr().err

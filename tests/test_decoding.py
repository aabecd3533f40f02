"""Stored pictures: decoded into the micro-batch itself, exactly, without Python's lock, and into memory used again."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from shards.dataset.stream import ImageBuffers
from shards.images import encode
from shards.images.encode import ENCODINGS, Pixels

SIDE = 64


def picture(side: int = SIDE) -> Pixels:
    """Return smooth colours with some noise."""
    rng, place = np.random.default_rng(0), np.linspace(0, 200, side)
    smooth = np.stack([place[:, None] + 0 * place, place + 0 * place[:, None], 0 * place + place[:, None] / 2], 2)
    noisy: Pixels = (smooth + rng.integers(0, 40, smooth.shape)).astype(np.uint8)
    return noisy


@pytest.fixture(params=[True, False], ids=["libwebp", "Pillow"])
def with_libwebp(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what Pillow has loaded, and where that shows none."""
    assert encode.LIBWEBP is not None
    if not request.param:
        monkeypatch.setattr(encode, "LIBWEBP", None)


@pytest.mark.usefixtures("with_libwebp")
@pytest.mark.parametrize("name", ENCODINGS)
def test_a_picture_is_decoded_into_its_place_and_nowhere_else(name: str) -> None:
    batch = np.full((3, SIDE, SIDE, 3), 7, dtype=np.uint8)
    ENCODINGS[name].decode(ENCODINGS[name].encode(picture()), batch[1])
    assert (batch[[0, 2]] == 7).all()
    difference = np.abs(batch[1].astype(int) - picture())
    assert difference.max() == 0 if name != "jpg" else difference.mean() < 10


@pytest.mark.usefixtures("with_libwebp")
@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("side", [SIDE // 2, SIDE * 2])
def test_a_picture_of_another_size_is_refused(name: str, side: int) -> None:
    with pytest.raises((ValueError, OSError)):
        ENCODINGS[name].decode(ENCODINGS[name].encode(picture(side)), np.empty((SIDE, SIDE, 3), dtype=np.uint8))


@pytest.mark.usefixtures("with_libwebp")
@pytest.mark.parametrize("name", ENCODINGS)
def test_bytes_that_are_cut_off_or_foreign_are_refused(name: str) -> None:
    data, out = ENCODINGS[name].encode(picture()), np.empty((SIDE, SIDE, 3), dtype=np.uint8)
    for damaged in (data[: len(data) // 2], data[:10], b"", b"no picture" * 2000):
        with pytest.raises((ValueError, OSError)):
            ENCODINGS[name].decode(damaged, out)


@pytest.fixture
def counting() -> Iterator[list[int]]:
    """A thread that counts whenever it has Python's lock, which nobody gives away unasked."""
    counted, going, before = [0], True, sys.getswitchinterval()

    def count() -> None:
        while going:
            counted[0] += 1
            blocked.wait(1e-4)

    blocked = threading.Event()
    thread = threading.Thread(target=count)
    thread.start()
    sys.setswitchinterval(1000)
    yield counted
    sys.setswitchinterval(before)
    going = False
    thread.join()


@pytest.mark.usefixtures("with_libwebp")
@pytest.mark.parametrize("name", ["jpg", "webp"])
def test_other_threads_run_while_a_picture_is_decoded(name: str, counting: list[int]) -> None:
    data, out = ENCODINGS[name].encode(picture(512)), np.empty((512, 512, 3), dtype=np.uint8)
    before = counting[0]
    for _ in range(100):
        ENCODINGS[name].decode(data, out)
    assert counting[0] > before


def test_work_that_keeps_the_lock_is_seen(counting: list[int]) -> None:
    before = counting[0]
    for _ in range(100):
        sum(range(20_000))
    assert counting[0] == before


def address(images: Pixels) -> int:
    place: int = images.__array_interface__["data"][0]
    return place


def test_memory_is_used_again_when_nobody_has_it() -> None:
    buffers = ImageBuffers()
    first = buffers((2, 4, 4, 3))
    place = address(first)
    second = buffers((2, 4, 4, 3))
    assert address(second) != place
    del first
    assert address(buffers((2, 4, 4, 3))) == place


def test_memory_of_which_there_are_views_is_not_used_again() -> None:
    buffers = ImageBuffers()
    images = buffers((2, 4, 4, 3))
    place, tensor, part = address(images), torch.from_numpy(images)[1:], images[:1, ::2]
    del images
    gc.collect()
    assert address(buffers((2, 4, 4, 3))) != place
    tensor.fill_(3)
    part[:] = 5
    del tensor
    other = buffers((2, 4, 4, 3))
    assert address(other) != place
    assert (part == 5).all()
    del part
    assert place in {address(one) for one in [buffers((2, 4, 4, 3)) for _ in range(4)]}


def test_memory_of_another_size_is_given_up() -> None:
    buffers = ImageBuffers()
    kept = [buffers((2, 4, 4, 3)) for _ in range(3)]
    del kept
    assert len(buffers.free) == 3
    large = buffers((3, 4, 4, 3))
    assert large.shape == (3, 4, 4, 3)
    assert not buffers.free

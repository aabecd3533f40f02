"""Extractors that need no file: the same bits in any company, filters, the classifier of the data."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from trainer.core.fields import Refused
from trainer.evaluation.reference_conventions import CONVENTIONS
from trainer.extractors import DEFAULT, EXTRACTORS, Extractor, ExtractorOptions, LabelledImages
from trainer.extractors.base import exact_kernels
from trainer.extractors.classifier import PATIENCE_S
from trainer.extractors.resize import FILTERS, Images, resize_clean, tf_bilinear, torch_bilinear
from trainer.metrics import frechet_distance

COUNT = 150


def noise(count: int, size: int = 32, seed: int = 0) -> Images:
    """Return pictures of independent bytes."""
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def coloured(rows: npt.NDArray[np.int64]) -> tuple[Images, npt.NDArray[np.int64]]:
    """Return dark noise that is brighter in one channel, which is the class: a function of each number alone."""
    images = np.stack([noise(1, 32, int(row))[0] // 2 for row in rows])
    labels = rows % 3
    images[np.arange(len(rows)), 8:24, 8:24, labels] += 100
    return images, labels


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the classifier that the tests share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def data() -> LabelledImages:
    """Pictures of three classes."""
    return LabelledImages("the colours", ("colours", "1"), ("red", "green", "blue"), COUNT, coloured)


@pytest.fixture(scope="module")
def classifier(cache: Path, data: LabelledImages) -> Extractor:
    """The classifier that has learnt them."""
    return EXTRACTORS["classifier"](ExtractorOptions(data=data, cache=cache))


@pytest.fixture(scope="module")
def random_vgg() -> Extractor:
    """Random VGG."""
    return EXTRACTORS[DEFAULT]()


@pytest.mark.parametrize("name", ["random_vgg", "classifier"])
@pytest.mark.parametrize("size", [32, 64])
def test_features_do_not_depend_on_the_pictures_beside(name: str, size: int, request: pytest.FixtureRequest) -> None:
    """To the bit: alone, in batches cut elsewhere, in another order."""
    extractor: Extractor = request.getfixturevalue(name)
    images = noise(37, size)
    whole = extractor(images).features
    assert whole.shape == (37, extractor.dim)
    assert whole.dtype == np.float32
    cut = [extractor(part).features for part in np.split(images, [1, 6, 20])]
    assert np.array_equal(np.concatenate(cut), whole)
    assert np.array_equal(extractor(images[::-1]).features[::-1], whole)
    assert len(np.unique(whole, axis=0)) == 37


def test_random_vgg_is_one_network(random_vgg: Extractor) -> None:
    """Everywhere and for ever: its label says so, and a changed draw or layer would change it."""
    before = torch.get_rng_state()
    assert EXTRACTORS["random-vgg"]().label == random_vgg.label == "random-vgg-5c33cd77/clean-64/uint8"
    assert torch.equal(torch.get_rng_state(), before), "no global generator is touched"
    assert (random_vgg.dim, random_vgg.classes) == (64, 0)
    assert random_vgg(noise(2)).probabilities is None
    assert not random_vgg.network.training
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in random_vgg.network.parameters())


def test_random_features_keep_their_scale(random_vgg: Extractor) -> None:
    """He's weights: whatever the depth, squares of features are on average about twice those of what comes in."""
    images = noise(64, 64)
    squares = np.square(random_vgg(images).features).mean() / np.square(images / 127.5 - 1).mean()
    assert 0.5 < squares < 8


def test_random_vgg_tells_distortions_apart(random_vgg: Extractor) -> None:
    """The more noise on pictures, the farther they are from what they were."""
    real = noise(128, 4).repeat(8, 1).repeat(8, 2)
    seen = random_vgg(real).features
    distances = []
    for amplitude in (0, 16, 64):
        moved = real + np.random.default_rng(1).integers(-amplitude, amplitude + 1, real.shape)
        distances.append(frechet_distance(seen, random_vgg(moved.clip(0, 255).astype(np.uint8)).features))
    assert distances[0] * 2 < distances[1]
    assert distances[1] * 2 < distances[2]


def test_whatever_is_set_around_changes_nothing(random_vgg: Extractor) -> None:
    images = noise(3)
    with torch.autocast("cpu", torch.bfloat16):
        inside = random_vgg(images).features
    assert np.array_equal(inside, random_vgg(images).features)


def test_matrices_are_multiplied_in_float32_too() -> None:
    """TF32 would round inputs to 10 bits; what was set before comes back, whatever happens."""
    matmul = torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, True
    try:
        with suppress(ZeroDivisionError), exact_kernels(torch.device("cpu")):
            assert not matmul.allow_tf32
            raise ZeroDivisionError
        assert matmul.allow_tf32
    finally:
        matmul.allow_tf32 = before


def test_a_filter_is_chosen_by_its_name() -> None:
    extractor = EXTRACTORS["random-vgg"](ExtractorOptions(resize="tf-bilinear"))
    assert "/tf-bilinear-64/" in extractor.label
    assert not np.array_equal(extractor(noise(1)).features, EXTRACTORS["random-vgg"]()(noise(1)).features)
    with pytest.raises(Refused, match="no filter 'tf-bilinar'; did you mean 'tf-bilinear'"):
        EXTRACTORS["random-vgg"](ExtractorOptions(resize="tf-bilinar"))


def test_conventions_name_what_there_is() -> None:
    for convention in CONVENTIONS.values():
        assert convention.extractor in EXTRACTORS
        assert convention.resize in FILTERS


def along(line: npt.NDArray[np.float64], at: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Interpolate a line at places between 0 and its last one."""
    return np.interp(at, np.arange(len(line)), line)


@pytest.mark.parametrize("name", ["tf-bilinear", "torch-bilinear"])
@settings(max_examples=15)
@given(height=st.integers(2, 40), width=st.integers(2, 40), size=st.integers(2, 70), seed=st.integers(0, 99))
def test_bilinear_filters_interpolate_at_their_places(name: str, height: int, width: int, size: int, seed: int) -> None:
    """TensorFlow 1 at i h / size; torch between centres, at (i + ½) h / size - ½; both hold on to the border."""
    picture = np.random.default_rng(seed).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    half = 0.5 if name == "torch-bilinear" else 0
    rows, columns = (((np.arange(size) + half) * n / size - half).clip(0, n - 1) for n in (height, width))
    expected = np.apply_along_axis(along, 1, picture.astype(np.float64), rows)
    expected = np.apply_along_axis(along, 2, expected, columns).transpose(0, 3, 1, 2)
    found = FILTERS[name](picture, size)
    assert found.dtype == torch.float32
    assert np.allclose(found.numpy(), expected, atol=0.02)  # places are rounded to float32


def test_filters_differ() -> None:
    """By more than rounding: the same pictures, other features."""
    found = [FILTERS[name](noise(1), 64) for name in FILTERS]
    assert min(float((a - b).abs().mean()) for i, a in enumerate(found) for b in found[:i]) > 5


def test_clean_is_pillows_bicubic_without_bytes_between() -> None:
    """Each plane by itself, in float32; what overshoots is cut off, as in clean-fid, and nothing is rounded."""
    images = np.where(noise(2, 48) < 128, 0, 255).astype(np.uint8)
    found = resize_clean(images, 20).numpy()
    for picture, planes in zip(images, found, strict=True):
        for channel in range(3):
            plane = Image.fromarray(picture[:, :, channel].astype(np.float32))
            expected = np.asarray(plane.resize((20, 20), Image.Resampling.BICUBIC))
            assert np.array_equal(planes[channel], expected.clip(0, 255))
    assert np.any(found % 1 != 0)
    assert resize_clean(images, 100).max() == 255, "an overshoot is cut off"


def test_the_right_size_stays_as_it_is() -> None:
    images = noise(2)
    for filtered in (resize_clean(images, 32), tf_bilinear(images, 32), torch_bilinear(images, 32)):
        assert np.array_equal(filtered.permute(0, 2, 3, 1).numpy(), images)


def test_a_classifier_learns_the_classes(classifier: Extractor) -> None:
    images, labels = coloured(np.arange(COUNT, COUNT + 60))  # of which it has seen none
    seen = classifier(images)
    assert seen.probabilities is not None
    assert seen.probabilities.shape == (60, 3) == (60, classifier.classes)
    assert seen.probabilities.sum(1) == pytest.approx(1, abs=1e-5)
    assert np.mean(seen.probabilities.argmax(1) == labels) > 0.9
    assert classifier.note == "names 100.0% of 15 unseen pictures rightly"
    assert classifier.label.startswith(f"classifier-{classifier.version}/clean-32/")


def test_a_classifier_is_learnt_once(classifier: Extractor, cache: Path, data: LabelledImages) -> None:
    """A damaged one is learnt again, to the same bits; one of other data is another."""
    (path,) = (cache / "classifiers").iterdir()
    raw = path.read_bytes()

    def refuse(rows: npt.NDArray[np.int64]) -> tuple[Images, npt.NDArray[np.int64]]:
        raise AssertionError("no picture is read")

    again = EXTRACTORS["classifier"](ExtractorOptions(data=replace(data, read=refuse), cache=cache))
    assert (again.label, again.note) == (classifier.label, classifier.note)
    path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    before = torch.get_rng_state()
    again = EXTRACTORS["classifier"](ExtractorOptions(data=data, cache=cache))
    assert again.label == classifier.label
    assert path.read_bytes() == raw
    assert torch.equal(torch.get_rng_state(), before), "no global generator is touched"
    with pytest.raises(AssertionError):
        EXTRACTORS["classifier"](ExtractorOptions(data=replace(data, key=("colours", "2"), read=refuse), cache=cache))


def test_others_wait_while_one_learns(data: LabelledImages, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As long as that one lives: its signs, which stand still between the first two looks here, put off the end."""
    few, now, looks = replace(data, count=20), [0.0], [0]

    def sleep(seconds: float) -> None:
        now[0] += 0.9 * PATIENCE_S
        looks[0] += 1
        if looks[0] == 3:
            EXTRACTORS["classifier"](ExtractorOptions(data=few, cache=tmp_path))
        else:
            (tmp_path / "classifiers").mkdir(exist_ok=True)
            sign.touch()
            os.utime(sign, (looks[0], looks[0]))

    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=sleep)
    monkeypatch.setattr("trainer.extractors.classifier.time", clock)
    EXTRACTORS["classifier"](ExtractorOptions(data=few, cache=tmp_path / "here"))
    (path,) = (tmp_path / "here" / "classifiers").iterdir()
    sign = tmp_path / "classifiers" / path.with_suffix(".learning").name

    def refuse(rows: npt.NDArray[np.int64]) -> tuple[Images, npt.NDArray[np.int64]]:
        raise AssertionError("it learns as well")

    waiting = ExtractorOptions(data=replace(few, read=refuse), cache=tmp_path, missing="wait")
    assert EXTRACTORS["classifier"](waiting).note
    assert looks == [3]


def test_who_waits_for_the_dead_learns_itself(
    data: LabelledImages, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda seconds: now.append(now.pop() + PATIENCE_S))
    monkeypatch.setattr("trainer.extractors.classifier.time", clock)
    made = EXTRACTORS["classifier"](ExtractorOptions(data=replace(data, count=20), cache=tmp_path, missing="wait"))
    assert made.note
    assert [path.suffix for path in (tmp_path / "classifiers").iterdir()] == [".part"], "no sign of life is left"


def test_it_shows_that_it_learns(data: LabelledImages, tmp_path: Path) -> None:
    signs: set[int] = set()

    def read(rows: npt.NDArray[np.int64]) -> tuple[Images, npt.NDArray[np.int64]]:
        (sign,) = (tmp_path / "classifiers").iterdir()
        signs.add(sign.stat().st_mtime_ns)
        return coloured(rows)

    EXTRACTORS["classifier"](ExtractorOptions(data=replace(data, count=20, read=read), cache=tmp_path))
    assert len(signs) > 1


def test_a_classifier_can_be_left_for_later(data: LabelledImages, tmp_path: Path) -> None:
    """Its classes are known; nothing is learnt, and nothing written."""
    made = EXTRACTORS["classifier"](ExtractorOptions(data=data, cache=tmp_path / "cache", missing="leave"))
    assert (made.classes, made.note) == (3, "")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("classes", "count", "message"),
    [
        ((), COUNT, "the colours has none: .*random-vgg needs none"),
        (("red",), COUNT, "the colours has 1: .*random-vgg needs none"),
        (("red", "blue"), 10, "the colours has only 10 pictures"),
    ],
)
def test_a_classifier_needs_classes(
    data: LabelledImages, tmp_path: Path, classes: tuple[str, ...], count: int, message: str
) -> None:
    with pytest.raises(Refused, match=message):
        EXTRACTORS["classifier"](ExtractorOptions(data=replace(data, classes=classes, count=count), cache=tmp_path))


def test_a_classifier_needs_data_and_a_place(data: LabelledImages, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="there is no labelled data"):
        EXTRACTORS["classifier"]()
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match=r"cannot be kept in .*; name a --cache"):
        EXTRACTORS["classifier"](ExtractorOptions(data=replace(data, count=20), cache=tmp_path / "file"))
    assert EXTRACTORS["classifier"](ExtractorOptions(data=replace(data, count=20), cache=tmp_path / "another"))

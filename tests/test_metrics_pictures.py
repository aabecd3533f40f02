"""Metrics of pictures themselves: MS-SSIM and the sliced Wasserstein distance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from trainer.core.randomness import philox
from trainer.metrics import METRICS, ms_ssim, sliced_wasserstein
from trainer.metrics.base import Float64Array, Sample
from trainer.metrics.ms_ssim import C1, C2, pair_similarities, scales_of_side
from trainer.metrics.sliced_wasserstein import PATCHES, SlicedWasserstein, all_patches, distances, moments, project

Pictures = npt.NDArray[np.uint8]


def noise(name: str, n: int, size: int, least: int = 0, most: int = 256) -> Pictures:
    """Draw (n, size, size, 3) bytes."""
    return philox("test pictures", name).integers(least, most, (n, size, size, 3), dtype=np.uint8)


def window_by_window(x: Float64Array, y: Float64Array) -> tuple[float, float]:
    """Return the mean SSIM of one channel, (h, w), and that of its contrast and structure, by the formula."""
    bell = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    weights, found = np.outer(bell, bell) / bell.sum() ** 2, []
    for row, column in np.ndindex(x.shape[0] - 10, x.shape[1] - 10):
        a, b = (side[row : row + 11, column : column + 11] for side in (x, y))
        u, v = (weights * a).sum(), (weights * b).sum()
        variances = (weights * (a - u) ** 2).sum() + (weights * (b - v) ** 2).sum()
        structure = (2 * (weights * (a - u) * (b - v)).sum() + C2) / (variances + C2)
        found.append(((2 * u * v + C1) / (u * u + v * v + C1) * structure, structure))
    whole, structure = np.mean(found, axis=0)
    return max(0.0, float(whole)), max(0.0, float(structure))


def test_similarity_is_that_of_the_formula() -> None:
    """On one scale of 12 × 12 pixels, and on two of 23 and 11; within 1e-12."""
    x, y = noise("x", 1, 23, 0, 100), noise("y", 1, 23, 0, 100)
    y = x // 2 + y // 2 + 60
    one, two = [], []
    for a, b in zip(x[0].T.astype(float), y[0].T.astype(float), strict=True):
        one.append(window_by_window(a[:12, :12], b[:12, :12])[0])
        small = (side[:22, :22].reshape(11, 2, 11, 2).mean((1, 3)) for side in (a, b))
        total = 0.0448 + 0.2856
        two.append(window_by_window(a, b)[1] ** (0.0448 / total) * window_by_window(*small)[0] ** (0.2856 / total))
    assert ms_ssim.ms_ssim(x[:, :12, :12], y[:, :12, :12])[0] == pytest.approx(np.mean(one), abs=1e-12)
    assert ms_ssim.ms_ssim(x, y)[0] == pytest.approx(np.mean(two), abs=1e-12)
    assert 0.2 < np.mean(two) < 0.9


@pytest.mark.parametrize(("size", "weight"), [(16, 1.0), (32, 0.2856 / 0.3304), (64, 0.3001 / 0.6305), (176, 0.1333)])
def test_similarity_of_plain_pictures(size: int, weight: float) -> None:
    """Only the luminance differs, and it counts on the last scale alone; all 5 weights have the sum 1."""
    x, y = (np.full((1, size, size, 3), value, np.uint8) for value in (100, 150))
    luminance = (2 * 100 * 150 + C1) / (100**2 + 150**2 + C1)
    assert ms_ssim.ms_ssim(x, y)[0] == pytest.approx(luminance ** (weight / (1.0001 if size == 176 else 1)), abs=1e-12)


def test_scales_are_those_on_which_a_window_has_room() -> None:
    assert [scales_of_side(side) for side in (11, 21, 22, 64, 175, 176, 1024)] == [1, 1, 2, 3, 4, 5, 5]


def test_similarity_is_the_same_in_any_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bits; equal pictures have 1, and a negative has 0."""
    x, y = noise("x", 7, 33), noise("y", 7, 33)
    together = ms_ssim.ms_ssim(x, y)
    monkeypatch.setattr(ms_ssim, "VALUES_PER_PIECE", 1)
    np.testing.assert_array_equal(ms_ssim.ms_ssim(x, y), together)
    assert ms_ssim.ms_ssim(x, x) == pytest.approx(1, abs=1e-12)
    assert not ms_ssim.ms_ssim(x, 255 - x).any()
    with pytest.raises(ValueError, match="11 pixels or more"):
        ms_ssim.ms_ssim(x[:, :10], y[:, :10])


def test_every_picture_is_in_one_pair() -> None:
    """Of two kinds that have no likeness, 2 + 2: either both pairs are alike, or neither is."""
    plain = noise("plain", 1, 16)
    both = np.concatenate([plain, plain, 255 - plain, 255 - plain])
    seen = {tuple(np.round(pair_similarities(both, key), 9)) for key in range(40)}
    assert seen == {(1.0, 1.0), (0.0, 0.0)}


def test_collapsed_pictures_are_more_alike_than_the_data() -> None:
    real, fake = noise("real", 40, 32), np.repeat(noise("one", 1, 32), 40, axis=0) // 2 + noise("a bit", 40, 32, 0, 20)
    labels = np.arange(40) % 2
    for name in ("ms_ssim", "intra_ms_ssim"):
        of_real, of_fake = (METRICS[name](Sample(), Sample(None, None, x, labels))[name] for x in (real, fake))
        assert METRICS[name].better_of(name) == "data"
        assert of_fake.low > 0.9 > 0.2 > of_real.high


def test_pictures_of_no_class_are_not_a_class() -> None:
    images, labels = noise("labelled", 24, 16), np.repeat([0, 1, -1], 8)
    images[16:] = 7
    both, known = (
        METRICS["intra_ms_ssim"](Sample(), Sample(None, None, images[:n], labels[:n]))["intra_ms_ssim"]
        for n in (24, 16)
    )
    assert both.value == known.value
    assert both.method == known.method


@pytest.mark.parametrize(("size", "sides"), [(16, [16]), (33, [33]), (50, [50, 25]), (96, [96, 48, 24, 12])])
def test_the_pyramid_ends_at_16_pixels_or_at_an_odd_side(size: int, sides: list[int]) -> None:
    x, y = noise("x", 6, size), noise("y", 6, size, 0, 200)
    assert [level.shape[-1] for level in sliced_wasserstein.laplacian_pyramid(x)] == sides
    assert SlicedWasserstein(x)(x) == 0 < SlicedWasserstein(x)(y)


def test_equal_pictures_have_no_sliced_wasserstein_distance() -> None:
    """In whatever pieces they are read, with the same bits."""
    x, y = noise("x", 12, 32), noise("y", 12, 32, 0, 200)
    distance = SlicedWasserstein(x)
    assert distance(x) == 0 < distance(y)
    assert distances(x, y, 3)[0] == pytest.approx(distance(y), rel=1e-5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sliced_wasserstein, "VALUES_PER_PIECE", 1)
        assert SlicedWasserstein(x)(y) == distance(y)


def test_a_block_left_out_is_as_if_its_patches_had_never_been() -> None:
    """Sorted anew without them, within float32."""
    x, y = noise("x", 12, 16), noise("y", 12, 16, 0, 200)
    (reals,), (fakes,) = all_patches(x), all_patches(y)
    mean, std = moments(reals)
    for i, found in enumerate(distances(x, y, 3)[1:]):
        kept = torch.ones(12, dtype=torch.bool)
        kept[4 * i : 4 * i + 4] = False
        kept = kept.repeat_interleave(PATCHES)
        a, b = (project((patches[kept] - mean) / std, 0)[0] for patches in (reals, fakes))
        assert found == pytest.approx(1000 * (a - b).abs().mean().item(), rel=1e-5)


def test_the_interval_of_the_sliced_wasserstein_distance_is_as_wide_as_its_spread() -> None:
    """Of 24 evaluations: the mean half-width is 1 to 2 times that of a perfect interval."""
    found = []
    for i in range(24):
        real, fake = (noise(f"{side}{i}", 24, 16) // 2 + noise(f"{side}{i} tone", 24, 1, 0, 128) for side in "xy")
        found.append(METRICS["swd"](Sample(images=real), Sample(images=fake))["swd"])
    half = np.mean([e.high - e.low for e in found]) / 2
    assert 1 < half / (1.96 * np.std([e.value for e in found], ddof=1)) < 2

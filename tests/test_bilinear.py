"""The gradient of bilinear sampling as sums of integers: that of grid_sample, and the same bits in any order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.augment import bilinear
from trainer.augment.bilinear import any_order, sample_in_any_order, spread, unit_of
from trainer.augment.geometry import warp_images
from trainer.core.randomness import philox

N, SIDES, POINTS = 2, (9, 8), (7, 5)


def made(*shape: int, scale: float = 1.0) -> Tensor:
    return scale * torch.from_numpy(philox("bilinear", *shape).uniform(-1, 1, shape))


def grid(n: int = N) -> Tensor:
    points = made(n, *POINTS, 2)
    points[0, 0, :3] = torch.tensor([[-1, -1], [1, 1], [1, -1]])  # corners, where a pixel has no neighbour
    return points


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_grid_sample_with_its_gradient(dtype: torch.dtype) -> None:
    x, points, weights = made(N, 3, *SIDES).to(dtype).requires_grad_(), grid().to(dtype), made(N, 3, *POINTS).to(dtype)
    ours, theirs = sample_in_any_order(x, points), F.grid_sample(x, points, align_corners=True)
    assert torch.equal(ours, theirs)
    (a,), (b,) = (torch.autograd.grad(y, x, weights) for y in (ours, theirs))
    assert a.dtype == dtype
    assert torch.allclose(a, b, atol=1e-6 if dtype == torch.float32 else 1e-13)


def test_its_gradients_and_their_gradients_are_the_finite_differences() -> None:
    x, points = made(N, 3, *SIDES).requires_grad_(), grid()
    assert gradcheck(lambda x: sample_in_any_order(x, points), x, fast_mode=True)
    assert gradgradcheck(lambda x: sample_in_any_order(x, points) ** 2, x, fast_mode=True)


def test_the_order_of_the_points_changes_no_bit() -> None:
    """As the order of a GPU's threads does; a sum of the same terms in float32 does depend on it."""
    y = made(N, 3, 60, 60, scale=1e-5).float()
    y[:, :, 0, 0] = 300.0
    points = (made(N, 60, 60, 2) / 8).float()  # many of them for each pixel
    order = torch.from_numpy(philox("order").permutation(3600))

    def shuffled(t: Tensor, first: int) -> Tensor:
        moved: Tensor = t.flatten(first, first + 1).index_select(first, order).unflatten(first, (60, 60))
        return moved

    assert torch.equal(spread(y, points, (16, 16)), spread(shuffled(y, 2), shuffled(points, 1), (16, 16)))
    cells = (points.add(1).mul(7.5).floor() @ torch.tensor([1.0, 16.0])).long().flatten(1)[:, None].expand(-1, 3, -1)
    plain, other = (
        torch.zeros(N, 3, 256).scatter_add_(2, index, terms.flatten(2))
        for index, terms in ((cells, y), (cells.index_select(2, order), shuffled(y, 2)))
    )
    assert not torch.equal(plain, other)


@pytest.mark.parametrize("scale", [1e-250, 1e-38, 1.0, 1e30])
def test_the_stated_error_and_no_overflow(scale: float) -> None:
    """All points of a picture on one pixel, all values the largest, of any size."""
    y, points = torch.full((1, 1, 64, 64), scale, dtype=torch.float64), torch.zeros(1, 64, 64, 2).double()
    total = spread(y, points, (5, 5))
    assert total[0, 0, 2, 2] == pytest.approx(4096 * scale, rel=1e-15)
    assert total.count_nonzero() == 1
    assert 4096 * scale < 2**62 * unit_of(y).item() <= 8 * 4096 * scale * 1.0000001


def test_what_is_not_finite_stays_so_in_its_own_picture() -> None:
    for odd in (torch.inf, torch.nan):
        y = made(N, 3, *POINTS)
        y[1, 0, 0, 0] = odd
        total = spread(y, grid(), SIDES)
        assert total[0].isfinite().all()
        assert total[1].isnan().any()
    assert not spread(torch.zeros(N, 3, *POINTS), grid().float(), SIDES).any()


class Operators(TorchDispatchMode):
    """Lists operators, with the types of what they write and whether they may add in any order."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's is not
        self.seen: list[tuple[str, torch.dtype, bool]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.seen.append((func.name(), out.dtype, not torch.are_deterministic_algorithms_enabled()))
        return out


@pytest.mark.usefixtures("deterministic")
def test_a_gpu_adds_integers_only_and_does_not_sort(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forwards, backwards, and backwards again as R1 does."""
    assert bilinear.wants_integers(torch.device("cuda", 1))
    assert not bilinear.wants_integers(torch.device("cpu"))
    monkeypatch.setattr(bilinear, "wants_integers", lambda device: True)
    x = made(2, 3, 8, 8).requires_grad_()
    with Operators() as operators:
        y = warp_images(x, made(2, 3, 3))
        (slope,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        slope.square().sum().backward()
    adding = [
        one for one in operators.seen if any(word in one[0] for word in ("scatter", "index_", "grid_sampler", "put"))
    ]
    names = {name.split(".")[0] for name, _, _ in adding}
    assert names == {"aten::grid_sampler_2d", "aten::scatter_add_"}
    scattered = {one for one in adding if "scatter" in one[0]}
    assert scattered == {("aten::scatter_add_", torch.int64, True)}  # else torch would sort
    assert torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("warn_only", [False, True])
def test_the_choice_of_algorithms_comes_back(warn_only: bool) -> None:
    torch.use_deterministic_algorithms(True, warn_only=warn_only)
    with any_order():
        assert not torch.are_deterministic_algorithms_enabled()
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled() == warn_only
    torch.use_deterministic_algorithms(False)

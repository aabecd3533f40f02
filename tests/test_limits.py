"""Every setting of a run, with values that make no sense: refused by its name, or declared here to be free."""

from __future__ import annotations

import math
import typing
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest

from trainer.config.config import Config
from trainer.core.fields import Refused
from trainer.core.limits import Limits

ABSURD: dict[type, tuple[Any, ...]] = {
    int: (-1, 0, 10**30),
    float: (-1.0, 0.0, math.nan, math.inf, -math.inf, 1e300),
    str: ("", " ", "no such", "two\nlines"),
}

# What each absurd value is good for: 0 that switches something off, or is one of the draws; texts that name nothing of
# ours, or of what is switched off by default; and factors of any size, for their product with the rest may be sensible.
FREE: dict[str, set[str]] = {
    "0": {
        *("seed", "order_window", "network.classes", "network.attention", "network.mbstd_group", "network.width"),
        "workers",
        *("optimizer.warmup_images", "optimizer.decay_images", "collapse.every_images", "max_rollbacks"),
        *("checkpoint.keep_every_images", "metrics.every_images", "sample_every_images", "trace_steps", "trace_rank"),
        "augment.blur_images",
    },
    "0.0": {"network.style_mixing", "penalties", "augment.p", "augment.target", "optimizer.beta1", "optimizer.beta2"}
    | {
        "optimizer.ema_ramp",
        "optimizer.ema_half_life_images",
        "augment.colour_share",
        "augment.blur_sigma",
        "cache_gb",
    },
    "-1.0": {"augment.target"},
    "1e+300": {"penalties", "optimizer.g_lr", "optimizer.d_lr", "optimizer.eps", "optimizer.ema_half_life_images"}
    | {"optimizer.ema_ramp", "stall_after_s"},
    "''": {"init_hash", "network.features_hash", "network.label_columns", "network.label_kinds"},
    "' '": {"init_hash", "network.features_hash"},
    r"'two\nlines'": {"init_hash", "network.features_hash"},
    "'no such'": {"recipe", "augment.policy", "augment.pipe", "init_hash", "network.features_hash", "metrics.keep_best"}
    | {"tracking.project", "tracking.entity", "tracking.name", "tracking.group"}
    | {"tracking.tags", "tracking.notes", "tracking.job_type"},
}


def walk(settings: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], tuple[Any, ...], Any]]:
    """Yield each setting's place, its types, and its field."""
    for f in fields(settings):
        value, hint = getattr(settings, f.name), typing.get_type_hints(type(settings))[f.name]
        if is_dataclass(value):
            yield from walk(value, (*path, f.name))
        else:
            yield (*path, f.name), (hint, *typing.get_args(hint)), f


def changed(settings: Any, path: tuple[str, ...], value: Any) -> Any:
    first, *rest = path
    return replace(settings, **{first: changed(getattr(settings, first), tuple(rest), value) if rest else value})


CASES = [
    (".".join(path), path, value)
    for path, hints, _ in walk(Config())
    for value in next((ABSURD[hint] for hint in hints if hint in ABSURD), ())
]


@pytest.mark.parametrize(("name", "path", "value"), CASES, ids=str)
def test_an_absurd_value_is_refused_by_name(name: str, path: tuple[str, ...], value: Any) -> None:
    free = FREE.get(repr(value), set())
    problem = refusal(changed(Config(), path, value))
    if name not in free and path[0] not in free:
        assert problem is not None
        assert name in problem or (name == "augment.kind" and "augmentation" in problem)
    elif name in free:
        assert problem is None


def refusal(config: Config) -> str | None:
    try:
        config.check()
    except Refused as refused:
        return str(refused)
    return None


def test_every_number_declares_its_limits() -> None:
    for path, hints, field in walk(Config()):
        if {int, float} & {*hints}:
            assert isinstance(field.metadata.get("limits"), Limits), path


@pytest.mark.parametrize(
    ("limits", "value", "words"),
    [
        ("[0, 1)", 1.0, "must be in [0, 1)"),
        ("(0, inf)", 0.0, "must be positive"),
        ("[0, inf)", -1, "must not be negative"),
        ("[0, inf)", 2**53, "must be below 9,007,199,254,740,992"),
        ("[2, inf)", 1, "must be at least 2"),
        ("[1, inf)", math.nan, "must be a finite number"),
    ],
)
def test_limits_are_said_in_words(limits: str, value: float, words: str) -> None:
    assert not Limits(limits).hold(value)
    assert Limits(limits).words(value) == words

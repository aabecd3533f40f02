"""What STUDY.toml may say, and what is said to whoever writes something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from launcher.study.settings import Halving
from launcher.study.settings_file import parse_study, read_settings
from tests.conftest import HOME
from tests.studies import TOML
from trainer.core.fields import Refused


def asked(**changes: Any) -> Any:
    return parse_study(TOML | changes, "study.toml", "name")


def test_a_file_is_read_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "colours.toml"
    path.write_text(
        'data = "shards"\nseeds = [3, 5]\nat_once = 4\n[budget]\nflops = 1e15\n[halving]\nrungs = 3\n'
        '[evaluation]\nmetric = "recall"\nmetrics = ["prdc"]\n[settings]\nbatch-size = 32\n'
        '[arms.hinge]\nrecipe = "dcgan-32"\nsettings.objective = "hinge"\nsettings.optimizer.d-lr = 3e-4\n'
    )
    study = read_settings(path)
    assert (study.name, study.seeds, study.at_once, study.nodes) == ("colours", (3, 5), 4, "1")
    assert (study.budget.kind, study.budget.amount) == ("flops", 1e15)
    assert study.settings == {"batch_size": 32}
    assert study.arms["hinge"].settings == {"objective": "hinge", "optimizer": {"d_lr": 3e-4}}
    assert study.halving == Halving(rungs=3)
    assert study.shares == (0.125, 0.25, 0.5)
    assert study.select_seeds == (1_000,)
    assert study.better == "higher"


def test_the_example_can_be_read() -> None:
    study = read_settings(HOME / "examples" / "study.toml")
    assert len(study.arms) == 3
    assert study.better == "lower"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seds": 3}, "there is no setting 'seds'; did you mean 'seeds'"),
        ({"seeds": 0}, "seeds must be how many"),
        ({"seeds": [1, 1]}, "without doubles"),
        ({"seeds": True}, "seeds must be how many"),
        ({"budget": {}}, "exactly one of images, seconds and flops"),
        ({"budget": {"images": 10, "seconds": 3}}, "exactly one of images, seconds and flops"),
        ({"budget": {"images": -1}}, "above 0"),
        ({"budget": {"imags": 1}}, "did you mean 'images'"),
        ({"budget": {"images": 1.5}}, "budget: images must be a whole number"),
        ({"arms": {}}, "nothing to compare"),
        ({"arms": {"../a": {"recipe": "dcgan-32"}}}, "names files"),
        ({"arms": {"a": {}}}, "arms.a: recipe is missing"),
        ({"arms": {"a": {"recipe": "dcgan-32", "settings": {"seed": 3}}}}, "seed is not an arm's to set"),
        ({"settings": {"total-images": 3}}, r"total-images is not an arm's to set: \[budget\] decides"),
        ({"evaluation": {"metrics": "fid"}}, "metrics must be a list of names"),
        ({"halving": {"keep": 1.0}}, "halving needs"),
        ({"halving": {}, "seeds": [999, 1_000]}, "seed 1000 is one of those that decide"),
        ({"at_once": 0}, "at_once must be positive"),
        ({"evaluation": {"num_samples": 1}}, "num_samples must be at least 2"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said):
        asked(**changes)


@pytest.mark.parametrize(
    "evaluation", [{"metric": "recall", "metrics": ["fid"]}, {"metric": "ms_ssim", "metrics": ["ms_ssim"]}]
)
def test_what_decides_must_be_measured_and_have_a_better_side(evaluation: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="cannot decide: take one of the figures"):
        _ = asked(evaluation=evaluation).better

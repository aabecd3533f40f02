"""What another batch does to rates, penalties and moving average: the published values, and where they are applied."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.__main__ import main
from launcher.doctor.memory import Fits, judge_layouts
from launcher.study.prepare import load_arm
from launcher.study.settings_file import parse_study
from tests.fake_slurm import FakeSlurm, fake_slurm
from trainer.commands.train import Train, read_train
from trainer.config.batch_rules import stylegan2_auto_batch
from trainer.config.batch_scaling import GPUS, find_scaling, layouts
from trainer.config.config import Config
from trainer.config.recipes import RECIPES, recipe_config, scale, scaling_of
from trainer.core.fields import Refused

__all__ = ["fake_slurm"]

SMALL = ("--network.size", "32", "--network.g-channels", "8", "--network.d-channels", "8", "--network.z-dim", "16")


def sized(name: str, batch: int, size: int | None = None) -> Config:
    """Return a recipe with another batch, and perhaps pictures of another size."""
    config = recipe_config(name)
    return replace(config, batch_size=batch, network=replace(config.network, size=size or config.network.size))


def figures(config: Config) -> tuple[int, float, float, float, float]:
    """Return batch, gamma, half-life and both rates."""
    adam = config.optimizer
    return config.batch_size, config.penalties.r1.weight, adam.ema_half_life_images, adam.g_lr, adam.d_lr


@pytest.mark.parametrize(
    ("size", "gpus", "batch", "gamma", "half_life", "rate"),
    [  # what train.py of NVlabs/stylegan2-ada-pytorch prints for --cfg=auto: batch, r1_gamma, ema_kimg, lr
        (256, 1, 16, 0.8192, 5_000, 0.0025),
        (256, 2, 32, 0.4096, 10_000, 0.0025),
        (256, 4, 64, 0.2048, 20_000, 0.0025),
        (256, 8, 64, 0.2048, 20_000, 0.0025),
        (256, 32, 64, 0.2048, 20_000, 0.0025),
        (256, 128, 128, 0.1024, 40_000, 0.0025),
        (64, 1, 32, 0.0256, 10_000, 0.0025),
        (512, 2, 16, 3.2768, 5_000, 0.0025),
        (1024, 1, 4, 52.4288, 1_250, 0.002),
        (1024, 8, 32, 6.5536, 10_000, 0.002),
    ],
)
def test_stylegan2_ada_has_the_values_of_its_code(
    size: int, gpus: int, batch: int, gamma: float, half_life: float, rate: float
) -> None:
    recipe = "stylegan2-ada-64" if size == 64 else "stylegan2-ada-256"
    assert stylegan2_auto_batch(sized(recipe, 32, size), gpus) == batch
    scaled = scale(sized(recipe, batch, size), "paper")
    if (batch, size) == (32, 256):
        assert scaled == recipe_config(recipe), "its own batch: 0.41 stays"
        return
    assert figures(scaled) == (batch, 0.0002 * size**2 / batch, half_life, rate, rate)
    assert figures(scaled)[1] == pytest.approx(gamma, rel=1e-12)


@pytest.mark.parametrize(("batch", "gamma", "half_life"), [(64, 1, 20_000), (128, 0.5, 40_000), (32, 2, 10_000)])
def test_stylegan2_goes_by_paper256(batch: int, gamma: float, half_life: float) -> None:
    assert figures(scale(sized("stylegan2-256", batch), "paper")) == (batch, gamma, half_life, 0.0025, 0.0025)


@pytest.mark.parametrize(
    ("name", "batch", "d_steps", "decay"),
    [
        ("biggan-128", 2048, 1, 0.9999),
        ("biggan-128", 2048, 2, 0.9999),  # the paper's
        ("biggan-128", 256, 1, 0.9999),
        ("biggan-32", 50, 4, 0.9999),
        ("biggan-32", 400, 4, 0.9999),
        ("fastgan-256", 8, 1, 0.999),
        ("fastgan-256", 64, 1, 0.999),
    ],
)
def test_a_moving_average_that_decays_by_step_does_so_for_any_batch(
    name: str, batch: int, d_steps: int, decay: float
) -> None:
    recipe = recipe_config(name)
    scaled = scale(replace(recipe, batch_size=batch, d_steps=d_steps), "paper")
    assert 0.5 ** (scaled.step_images / scaled.optimizer.ema_half_life_images) == pytest.approx(decay, abs=1e-6)
    assert replace(scaled.optimizer, ema_half_life_images=0.0) == replace(recipe.optimizer, ema_half_life_images=0.0)
    assert scaled.penalties == recipe.penalties


@pytest.mark.parametrize(("name", "batch"), [("r3gan-32", 4096), ("r3gan-64", 512), ("sagan-128", 2048)])
def test_published_batches_of_equal_rates_change_nothing(name: str, batch: int) -> None:
    config = sized(name, batch)
    assert scale(config, "paper") == config
    scaling = scaling_of(config)
    assert scaling
    assert "rates, penalties and moving average stay" in scaling.describe(applied=True)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_with_its_own_batch_is_left_alone(name: str) -> None:
    assert scaling_of(recipe_config(name)) is None
    assert scale(recipe_config(name), "paper") == recipe_config(name)
    assert scaling_of(replace(recipe_config(name), micro_batch_size=2, seed=1)) is None, "micro-batches are no batch"


def test_what_the_user_sets_stays_and_a_second_time_changes_nothing() -> None:
    config = sized("stylegan2-ada-256", 64)
    config = replace(config, penalties=replace(config.penalties, r1=replace(config.penalties.r1, weight=3.0)))
    scaled = scale(config, "paper")
    assert figures(scaled) == (64, 3.0, 20_000, 0.0025, 0.0025)
    assert scale(scaled, "paper") == scaled, "the same command on a run that exists"
    scaling = scaling_of(config)
    assert scaling
    assert "; as you have it: penalties.r1.weight (applied)" in scaling.describe(applied=True)


def test_a_paper_without_a_rule_is_said_to_have_none() -> None:
    scaling = scaling_of(sized("dcgan-64", 256))
    assert scaling
    assert scaling.describe(applied=False) == (
        "a batch of 256 in place of the recipe's 128; its paper has no rule for other batches: rates, penalties and "
        "moving average stay"
    )
    with pytest.raises(Refused, match="its paper has no rule for other batches; leave it out"):
        scale(sized("dcgan-64", 256), "paper")
    assert scaling_of(Config(recipe="custom")) is None


@pytest.mark.parametrize("name", RECIPES)
def test_each_recipe_says_what_to_set_on_one_eight_and_32_gpus(name: str) -> None:
    recipe, rule = recipe_config(name), RECIPES[name].rule
    found = list(layouts(recipe, rule))
    assert [layout.gpus for layout in found] == [*GPUS]
    for layout in found:
        config = layout.config
        config.check()
        config.check_world(layout.gpus)
        assert config.micro_batch_size <= recipe.micro_batch_size
        assert layout.grown or config.batch_size == (rule.batch_on(recipe, layout.gpus) if rule else recipe.batch_size)
        if layout.grown:
            assert config.batch_size == layout.gpus * recipe.micro_batch_size > recipe.batch_size
        # The options are those of a command line, and give these settings.
        options = " ".join(layout.options(recipe)).split()
        train = Train(Path("nowhere"), name)
        assert read_train(train, [name, "--run", "nowhere", *options]).config == config, layout.gpus


def test_layouts_of_published_configurations() -> None:
    def batches(name: str) -> list[tuple[int, int, int, bool]]:
        found = layouts(recipe_config(name), RECIPES[name].rule)
        return [
            (one.config.batch_size, one.config.micro_batch_size, one.config.network.mbstd_group, one.grown)
            for one in found
        ]

    # `auto`: groups of min(batch / GPUs, 4).
    assert batches("stylegan2-ada-256") == [(16, 8, 4, False), (64, 8, 4, False), (64, 2, 2, False)]
    assert batches("biggan-128") == [(2048, 32, 0, False)] * 3
    assert batches("r3gan-64") == [(256, 16, 0, False), (256, 16, 0, False), (256, 8, 0, False)]
    assert batches("dcgan-64") == [(128, 32, 0, False), (128, 16, 0, False), (1024, 32, 0, True)]
    assert batches("gan-32") == [(100, 20, 0, False), (100, 10, 0, False), (640, 20, 0, True)]


def test_recipes_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "stylegan2-ada-256"]) == 0
    said = capsys.readouterr().out
    rows = {line.split()[0]: line for line in said.splitlines() if line[:1].isdigit()}
    assert "16 = 2 × 8" in rows["1"]
    assert "--batch-size 64 --scale-rule paper" in rows["8"]
    assert "--batch-size 64 --micro-batch-size 2 --network.mbstd-group 2 --scale-rule paper" in rows["32"]
    assert "penalties.r1.weight 0.41 → 0.2048, optimizer.ema_half_life_images 10000 → 20000" in rows["32"]
    assert "the rule: StyleGAN2-ADA's configuration auto (train.py): gamma is 0.0002 size² / batch" in said


def rates_row(said: str) -> str:
    """Return what the plan says of rates; nothing: an empty text."""
    return next((line for line in said.splitlines() if line.startswith("rates")), "")


def submit_grown(shards: Path, *more: str) -> int:
    place = ("--partition", "gpu", "--nodes", "4", "--tracking.mode", "disabled", "--data", str(shards), "--run", "r")
    return main(["submit", "stylegan2-ada-64", *SMALL, *place, *more])


def test_a_batch_that_grows_is_told_what_the_rule_does(
    fake_slurm: FakeSlurm, shards32: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submit_grown(shards32, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "batch 256 = 32 micro-batches of 8 (grown from 32: each process has one micro-batch)" in said
    row = rates_row(said)
    assert "a batch of 256 in place of the recipe's 32, pictures of 32 in place of the recipe's 64; by StyleGAN2" in row
    assert "penalties.r1.weight 0.0256 → 0.0008, optimizer.ema_half_life_images 10000 → 80000 (not applied" in row
    assert not Path("r").exists()
    # Without being asked, nothing is changed but the batch.
    assert submit_grown(shards32) == 0
    stored = json.loads(Path("r/config.json").read_text())
    assert (stored["batch_size"], stored["penalties"]["r1"]["weight"]) == (256, 0.0256)
    assert stored["optimizer"]["ema_half_life_images"] == 10_000


def test_what_is_asked_for_is_recorded_and_stays_on_other_nodes(
    fake_slurm: FakeSlurm, shards32: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submit_grown(shards32, "--scale-rule", "paper") == 0
    assert "(applied)" in rates_row(capsys.readouterr().out)
    stored = Path("r/config.json").read_bytes()
    read = json.loads(stored)
    assert (read["batch_size"], read["penalties"]["r1"]["weight"]) == (256, 0.0002 * 32**2 / 256)
    assert read["optimizer"]["ema_half_life_images"] == 80_000
    assert "scale_rule" not in read, "values are recorded, and no rule that somebody may change"
    for again in (("--nodes", "2", "--scale-rule", "paper"), ("--nodes", "3")):
        Path("r/job.json").unlink()
        capsys.readouterr()
        assert submit_grown(shards32, *again) == 0
        assert Path("r/config.json").read_bytes() == stored
        assert rates_row(capsys.readouterr().out) == "", "it has begun"
    Path("r/job.json").unlink()
    assert main(["resume", "r", "--nodes", "1", "--partition", "gpu"]) == 0
    assert Path("r/config.json").read_bytes() == stored


def test_a_run_that_has_begun_without_the_rule_does_not_get_it(
    fake_slurm: FakeSlurm, shards32: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submit_grown(shards32) == 0
    Path("r/job.json").unlink()
    assert submit_grown(shards32, "--scale-rule", "paper") == 2
    assert "penalties.r1.weight is 0.0256 in r and cannot become 0.0008" in capsys.readouterr().err


def test_a_recipe_without_a_rule_does_as_it_is_told(
    fake_slurm: FakeSlurm, shards32: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grown = ["submit", "dcgan-32", "--partition", "gpu", "--data", str(shards32), "--tracking.mode", "disabled"]
    assert main([*grown, "--dry-run", "--scale-rule", "paper"]) == 2
    told = "--scale-rule paper: a batch of 128 in place of the recipe's 64, and its paper has no rule for other batches"
    assert f"{told}; leave it out to keep all else" in capsys.readouterr().err
    assert main([*grown, "--dry-run"]) == 0
    assert "its paper has no rule for other batches: rates" in rates_row(capsys.readouterr().out)
    assert main([*grown, "--dry-run", "--micro-batch-size", "8"]) == 0
    assert rates_row(capsys.readouterr().out) == "", "64 = 8 × 8: the recipe's batch"


def test_arms_of_a_study_ask_for_it_one_by_one(tmp_path: Path, shards32: Path) -> None:
    settings = {"batch-size": 64, "network": {"size": 32}}
    arms = {
        "as-is": {"recipe": "stylegan2-64", "settings": settings},
        "scaled": {"recipe": "stylegan2-64", "settings": settings, "scale_rule": "paper"},
    }
    made = parse_study({"data": str(shards32), "seeds": 1, "budget": {"images": 64}, "arms": arms}, "s.toml", "made")
    weights = {arm: load_arm(made, arm, tmp_path, {}).config.penalties.r1.weight for arm in arms}
    assert weights == {"as-is": 0.0256, "scaled": 0.0002 * 32**2 / 64}
    odd = {"a": arms["scaled"] | {"scale_rule": "linear"}}
    with pytest.raises(Refused, match="scale_rule must be 'none' or 'paper', but is 'linear'"):
        parse_study({"data": "d", "seeds": 1, "budget": {"images": 64}, "arms": odd}, "s.toml", "made")


def test_the_plan_of_a_study_says_what_the_rule_does(
    shards32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.toml").write_text(
        f'data = "{shards32}"\nseeds = 1\nbudget.images = 64\nevaluation.metric = "swd"\nevaluation.metrics = ["swd"]\n'
        '[arms.scaled]\nrecipe = "fastgan-256"\nscale_rule = "paper"\n'
        "settings = { batch-size = 64, network = { size = 32, g-channels = 8, d-channels = 8 } }\n"
        '[arms.plain]\nrecipe = "dcgan-32"\n'
    )
    assert main(["study", "s.toml", "--dry-run", "--cluster", "local"]) == 0
    row = rates_row(capsys.readouterr().out)
    assert "scaled: a batch of 64 in place of the recipe's 8, pictures of 32" in row
    assert "optimizer.ema_half_life_images 5540 → 44320 (applied)" in row
    assert "plain" not in row


def test_the_doctor_tells_which_batches_fit() -> None:
    gb = 10**9
    fits = Fits({4: 10 * gb, 8: 40 * gb}, 80 * gb, "H100")
    found = judge_layouts(RECIPES["stylegan2-ada-256"], fits)
    assert found.state == "ok"
    assert found.measured == (
        "1 GPU: 16 = 2 × 8 fits, fills 50% (40.0 GB of 80.0 GB); 8 GPUs: 64 = 8 × 8 fits, fills 50% (40.0 GB of "
        "80.0 GB); 32 GPUs: 64 = 32 × 2 fits"
    )
    small = judge_layouts(RECIPES["stylegan2-ada-256"], replace(fits, bytes_of={2: 70 * gb}))
    assert small.state == "warning"
    assert (
        "1 GPU: 16 = 2 × 8 does not fit; 8 GPUs: 64 = 8 × 8 does not fit; 32 GPUs: 64 = 32 × 2 fits" in small.measured
    )
    assert small.meaning == "the recipe's micro-batch is too large on 1 GPU, 8 GPUs"


def test_the_rates_of_the_paper_of_biggan() -> None:
    options = RECIPES["biggan-128"].expect.partition("the paper's: ")[2].split()
    config = read_train(Train(Path("nowhere"), "biggan-128"), ["biggan-128", "--run", "nowhere", *options]).config
    config.check()
    assert (config.batch_size, config.d_steps, *figures(config)[3:]) == (2048, 2, 5e-5, 2e-4)


def test_half_lives_are_those_of_the_papers_decays() -> None:
    """The recipes' own are rounded; the rules go by proportion to them."""
    for name, decay in (("biggan-32", 0.9999), ("biggan-128", 0.9999), ("fastgan-256", 0.999)):
        config = recipe_config(name)
        exact = math.log(0.5) / math.log(decay) * config.step_images
        assert config.optimizer.ema_half_life_images == pytest.approx(exact, rel=0.011)
        assert find_scaling(config, RECIPES[name].rule, config) is None

"""Sheets of edits and mixtures, films, and chosen seeds: what is made with a trained generator."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.made_generators import SIZE, make, pictures, sheet_cells
from trainer.__main__ import main
from trainer.commands.edit import parse_strengths
from trainer.commands.seeds import ranking
from trainer.core.fields import Refused
from trainer.core.randomness import philox
from trainer.evaluation.seed_scores import SCORES, real_balls, realism
from trainer.runs.trained_generator import SamplingOptions, TrainedGenerator, parse_seeds
from trainer.sampling import films


@pytest.mark.parametrize(("kind", "layers", "chosen"), [("w", "coarse", range(3)), ("parts", "1-2", (1, 2))])
def test_a_table_of_mixtures(
    kind: str, layers: str, chosen: object, generators: dict[str, Path], tmp_path: Path
) -> None:
    """Each cell is its row's picture with the chosen layers of its column's, computed here from the codes."""
    out = tmp_path / "table.png"
    make("stylemix", generators[kind], "--out", out, "--rows", "0,1", "--cols", "4-6", "--layers", layers)
    cells = sheet_cells(out, 3, 4)
    assert (cells[0, 0] == 255).all()
    assert (cells[0, 1:] == pictures(generators[kind], "4-6", tmp_path / "columns")).all()
    assert (cells[1:, 0] == pictures(generators[kind], "0-1", tmp_path / "rows")).all()
    trained = TrainedGenerator(generators[kind], SamplingOptions())
    (code, latent), (other, _) = trained.codes([1]) + trained.codes([5])
    mixed = code.clone()
    view = trained.sampler.generator.by_layer(mixed)
    for k in chosen:  # type: ignore[attr-defined]
        view[0, k] = trained.sampler.generator.by_layer(other)[0, k]
    assert (next(trained.sampler.synthesize([(mixed, latent)]))[0] == cells[2, 2]).all()
    assert (cells[2, 2] != cells[2, 0]).any()
    assert (cells[2, 2] != cells[0, 2]).any()


@pytest.mark.parametrize("kind", ["z", "w"])
def test_a_sheet_of_strengths(kind: str, generators: dict[str, Path], tmp_path: Path) -> None:
    """Strength 0 is the picture itself, and the code moves by as much as the strength says, along the direction."""
    options = ("--seeds", "2,3", "--direction", "0-1", "--strengths=-2,0,1")
    make("edit", generators[kind], "--out", tmp_path / "a.png", *options, "--save", tmp_path / "d.safetensors")
    cells = sheet_cells(tmp_path / "a.png", 4, 3)
    assert (cells[::2, 1] == pictures(generators[kind], "2-3", tmp_path / "files")).all()
    assert (cells[0, 0] != cells[0, 2]).any()
    trained = TrainedGenerator(generators[kind], SamplingOptions())
    saved = load_file(tmp_path / "d.safetensors")["directions"]
    (code, latent) = trained.codes([3])[0]
    moved = code - 2 * saved[1]
    assert (next(trained.sampler.synthesize([(moved, latent)]))[0] == cells[3, 0]).all()
    if kind == "w":  # one standard deviation of w along the direction
        many = trained.sampler.many_codes()[:, 0]
        unit = saved[0] / saved[0].norm()
        torch.testing.assert_close(saved[0].norm(), (many @ unit).std(), rtol=1e-4, atol=0)
    else:
        torch.testing.assert_close(saved.norm(dim=1), torch.ones(2))
    make("edit", generators[kind], "--out", tmp_path / "b.png", *options, "--directions", tmp_path / "d.safetensors")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_edits_of_some_layers_leave_the_others(generators: dict[str, Path], tmp_path: Path) -> None:
    options = ("--seeds", "2", "--layers", "6-7", "--strengths=0,3", "--save", tmp_path / "d.safetensors")
    make("edit", generators["w"], "--out", tmp_path / "a.png", *options)
    trained = TrainedGenerator(generators["w"], SamplingOptions())
    (code, latent) = trained.codes([2])[0]
    moved = code.clone()
    moved[:, 6:] += 3 * load_file(tmp_path / "d.safetensors")["directions"][0]
    shown = next(trained.sampler.synthesize([(moved, latent)]))[0]
    assert (shown == sheet_cells(tmp_path / "a.png", 1, 2)[0, 1]).all()


def test_from_class_to_class_in_w(generators: dict[str, Path], tmp_path: Path) -> None:
    """The step is the difference of the classes' means of w, measured here from other noise."""
    options = ("--seeds", "4", "--from-class", "red", "--to-class", "blue", "--strengths", "0,1")
    make("edit", generators["w"], "--out", tmp_path / "a.png", *options, "--save", tmp_path / "d.safetensors")
    cells = sheet_cells(tmp_path / "a.png", 1, 2)
    assert (cells[0, 0] == pictures(generators["w"], "4", tmp_path / "files", "--class", "red")[0]).all()
    (step,) = load_file(tmp_path / "d.safetensors")["directions"]
    codes = {}
    for name in ("red", "blue"):
        trained = TrainedGenerator(generators["w"], SamplingOptions(label=name))
        codes[name] = torch.cat([code for code, _ in trained.codes(range(1000))])[:, 0]
    noise = sum(c.var(0) for c in codes.values()).div(1000).sqrt()  # type: ignore[union-attr]
    difference = codes["blue"].mean(0) - codes["red"].mean(0)
    assert ((step - difference).abs() < 6 * noise).all()
    assert step.norm() > 10 * noise.norm(), "else any small step would pass"
    (code, latent) = TrainedGenerator(generators["w"], SamplingOptions(label="red")).codes([4])[0]
    shown = next(trained.sampler.synthesize([(code + step, latent)]))[0]
    assert (shown == cells[0, 1]).all()


def test_from_class_to_class_in_z(generators: dict[str, Path], tmp_path: Path) -> None:
    """By strength 1 it is the picture of the same noise and the other class; before, something in between."""
    options = ("--seeds", "4-5", "--from-class", "red", "--to-class", "blue", "--strengths", "0..1", "--steps", "3")
    make("edit", generators["parts"], "--out", tmp_path / "a.png", *options)
    cells = sheet_cells(tmp_path / "a.png", 2, 3)
    for column, name in ((0, "red"), (2, "blue")):
        assert (cells[:, column] == pictures(generators["parts"], "4-5", tmp_path / name, "--class", name)).all()
    assert (cells[:, 1] != cells[:, 0]).any()
    out = ("--out", str(tmp_path / "b.png"), "--save", str(tmp_path / "d"))
    assert main(["edit", str(generators["parts"]), *options, *out]) == 2
    assert not (tmp_path / "b.png").exists()


EDIT_REFUSALS = {
    "--strengths rather": "--strengths must be from .. to",
    "--steps 1": "--steps must be from 2 to 100",
    "--direction a": "--direction must be numbers such as 0 or 0-4,7",
    "--direction 16": "has 16 directions",
    "--layers 9": "numbered from 0 to 7",
    "--from-class red": "go together: name both",
    "--from-class red --to-class red": "are both 'red': name two classes",
    "--from-class red --to-class pink": "there is no class 'pink'",
    "--from-class red --to-class blue --direction 1": "leave --direction, --directions, --layers out",
    "--from-class red --to-class blue --class red": "leave --class out",
    "--from-class red --to-class blue --code x": "use --seeds in place of --code",
    "--code x --class red": "leave --class, --label, --truncation out",
    "--directions nowhere": "cannot be read as a safetensors file of directions",
    "--seeds 0-1999 --direction 0-3": "name fewer --seeds or directions",
}


@pytest.mark.parametrize("options", EDIT_REFUSALS)
def test_edits_that_cannot_be_are_refused(
    options: str, generators: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ("--out", str(tmp_path / "a.png"), "--save", str(tmp_path / "d"))
    assert main(["edit", str(generators["w"]), *out, *options.split()]) == 2
    assert EDIT_REFUSALS[options] in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_directions_of_other_codes_are_refused(
    generators: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "d.safetensors", ("--out", str(tmp_path / "a.png"))
    save_file({"directions": torch.zeros(2, 9)}, file)
    assert main(["edit", str(generators["w"]), *out, "--directions", str(file)]) == 2
    assert "'directions' has the shape (2, 9)" in capsys.readouterr().err
    save_file({"directions": torch.zeros(2, 16)}, file)
    assert main(["edit", str(generators["w"]), *out, "--directions", str(file), "--direction", "2"]) == 2
    assert "has directions from 0 to 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("z", "", "there are no layers to mix"),
        ("w", "--layers 8", "numbered from 0 to 7"),
        ("w", "--rows 0-999 --cols 0-99", "name fewer than 10,000"),
        ("w", "--rows x", "must be a list"),
    ],
)
def test_tables_that_cannot_be_are_refused(
    kind: str,
    options: str,
    message: str,
    generators: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["stylemix", str(generators[kind]), "--out", str(tmp_path / "a.png"), *options.split()]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "steps", "strengths"),
    [("-3..3", 7, [-3, -2, -1, 0, 1, 2, 3]), ("0..1", 3, [0, 0.5, 1]), ("-.5,2", 7, [-0.5, 2]), ("1", 7, [1])],
)
def test_strengths_are_read(text: str, steps: int, strengths: list[float]) -> None:
    assert parse_strengths(text, steps) == strengths


@pytest.mark.parametrize("text", ["", "..", "1..", "..2", "a", "1..2..3", "nan", "inf..1", "1,,2"])
def test_other_strengths_are_refused(text: str) -> None:
    with pytest.raises(Refused, match="--strengths"):
        parse_strengths(text, 7)


def test_an_mp4_shows_the_way(generators: dict[str, Path], tmp_path: Path) -> None:
    """ffmpeg itself reads it back: as many pictures as asked for, near to those that were generated, in yuv420p."""
    out = tmp_path / "way.mp4"
    options = ("--seeds", "0,1", "--steps", "4", "--fps", "10")
    make("interpolate", generators["z"], "--out", out, *options)
    make("interpolate", generators["z"], "--out", tmp_path / "way.webp", *options)
    ffmpeg = films.find_ffmpeg()
    said = subprocess.run([ffmpeg, "-i", str(out)], capture_output=True, text=True, check=False).stderr
    for word in ("h264", "yuv420p", "32x32", "10 fps"):
        assert word in said
    raw = [ffmpeg, "-v", "error", "-i", str(out), "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"]
    read = np.frombuffer(subprocess.run(raw, capture_output=True, check=True).stdout, np.uint8)
    frames = read.reshape(8, SIZE, SIZE, 3).astype(int)
    with Image.open(tmp_path / "way.webp") as film:
        for k in range(8):
            film.seek(k)
            assert abs(frames[k] - np.asarray(film.convert("RGB"))).mean() < 16, "halved colours"
    small = tmp_path / "small.mp4"
    make("interpolate", generators["z"], "--out", small, *options, "--quality", "30")
    assert small.stat().st_size < out.stat().st_size


def test_a_film_of_odd_sides(tmp_path: Path) -> None:
    frames = philox("odd").integers(0, 256, (3, 33, 35, 1), dtype=np.uint8).repeat(3, axis=3)
    film = tmp_path / "odd.mp4"
    film.write_bytes(films.encode_mp4(frames, 25, None))
    assert film.read_bytes() == films.encode_mp4(frames, 25, None), "the same frames give the same bytes"
    said = subprocess.run([films.find_ffmpeg(), "-i", str(film)], capture_output=True, text=True, check=False).stderr
    assert "36x34" in said


def test_without_ffmpeg_an_mp4_is_refused_at_once(
    generators: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(films, "find_spec", lambda name: None)
    asked = ["interpolate", str(generators["z"]), "--steps", "2", "--out"]
    assert main([*asked, str(tmp_path / "way.mp4")]) == 2
    assert "an .mp4 is made by ffmpeg, which is not here: install it" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert main([*asked, str(tmp_path / "way.webp")]) == 0


def test_what_ffmpeg_says_is_told(
    generators: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "ffmpeg"
    broken.write_text("#!/bin/sh\ncat >/dev/null\necho no encoder >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(broken))
    assert main(["interpolate", str(generators["z"]), "--steps", "2", "--out", str(tmp_path / "way.mp4")]) == 2
    assert "could not make the film: no encoder" in capsys.readouterr().err
    assert not (tmp_path / "way.mp4").exists()


@pytest.mark.parametrize("by", SCORES)
def test_seeds_are_listed_by_each_measure(by: str, generators: dict[str, Path], tmp_path: Path) -> None:
    out, table = tmp_path / "best.txt", tmp_path / "scores.json"
    options = ("--by", by, "--best", "5", "--cache", tmp_path / "cache")
    files = ("--json", table, "--sheet", tmp_path / "a.png")
    make("seeds", generators["w"], "--out", out, "--among", "0-19", *options, *files)
    scores = {int(seed): float(score) for seed, score in json.loads(table.read_text())["scores"].items()}
    assert sorted(scores) == [*range(20)]
    best = parse_seeds(str(out))
    assert [scores[seed] for seed in best] == sorted(scores.values(), reverse=SCORES[by].higher_is_better)[:5]
    assert len({*scores.values()}) > 10
    # The score of a seed is the same among others, and the list is what --seeds takes.
    make(
        "seeds",
        generators["w"],
        "--out",
        tmp_path / "w.txt",
        "--among",
        out,
        *options[:2],
        "--best",
        "2",
        "--worst",
        *options[4:],
    )
    assert parse_seeds(str(tmp_path / "w.txt")) == best[:2:-1]
    make("sample", generators["w"], "--out", tmp_path / "grid.png", "--seeds", out)


def test_the_realism_of_known_points() -> None:
    """On a line: reals at 0, 1, … 9, whose balls to the third neighbour reach 2 inside and 3 at the ends."""
    real = np.arange(10.0)[:, None]
    kept, squares = real_balls(real)
    assert kept.ravel().tolist() == [*range(1, 9)], "the balls at the ends are larger than the median"
    assert squares.tolist() == [4.0] * 8
    found = realism(kept, squares, np.array([[5.5], [5.0], [12.0]]))
    assert found.tolist() == [4.0, np.inf, 0.5]


def test_ranks_are_stable_and_nan_is_last() -> None:
    scores = np.array([1.0, np.nan, 3.0, 1.0, np.inf])
    assert ranking(scores, True) == [4, 2, 0, 3, 1]
    assert ranking(scores, False) == [0, 3, 2, 4, 1]


SEEDS_REFUSALS = {
    ("z", "--by mean-style"): "this network has no styles; use --by realism or logit",
    ("w", "--by beauty"): "there is no measure 'beauty'",
    ("w", "--best 0"): "--best must be from 1 to the 10 seeds",
    ("w", "--best 11"): "--best must be from 1 to the 10 seeds",
    ("w", "--sheet a.txt"): "must be a picture such as best.png",
}


@pytest.mark.parametrize(("kind", "options"), SEEDS_REFUSALS)
def test_choices_that_cannot_be_are_refused(
    kind: str, options: str, generators: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ("--out", str(tmp_path / "best.txt"), "--among", "0-9", "--best", "3")
    assert main(["seeds", str(generators[kind]), *out, *options.split()]) == 2
    assert SEEDS_REFUSALS[kind, options] in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_lists_of_seeds_that_are_none_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "best.txt"
    file.write_text("3, 1\n2\n")
    assert parse_seeds(str(file)) == [3, 1, 2]
    for content in (b"", b"one", b"\xff", b"1" * 10_000_001):
        file.write_bytes(content)
        with pytest.raises(Refused, match="--seeds"):
            parse_seeds(str(file))

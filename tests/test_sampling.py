"""Painting with a trained generator: which pictures, from which weights, into which files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from tests.conftest import run, train
from trainer.__main__ import main
from trainer.core.fields import Refused
from trainer.core.iteration import batched
from trainer.core.randomness import normal, philox
from trainer.runs.config_loading import read_config
from trainer.runs.run_folder import RunFolder
from trainer.runs.trained_generator import SamplingOptions, TrainedGenerator, parse_seeds
from trainer.sampling.sampler import Sampler, slerp

SIZE = 32
STYLES = ("--generator", "stylegan2", "--network.mapping-layers", "2", "--network.max-channels", "16")

Pixels = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def plain(shards32: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose code is z, with checkpoints at 0, 32 and 64 images."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    train(folder, shards32, "--total-images", "64", "--checkpoint-every-images", "32")
    return folder


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled pictures, with their folders as classes."""
    out = tmp_path_factory.mktemp("labelled") / "shards"
    options = ("--size", str(SIZE), "--labels", "folders")
    done = run("shards", "build", "examples/clipart.zip", "--out", str(out), *options)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def styled(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose code is w, and whose generator is told the class."""
    folder = tmp_path_factory.mktemp("styled") / "run"
    train(folder, labelled, *STYLES, "--network.g-conditional", "--total-images", "32")
    return folder


def cells(path: Path) -> Pixels:
    """Return the pictures of a grid, row by row: (n, h, w, 3)."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    rows, columns = (side // SIZE for side in pixels.shape[:2])
    return pixels.reshape(rows, SIZE, columns, SIZE, 3).swapaxes(1, 2).reshape(-1, SIZE, SIZE, 3)


def frames(path: Path) -> list[Pixels]:
    """Return the pictures of a film."""
    with Image.open(path) as film:
        found = []
        for i in range(getattr(film, "n_frames", 1)):
            film.seek(i)
            found.append(np.asarray(film.convert("RGB")))
        return found


def paint(folder: Path, out: Path, *options: str, command: str = "sample") -> Path:
    assert main([command, str(folder), "--out", str(out), *options]) == 0
    return out


def test_a_grid_of_one_noise_is_the_same_however_many(plain: Path, tmp_path: Path) -> None:
    few = cells(paint(plain, tmp_path / "few.png", "--num", "5"))
    many = cells(paint(plain, tmp_path / "many.png", "--num", "11"))
    assert (few[:5] == many[:5]).all()
    assert not few[5:].any(), "black where they end"
    assert (many == cells(paint(plain, tmp_path / "again.png", "--num", "11", "--seed", "0"))).all()
    assert (many[0] != cells(paint(plain, tmp_path / "other.png", "--num", "1", "--seed", "1"))[0]).any()


@pytest.mark.parametrize("kind", ["plain", "styled"])
def test_the_picture_of_a_seed_is_the_same_wherever_it_is_painted(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = request.getfixturevalue(kind)
    grid = cells(paint(folder, tmp_path / "grid.png", "--seeds", "0-8"))
    assert (grid[3] != grid[7]).any()
    assert (cells(paint(folder, tmp_path / "two.png", "--seeds", "7,3"))[:2] == grid[[7, 3]]).all()
    paint(folder, tmp_path / "files", "--files", "--seeds", "7,42")
    assert sorted(path.name for path in (tmp_path / "files").iterdir()) == ["seed0007.png", "seed0042.png"]
    assert (cells(tmp_path / "files" / "seed0007.png")[0] == grid[7]).all()
    film = frames(paint(folder, tmp_path / "way.webp", "--seeds", "3,7,1", "--steps", "4", command="interpolate"))
    assert len(film) == 12
    assert (np.stack(film[::4]) == grid[[3, 7, 1]]).all()


def test_a_class_is_given_by_name_or_index(
    styled: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = json.loads((labelled / "index.json").read_text())["classes"]
    by_name = cells(paint(styled, tmp_path / "name.png", "--seeds", "1", "--class", names[2]))
    assert (by_name == cells(paint(styled, tmp_path / "index.png", "--seeds", "1", "--class", "2"))).all()
    every = cells(paint(styled, tmp_path / "all.png", "--seeds", "1,2"))
    assert (by_name[0] != every[0]).any(), "without --class, the picture of seed 1 is of class 1"
    assert (cells(paint(styled, tmp_path / "two.png", "--seeds", "2", "--class", "2"))[0] == every[1]).all()
    out = ("--out", str(tmp_path / "no.png"))
    assert main(["sample", str(styled), *out, "--class", names[2] + "x"]) == 2
    assert f"did you mean {names[2]!r}?" in capsys.readouterr().err
    assert main(["sample", str(styled), *out, "--class", str(len(names))]) == 2
    assert f"numbered from 0 to {len(names) - 1}" in capsys.readouterr().err
    assert not (tmp_path / "no.png").exists()


def test_classes_have_only_numbers_when_the_data_is_gone(
    styled: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(styled, folder)
    stored = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(stored | {"data": str(tmp_path / "gone")}))
    paint(folder, tmp_path / "grid.png", "--num", "1", "--class", "1")
    name = json.loads((labelled / "index.json").read_text())["classes"][1]
    assert main(["sample", str(folder), "--out", str(tmp_path / "no.png"), "--class", name]) == 2
    assert "the data that named them is gone" in capsys.readouterr().err


def test_truncation_of_z_keeps_the_noise_near(plain: Path, tmp_path: Path) -> None:
    trained = TrainedGenerator(plain, SamplingOptions(truncation=0.5))
    z = torch.cat([trained.latent(seed).z for seed in range(20)])
    assert 0.4 < z.abs().max() <= 0.5
    near = z == torch.cat([TrainedGenerator(plain, SamplingOptions()).latent(seed).z for seed in range(20)])
    assert 0.3 < near.float().mean() < 0.5, "what was near has stayed: P(|z| < 0.5) = 0.38"
    wide = cells(paint(plain, tmp_path / "wide.png", "--num", "9"))
    assert (wide == cells(paint(plain, tmp_path / "all.png", "--num", "9", "--truncation", "99"))).all()
    assert (wide != cells(paint(plain, tmp_path / "strict.png", "--num", "9", "--truncation", "0.5"))).any()


def test_truncation_of_w_pulls_towards_the_mean(styled: Path) -> None:
    whole, half, none = (TrainedGenerator(styled, SamplingOptions(truncation=share)) for share in (1.0, 0.5, 0.0))
    latents = [whole.latent(seed) for seed in range(6)]
    codes = [
        torch.cat([code for code, _ in s.sampler.latent_codes(latents, s.truncation)]) for s in (whole, half, none)
    ]
    assert (codes[2] == codes[2][:1]).all()
    torch.testing.assert_close(codes[1], (codes[0] + codes[2]) / 2)
    plain = torch.cat([code for code, _ in whole.sampler.latent_codes(latents)])
    torch.testing.assert_close(codes[0], plain)
    many = torch.cat([code for code, _ in whole.sampler.latent_codes(map(whole.latent, range(400)))])
    torch.testing.assert_close(codes[2][0], many.mean(0), atol=5 / 400**0.5, rtol=0)


def test_any_whole_checkpoint_serves(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paint(plain, tmp_path / "old.png", "--num", "4", "--checkpoint", "32")
    assert "4 pictures generated at 32 images seen" in capsys.readouterr().out
    paint(plain, tmp_path / "same.png", "--num", "4", "--checkpoint", "000000000032-r00")
    assert (tmp_path / "old.png").read_bytes() == (tmp_path / "same.png").read_bytes()
    assert main(["sample", str(plain), "--out", str(tmp_path / "no.png"), "--checkpoint", "33"]) == 2
    assert "has no checkpoint '33'; there is 000000000064-r00, 000000000032-r00" in capsys.readouterr().err
    folder = tmp_path / "run"
    shutil.copytree(plain, folder)
    (folder / "checkpoints" / "000000000064-r00" / "state.safetensors").write_bytes(b"damaged")
    paint(folder, tmp_path / "new.png", "--num", "4")
    assert "passed over damaged" in capsys.readouterr().err
    assert (tmp_path / "old.png").read_bytes() == (tmp_path / "new.png").read_bytes()
    assert main(["sample", str(folder), "--out", str(tmp_path / "no.png"), "--checkpoint", "64"]) == 2
    assert "is damaged: state.safetensors has 7 bytes" in capsys.readouterr().err


def test_files_are_not_replaced_unasked(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "pictures"
    arguments = ["sample", str(plain), "--out", str(out), "--files", "--num", "2"]
    assert main(arguments) == 0
    paint(plain, out, "--files", "--seeds", "2-3")
    before = (out / "seed0001.png").stat().st_mtime_ns
    assert main(arguments) == 2
    assert "seed0000.png is there already" in capsys.readouterr().err
    assert (out / "seed0001.png").stat().st_mtime_ns == before
    assert main([*arguments, "--force"]) == 0
    assert (out / "seed0001.png").stat().st_mtime_ns > before
    (out / "letter.txt").write_text("of value")
    assert main(["sample", str(plain), "--out", str(out), "--files", "--seeds", "9"]) == 2
    assert "holds other things, such as letter.txt" in capsys.readouterr().err
    assert sorted(p.name for p in out.iterdir()) == ["letter.txt", *(f"seed000{i}.png" for i in range(4))]


REFUSALS = {
    "--num 0": "--num must be from 1 to 1,000,000",
    "--seeds 1 --num 3": "leave --num and --seed out",
    "--files --seed 3": "use --seeds in place of --seed",
    "--seeds 3-1": "--seeds must be a list such as 0-15,42, but is '3-1'",
    "--class flags": "told no classes",
    "--truncation 0": "--truncation must be at least 0.01",
    "--num 1000000000": "--num must be from 1 to 1,000,000",
    "--seed -1": "--seed must not be negative",
    "--truncation inf": "--truncation must be at least 0.01",
    "--truncation nan": "--truncation must be at least 0.01",
}


@pytest.mark.parametrize("options", REFUSALS)
def test_what_cannot_be_painted_is_refused(
    options: str, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sample", str(plain), "--out", str(tmp_path / "out.png"), *options.split()]) == 2
    assert REFUSALS[options] in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "out", "message"),
    [
        ("sample", "grid.txt", "must be a picture such as grid.png"),
        ("sample", "grid", "must be a picture such as grid.png"),
        ("sample", "nowhere/grid.png", "cannot be written: there is no folder"),
        ("interpolate", "way.avi", "must be a .gif, a .webp or an .mp4"),
        ("interpolate", "nowhere/way.gif", "cannot be written: there is no folder"),
    ],
)
def test_what_cannot_be_written_is_refused(
    command: str, out: str, message: str, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, str(plain), "--out", str(tmp_path / out), *(["--steps", "1"] if "way" in out else [])]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--seeds 4", "must name two pictures"),
        ("--steps 0", "--steps must be from 1 to 10,000"),
        ("--grid 0", "--grid must be from 1 to 10,000"),
        ("--fps 60", "--fps must be from 0.1 to 50"),
        ("--quality 80", "--quality is of a .webp"),
    ],
)
def test_films_that_cannot_be_are_refused(
    options: str, message: str, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["interpolate", str(plain), "--out", str(tmp_path / "way.gif"), *options.split()]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_gif_repeats_and_shows_several_ways(plain: Path, tmp_path: Path) -> None:
    options = ("--seeds", "0,1", "--steps", "5", "--fps", "25", "--grid", "2")
    path = paint(plain, tmp_path / "way.gif", *options, command="interpolate")
    with Image.open(path) as film:
        assert film.info["loop"] == 0, "for ever"
        assert film.info["duration"] == 40
        assert film.size == (2 * SIZE, 2 * SIZE)
    film_frames, (first, second) = frames(path), cells(paint(plain, tmp_path / "g.png", "--seeds", "4-5"))[:2]
    assert len(film_frames) == 10
    for shown, picture in ((film_frames[0], first), (film_frames[5], second)):
        corner = shown[SIZE:, :SIZE]  # the third way, whose seeds are 4 and 5
        assert abs(corner.astype(int) - picture).mean() < 12, "256 colours, dithered"


def test_a_way_that_does_not_loop_ends_with_its_last_picture(plain: Path, tmp_path: Path) -> None:
    options = ("--seeds", "0-2", "--steps", "3", "--no-loop")
    gif = paint(plain, tmp_path / "way.gif", *options, command="interpolate")
    with Image.open(gif) as film:
        assert "loop" not in film.info, "once"
    assert len(frames(gif)) == 7
    webp = frames(paint(plain, tmp_path / "way.webp", *options, command="interpolate"))
    assert (webp[-1] == cells(paint(plain, tmp_path / "last.png", "--seeds", "2"))[0]).all()
    lossy = paint(plain, tmp_path / "small.webp", *options, "--quality", "50", command="interpolate")
    assert lossy.stat().st_size < (tmp_path / "way.webp").stat().st_size


def test_ways_are_smooth(styled: Path) -> None:
    """No jump at the stops, nor half way: noise moves with the styles."""
    trained = TrainedGenerator(styled, SamplingOptions(label="0"))
    way = trained.way([0, 1], 32, loop=True).astype(float)
    steps = abs(np.diff(way, axis=0, append=way[:1])).mean((1, 2, 3))
    assert steps.max() < 4 * steps.mean()


def test_the_sphere_is_kept() -> None:
    a, b = (normal(philox("slerp", i), 3, 512) for i in range(2))
    assert torch.equal(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, 1.0), b)
    assert torch.equal(slerp(a, a, 0.3), a)
    torch.testing.assert_close(slerp(a, -a, 0.5), torch.zeros_like(a))
    b = b * (a.norm(dim=1) / b.norm(dim=1))[:, None]
    torch.testing.assert_close(slerp(a, b, 0.4).norm(dim=1), a.norm(dim=1))


@pytest.mark.parametrize(
    ("text", "seeds"), [("0-3,42", [0, 1, 2, 3, 42]), ("7", [7]), ("5-5", [5]), ("1, 2", [1, 2]), ("2,1,2", [2, 1, 2])]
)
def test_seeds_are_read(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "1--2", "1,,2", "0.5", "2-1", "0-9999999999"])
def test_other_lists_of_seeds_are_refused(text: str) -> None:
    with pytest.raises(Refused, match="--seeds"):
        parse_seeds(text)


def test_batches_are_of_one_size(plain: Path) -> None:
    sampler = Sampler(read_config(RunFolder(plain)), torch.device("cpu"))
    assert [*batched("abcde", 2)] == [["a", "b"], ["c", "d"], ["e"]]
    assert sampler.padded([1, 2]) == [1] + [2] * 7

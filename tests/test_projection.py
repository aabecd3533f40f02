"""Projection: a picture that a generator has made is found again; and the nearest pictures of the data."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.made_generators import make, pictures, sheet_cells
from trainer.__main__ import main
from trainer.core.fields import Refused
from trainer.core.randomness import normal, philox
from trainer.extractors import EXTRACTORS
from trainer.extractors.resize import float_planes
from trainer.sampling.picture_distance import DistanceWeights, PictureDistance, resize_matrix, rgb
from trainer.sampling.projection import ProjectionOptions, rate_factor, roughness

FEW = ("--steps", "60", "--starts", "8", "--rate", "0.3")


def projected(out: Path) -> tuple[np.ndarray, np.ndarray, dict[str, object]]:
    """Return the target, what was found, and the facts."""
    target, found = (np.asarray(Image.open(out / name)).astype(float) for name in ("target.png", "projected.png"))
    return target, found, json.loads((out / "projection.json").read_text())


@pytest.mark.parametrize(("kind", "options"), [("w", ()), ("w", ("--space", "w+")), ("maps", ())])
def test_a_generated_picture_is_found_again(
    kind: str, options: tuple[str, ...], generators: dict[str, Path], tmp_path: Path
) -> None:
    """The seed is none of those that the search begins with, and what is found is much nearer than these."""
    target = pictures(generators[kind], "77", tmp_path / "files")[0].astype(float)
    out = tmp_path / "found"
    make("project", tmp_path / "files" / "seed0077.png", generators[kind], "--out", out, *FEW, *options)
    seen, found, facts = projected(out)
    assert (seen == target).all()
    begin, end = facts["begin"]["distance"], facts["end"]["distance"]  # type: ignore[index]
    assert end < 0.25 * begin
    others = pictures(generators[kind], "0-7", tmp_path / "others").astype(float)
    assert abs(found - target).mean() < 0.5 * abs(others - target).mean((1, 2, 3)).min()
    rows = list(csv.DictReader((out / "distance.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == [*range(60)]
    assert list(rows[0]) == ["step", "distance", "colour", "edges", "features"]
    assert min(float(row["distance"]) for row in rows[-15:]) == pytest.approx(end, rel=1e-4)
    make("sample", generators[kind], "--out", tmp_path / "again.png", "--code", out / "code.safetensors")
    assert (np.asarray(Image.open(tmp_path / "again.png")) == found).all(), "the code is all that it takes"


def test_the_same_projection_twice_and_what_it_writes(
    generators: dict[str, Path], blot_shards: Path, tmp_path: Path
) -> None:
    """A real picture; all files have the same bytes, and the code can be edited."""
    real = blot_shards.parent / "source" / "red" / "3.png"
    short = ("--steps", "9", "--starts", "3")
    for name in ("a", "b"):
        film = ("--film", tmp_path / f"{name}.webp")
        make("project", real, generators["w"], "--out", tmp_path / name, *short, *film)
    assert (tmp_path / "a.webp").read_bytes() == (tmp_path / "b.webp").read_bytes()
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == sorted(
        [
            "target.png",
            "projected.png",
            "progress.png",
            "distance.png",
            "distance.csv",
            "projection.json",
            "code.safetensors",
        ]
    )
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    target, found, _ = projected(tmp_path / "a")
    assert (target == np.asarray(Image.open(real))).all()
    cells = sheet_cells(tmp_path / "a" / "progress.png", 1, 9)
    assert (cells[0, 0] == target).all()
    assert (cells[0, -1] == found).all()
    with Image.open(tmp_path / "a.webp") as film_read:
        film_read.seek(film_read.n_frames - 1)  # type: ignore[attr-defined]
        assert (np.asarray(film_read.convert("RGB")) == found).all()
    code = load_file(tmp_path / "a" / "code.safetensors")
    assert code["code"].shape == (1, 8, 16)
    assert (code["code"] == code["code"][:, :1]).all(), "w is one style for all layers"
    options = ("--code", tmp_path / "a" / "code.safetensors", "--strengths=0,2")
    make("edit", generators["w"], "--out", tmp_path / "edited.png", *options)
    edited = sheet_cells(tmp_path / "edited.png", 1, 2)
    assert (edited[0, 0] == found).all()
    assert (edited[0, 1] != found).any()


def test_a_projection_is_not_replaced_unasked(
    generators: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "grey.png"
    Image.new("L", (40, 50), 99).save(picture)
    asked = ["project", str(picture), str(generators["z"]), "--out", str(tmp_path / "out")]
    asked += ["--steps", "1", "--starts", "1"]
    assert main(asked) == 0
    assert main(asked) == 2
    assert "is there already: name another folder, or --force to replace it" in capsys.readouterr().err
    assert main([*asked, "--force"]) == 0
    (tmp_path / "out" / "letter.txt").write_text("of value")
    assert main(asked) == 2
    assert "holds other things, such as letter.txt" in capsys.readouterr().err


REFUSALS = {
    "--space z": "does not fit this generator, which has styles: --space w or w+",
    "--steps 0": "--steps must be from 1 to",
    "--starts 0": "--starts must be from 1 to",
    "--rate 0": "--rate must be from",
    "--map-weight nan": "--map-weight must be from",
    "--distance.colour 0 --distance.edges 0 --distance.features 0": "one must be positive",
    "--truncation 0.7": "--truncation is of drawn pictures",
    "--film way.avi": "must be a .gif, a .webp or an .mp4",
    "--extractor inception": "there is no extractor 'inception'",
}


@pytest.mark.parametrize("options", REFUSALS)
def test_projections_that_cannot_be_are_refused(
    options: str, generators: dict[str, Path], blot_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real, out = str(blot_shards.parent / "source" / "red" / "3.png"), str(tmp_path / "out")
    assert main(["project", real, str(generators["w"]), "--out", out, *options.split()]) == 2
    assert REFUSALS[options] in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_no_picture_is_refused(generators: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ("--out", str(tmp_path / "out"))
    assert main(["project", str(tmp_path / "no.png"), str(generators["z"]), *out]) == 2
    assert "there is no picture" in capsys.readouterr().err
    (tmp_path / "text.png").write_text("no picture")
    assert main(["project", str(tmp_path / "text.png"), str(generators["z"]), *out]) == 2
    assert "is no usable picture" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(["project", str(tmp_path / "text.png"), str(generators["z"]), *out, "--space", "w+"]) == 2


def test_the_distance_is_that_of_its_parts() -> None:
    """By hand: of two grey pictures all colours differ by d, no edges do, and features are those of the extractor."""
    extractor = EXTRACTORS["random-vgg"]()
    bytes_a, bytes_b = (np.full((1, 32, 32, 3), value, np.uint8) for value in (100, 151))
    a, b = (torch.from_numpy(x).permute(0, 3, 1, 2) / 127.5 - 1 for x in (bytes_a, bytes_b))
    distance = PictureDistance(a, extractor, DistanceWeights(2.0, 3.0, 5.0))
    parts = distance.parts(b)
    d = 51 / 127.5
    torch.testing.assert_close(parts["colour"], torch.tensor([d + d * d]))
    torch.testing.assert_close(parts["edges"], torch.zeros(1), atol=1e-6, rtol=0)
    seen = [extractor(x).features.astype(float) for x in (bytes_a, bytes_b)]
    expected = np.square(seen[1] - seen[0]).mean() / np.square(seen[0]).mean()
    assert float(parts["features"]) == pytest.approx(expected, rel=1e-3)
    assert float(distance.total(parts)) == pytest.approx(2 * float(parts["colour"]) + 5 * expected, rel=1e-3)
    assert float(distance.total(distance.parts(a))) == pytest.approx(0, abs=1e-6)


def test_the_distance_s_gradient_is_that_of_its_value() -> None:
    x, y = (normal(philox("gradient", k), 1, 3, 16, 16).double().tanh() for k in range(2))
    distance = PictureDistance(y, None, DistanceWeights(features=0.0))
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda one: distance.total(distance.parts(one)), x, eps=1e-7, atol=1e-5)


def test_pictures_of_other_channels_are_seen_as_rgb() -> None:
    grey = torch.zeros(1, 1, 4, 4)
    assert rgb(grey).shape == (1, 3, 4, 4)
    # Half transparent red, premultiplied: over white it is (1, .5, .5) in [0, 1].
    red = torch.tensor([0.5, 0.0, 0.0, 0.5]).mul(2).sub(1)[None, :, None, None]
    assert rgb(red).add(1).div(2).flatten().tolist() == [1.0, 0.5, 0.5]


@pytest.mark.parametrize(("before", "after"), [(32, 64), (64, 64), (48, 32)])
def test_resizing_by_a_matrix_is_torch_s(before: int, after: int) -> None:
    x = float_planes(philox("resize").integers(0, 256, (1, before, before, 3), dtype=np.uint8))
    matrix = resize_matrix(before, after)
    whole = torch.nn.functional.interpolate(x, (after, after), mode="bilinear", align_corners=False, antialias=True)
    torch.testing.assert_close(matrix @ x @ matrix.T, whole, atol=1e-3, rtol=1e-5)


def test_the_penalty_of_maps_tells_white_noise_from_others() -> None:
    noise = normal(philox("maps"), 1, 1, 32, 32)
    smooth = torch.nn.functional.avg_pool2d(noise, 2).repeat_interleave(2, 2).repeat_interleave(2, 3) * 2
    assert float(roughness(noise)) < 0.05 < 0.4 < float(roughness(smooth))
    # By hand, of one scale: columns of +1 and -1 correlate with neighbours by -1 across and by 1 down.
    stripes = torch.tensor([1.0, -1.0]).repeat(4)[None, None, None].expand(1, 1, 8, 8)
    assert float(roughness(stripes)) == 2.0
    # Of two scales, stripes twice as wide: across they correlate by 0, down by 1; at half the size they are +2 and -2.
    wide = stripes.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert float(roughness(wide)) == 1 + 2 * 4**2


def test_the_rate_rises_and_falls() -> None:
    assert rate_factor(0.0) == pytest.approx(0.02)
    assert rate_factor(0.05) == rate_factor(0.5) == rate_factor(0.75) == 1.0
    assert rate_factor(0.875) == pytest.approx(0.5)
    assert rate_factor(0.999) < 1e-3


@pytest.mark.parametrize("value", [math.nan, -1.0])
def test_weights_that_are_none_are_refused(value: float) -> None:
    with pytest.raises(Refused, match="must not be negative"):
        DistanceWeights(edges=value).check()
    with pytest.raises(Refused, match="--noise"):
        ProjectionOptions(noise=value).check()


def test_copies_of_training_pictures_are_their_own_nearest(blot_shards: Path, tmp_path: Path) -> None:
    """Of given pictures that are in the data, the nearest is the picture itself, known by the file it was built of."""
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    first = json.loads((blot_shards / "index.json").read_text())
    assert first["splits"]["train"]["samples"] > 50
    out = tmp_path / "near"
    for name in ("red/0.png", "blue/7.png", "green/21.png", "blue/33.png", "red/50.png"):
        (chosen / name.replace("/", "-")).write_bytes((blot_shards.parent / "source" / name).read_bytes())
    make("nearest", chosen, "--out", out, "--data", blot_shards, "--num", "3", "--cache", tmp_path / "cache")
    table = json.loads((out / "nearest.json").read_text())["pictures"]
    cells, hits = sheet_cells(out / "nearest.png", 5, 4), 0
    for row, found in enumerate(table):
        best = found["nearest"][0]
        distances = [one["distance"] for one in found["nearest"]]
        assert distances == sorted(distances)
        assert best["split"] == "train"
        assert len(best["key"]) == 9
        assert best["shard"].startswith("train-")
        in_data = best["distance"] == 0  # the others were held out
        assert (best["file"] == found["picture"].replace("-", "/")) == in_data
        assert (cells[row, 0] == cells[row, 1]).all() == in_data
        hits += in_data
    assert hits >= 2


def test_the_nearest_of_generated_pictures(generators: dict[str, Path], blot_shards: Path, tmp_path: Path) -> None:
    """Of seeds, by the data of the run, and of a folder of pictures; one picture is enough to ask for."""
    out, cache = tmp_path / "near", ("--cache", tmp_path / "cache", "--num", "2")
    make("nearest", generators["z"], "--out", out, "--seeds", "3,1", *cache)
    cells = sheet_cells(out / "nearest.png", 2, 3)
    shown = pictures(generators["z"], "1,3", tmp_path / "files")
    assert (cells[:, 0] == shown[::-1]).all()
    one, source = tmp_path / "files" / "seed0003.png", blot_shards.parent / "source"
    make("nearest", one, "--out", tmp_path / "one", "--data", source, *cache)
    best = json.loads((tmp_path / "one" / "nearest.json").read_text())["pictures"][0]["nearest"][0]
    again = np.asarray(Image.open(source / best["file"]))
    assert (sheet_cells(tmp_path / "one" / "nearest.png", 1, 3)[0, 1] == again).all()


NEAREST_REFUSALS = {
    ("z", "--num 0"): "--num must be from 1 to 100",
    ("z", "--seeds 0-1000"): "name at most 1,000",
    ("source", ""): "so name where to look: --data SHARDS or a folder of pictures",
    ("source", "--seeds 1 --data DATA"): "--seeds and what is sampled are of a run, so leave them out",
    ("nowhere", "--data DATA"): "there is no run and no picture",
    ("z", "--num 100 --data FEW"): "has only 3 pictures",
}


@pytest.mark.parametrize(("subject", "options"), NEAREST_REFUSALS)
def test_searches_that_cannot_be_are_refused(
    subject: str,
    options: str,
    generators: dict[str, Path],
    blot_shards: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    few, out = tmp_path / "few", tmp_path / "near"
    few.mkdir()
    for k in range(3):
        Image.new("RGB", (32, 32), (k, k, k)).save(few / f"{k}.png")
    words = [{"DATA": str(blot_shards), "FEW": str(few)}.get(word, word) for word in options.split()]
    place = generators.get(subject, blot_shards.parent / subject)
    asked = ["nearest", str(place), "--out", str(out), "--cache", str(tmp_path / "cache"), *words]
    assert main(asked) == 2
    assert NEAREST_REFUSALS[subject, options] in capsys.readouterr().err
    assert not out.exists()

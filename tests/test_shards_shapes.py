"""Datasets of any height, width and number of channels: what is stored, and what each reader gives back."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.__main__ import main
from shards.dataset.files import INDEX
from shards.dataset.index import Index, upgrade_settings
from shards.dataset.stream import Reader
from shards.exclusion import Excluded
from shards.images.decode import decode_image
from shards.images.decoding import Decoding
from shards.images.display import over_checkerboard, over_white, premultiply
from shards.images.encode import ENCODINGS
from shards.images.fit import Crop, fitted_size
from shards.images.size import format_size, parse_size

WIDE = Decoding(size=(6, 12), fit="crop", background=(255, 255, 255), scaled_decode=0, max_pixels=1 << 24, min_size=1)
ORIENTATION = 0x0112
TURNED = {  # EXIF orientation -> how an upright picture lies in the file
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def saved(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def scene(height: int, width: int) -> Image.Image:
    """Draw a picture in which each row and each column differs from the others, smoothly."""
    rows, columns = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([rows * 255 // height, columns * 255 // width, rows * 0], 2).astype(np.uint8))


@pytest.mark.parametrize("text", ["0", "64x", "x64", "64x0", "64 x 32", "-4", "6.4", "64x32x3", "", "٣"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="no number of pixels"):
        parse_size(text)


def test_sizes_are_height_times_width() -> None:
    assert parse_size("256x384") == (256, 384)
    assert parse_size("64") == (64, 64)
    assert [format_size(size) for size in ((256, 384), (64, 64))] == ["256x384", "64"]
    assert fitted_size(300, 100, (6, 12), "crop") == (18, 6)
    assert fitted_size(300, 100, (6, 12), "pad") == (12, 4)
    assert fitted_size(300, 100, (6, 12), "stretch") == (12, 6)


@pytest.mark.parametrize("shape", [(40, 200), (200, 40), (60, 120), (61, 120)])
@pytest.mark.parametrize("size", [(6, 12), (12, 6), (9, 9)])
def test_a_crop_is_the_largest_part_of_the_right_shape(shape: tuple[int, int], size: tuple[int, int]) -> None:
    pixels = decode_image(saved(scene(*shape)), replace(WIDE, size=size)).pixels
    assert pixels.shape == (*size, 3)
    for axis in (0, 1):
        whole = shape[axis] * size[1 - axis] <= shape[1 - axis] * size[axis]
        line = pixels[..., axis].mean(1 - axis)
        taken = 1.0 if whole else shape[1 - axis] * size[axis] / size[1 - axis] / shape[axis]
        assert (line[-1] - line[0]) / 255 == pytest.approx(taken * (1 - 1 / size[axis]), abs=0.03)
        centre = 127.5 * (1 - 1 / shape[axis]) - 0.5  # of the scene, whose values are rounded down
        assert line.mean() == pytest.approx(centre, abs=1), "the centre"


def test_padding_and_stretching_to_a_shape() -> None:
    square = saved(Image.new("RGB", (30, 30), (255, 0, 0)))
    padded = decode_image(square, replace(WIDE, fit="pad", background=(0, 0, 255))).pixels
    assert (padded[:, 3:9] == (255, 0, 0)).all()
    assert (padded[:, :3] == (0, 0, 255)).all()
    assert (padded[:, 9:] == (0, 0, 255)).all()
    assert (decode_image(square, replace(WIDE, fit="stretch")).pixels == (255, 0, 0)).all()


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
@pytest.mark.parametrize("crop", ["centre", "top", "entropy"])
@pytest.mark.parametrize("shape", [(96, 48), (48, 96)])
def test_pictures_that_lie_on_their_side(format: str, crop: Crop, shape: tuple[int, int]) -> None:
    """The same upright picture comes out, whichever way it lies in the file, and the top is that of the upright one."""
    upright = scene(*shape)
    if crop == "entropy":  # something to see high up, on grey
        upright = Image.new("RGB", shape[::-1], (90, 90, 90))
        upright.paste(scene(24, 48), (10, 10))
    settings = replace(WIDE, crop=crop, scaled_decode=1)
    expected = decode_image(saved(upright, "PNG"), settings).pixels.astype(int)
    for orientation, turn in TURNED.items():
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        lying = upright if turn is None else upright.transpose(turn)
        options = {"quality": 98, "subsampling": 0} if format == "JPEG" else {}
        picture = decode_image(saved(lying, format, exif=exif, **options), settings)
        assert (picture.height, picture.width) == shape
        assert abs(picture.pixels - expected).mean() < (6 if format == "JPEG" else 3), orientation


def test_the_top_of_tall_pictures() -> None:
    tall, wide = saved(scene(120, 60)), saved(scene(60, 240))
    assert decode_image(tall, replace(WIDE, crop="top")).pixels[..., 0].max() < 70
    assert decode_image(tall, WIDE).pixels[..., 0].min() > 90
    assert np.array_equal(decode_image(wide, replace(WIDE, crop="top")).pixels, decode_image(wide, WIDE).pixels)


@pytest.mark.parametrize("at", [0, 40, 100])
@pytest.mark.parametrize("tall", [False, True])
def test_entropy_finds_what_there_is_to_see(at: int, tall: bool) -> None:
    picture = Image.new("RGB", (160, 30), (90, 90, 90))
    noise = np.random.default_rng(0).integers(0, 256, (30, 60, 3), dtype=np.uint8)
    picture.paste(Image.fromarray(noise), (at, 0))
    settings = replace(WIDE, crop="entropy", size=(30, 60))
    if tall:
        picture, settings = picture.transpose(Image.Transpose.TRANSPOSE), replace(settings, size=(60, 30))
        noise = noise.swapaxes(0, 1)
    found = decode_image(saved(picture), settings).pixels
    assert abs(found.astype(int) - noise).mean() < 25, "most of the noise, to a step of the search"
    assert np.array_equal(found, decode_image(saved(picture), settings).pixels)
    flat = saved(Image.new("RGB", picture.size, (9, 9, 9)))
    flat_box = decode_image(flat, replace(settings, channels=4)).pixels
    assert (flat_box == (9, 9, 9, 255)).all()


def test_of_equal_entropies_the_most_central() -> None:
    columns = np.tile(np.arange(160, dtype=np.uint8), (32, 1))
    stripes = Image.fromarray(columns % 4 * 60).convert("RGB")
    settings = replace(WIDE, size=(32, 64))
    found = decode_image(saved(stripes), replace(settings, crop="entropy")).pixels
    assert np.array_equal(found, decode_image(saved(stripes), settings).pixels)


def test_elongated_pictures_are_left_out() -> None:
    settings = replace(WIDE, max_aspect=2.0)
    for shape in (40, 81), (81, 40):
        with pytest.raises(Excluded) as caught:
            decode_image(saved(scene(*shape)), settings)
        assert caught.value.reason == "too_elongated"
        assert "--max-aspect is 2" in caught.value.detail
    decode_image(saved(scene(40, 80)), settings)


def test_grey_is_the_luma_of_rgb() -> None:
    data = saved(scene(60, 120))
    rgb = Image.fromarray(decode_image(data, WIDE).pixels)
    grey = decode_image(data, replace(WIDE, channels=1)).pixels
    assert np.array_equal(grey, np.asarray(rgb.convert("L"))[..., None])


def test_hidden_colours_change_no_byte() -> None:
    alpha = np.zeros((60, 120), dtype=np.uint8)
    alpha[20:40, 30:90] = 255
    made = []
    for hidden in (0, 255), (7, 99):
        colours = np.where(alpha[..., None] > 0, (250, 10, 20), (hidden[1], hidden[0], hidden[1])).astype(np.uint8)
        picture = Image.fromarray(np.concatenate([colours, alpha[..., None]], 2))
        made.append(
            [decode_image(saved(picture), replace(WIDE, channels=4, fit=fit)).pixels for fit in ("crop", "pad")]
        )
    for one, other in zip(*made, strict=True):
        assert np.array_equal(one, other)
        seen = one[one[..., 3] > 16]
        assert len(seen)
        assert abs(seen[:, :3].astype(int) - (250, 10, 20)).max() <= 8, "no other colour bleeds into the visible ones"
        assert (one[one[..., 3] == 0] == 0).all()


def test_the_filter_leaves_no_colour_where_there_is_nothing() -> None:
    """The lobes of Lanczos may cancel out in alpha and not in a colour."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (60, 120, 4), dtype=np.uint8)
    pixels[..., 3] = np.where(rng.random((60, 120)) < 0.02, 255, 0)
    found = decode_image(saved(Image.fromarray(pixels)), replace(WIDE, channels=4, size=(30, 60))).pixels
    nothing = found[..., 3] == 0
    assert 0.3 < nothing.mean() < 0.98
    assert (found[nothing] == 0).all()


def test_pictures_without_transparency_are_opaque_and_padding_is_transparent() -> None:
    data = saved(scene(30, 30))
    opaque = decode_image(data, replace(WIDE, channels=4)).pixels
    assert (opaque[..., 3] == 255).all()
    assert np.array_equal(opaque[..., :3], decode_image(data, WIDE).pixels)
    padded = decode_image(data, replace(WIDE, channels=4, fit="pad")).pixels
    assert (padded[:, :3] == 0).all()
    assert (padded[:, 3:9, 3] == 255).all()


# JPEG has no transparency, and shards build refuses it.
FORMS = [(name, channels) for name in ENCODINGS for channels in (1, 3, 4) if (name, channels) != ("jpg", 4)]


@pytest.mark.parametrize(("name", "channels"), FORMS)
def test_every_encoding_of_every_channel(name: str, channels: int) -> None:
    smooth = np.linspace(0, 255, 12 * 20 * channels).reshape(12, 20, channels).astype(np.uint8)
    out = np.empty_like(smooth)
    ENCODINGS[name].decode(ENCODINGS[name].encode(smooth), out)
    assert abs(out.astype(int) - smooth).max() <= (12 if name == "jpg" else 0)
    with pytest.raises((ValueError, OSError)):
        ENCODINGS[name].decode(ENCODINGS[name].encode(smooth), np.empty((20, 12, channels), dtype=np.uint8))


def test_pictures_for_screens() -> None:
    half = np.full((20, 20, 4), (200, 100, 0, 128), dtype=np.uint8)
    assert over_white(half)[0, 0].tolist() == [227, 177, 127]
    board = over_checkerboard(half * np.uint8(0))
    assert {tuple(colour) for colour in board.reshape(-1, 3).tolist()} == {(255, 255, 255), (204, 204, 204)}
    assert premultiply(half)[0, 0].tolist() == [100, 50, 0, 128]
    grey = np.arange(4, dtype=np.uint8).reshape(2, 2, 1)
    assert np.array_equal(over_white(grey)[..., 2], grey[..., 0])
    rgb = half[..., :3]
    assert over_white(rgb) is rgb
    assert premultiply(rgb) is rgb


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    for i in range(12):
        picture = scene(40 + 5 * i, 90).convert("RGBA")
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
        picture.save(folder / f"{i}.png")
    return folder


def build(source: Path, out: Path, *options: str) -> int:
    return main(["build", str(source), "--out", str(out), "--workers", "1", "--holdout", "0", *options])


@pytest.mark.parametrize(("channels", "encode"), [(1, "jpg"), (1, "webp"), (3, "raw"), (4, "webp"), (4, "png")])
def test_from_pictures_to_batches(source: Path, tmp_path: Path, channels: int, encode: str) -> None:
    out, grid = tmp_path / "data", tmp_path / "grid.png"
    assert build(source, out, "--size", "24x32", "--channels", str(channels), "--encode", encode) == 0
    index = Index.open(out)
    assert (index.size, index.channels) == ((24, 32), channels)
    images = Reader(index, "train", lambda *_: pytest.fail("damage"))(np.arange(12)).images
    assert images.shape == (12, 24, 32, channels)
    statistics = index.content["statistics"]
    assert statistics["mean"] == pytest.approx(images.mean((0, 1, 2)), abs=0.02 if encode != "jpg" else 1)
    assert len(statistics["std"]) == channels
    assert main(["verify", str(out), "--workers", "1"]) == 0
    assert main(["inspect", str(out), "--out", str(grid), "--num", "4"]) == 0
    with Image.open(grid) as shown:
        assert (shown.mode, shown.size) == ("RGB", (2 * 34 + 2, 2 * 26 + 2))
    assert build(source, out, "--size", "24x32", "--channels", str(channels), "--encode", encode, "--resume") == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--size", "24x"), "--size: '24x' is no number of pixels, such as 64, and no height and width"),
        (
            ("--channels", "4", "--encode", "jpg"),
            "--encode jpg has no transparency: with --channels 4 use raw, png or webp",
        ),
        (("--crop", "top", "--fit", "pad"), "--crop top is of --fit crop, and --fit is pad: leave one of them out"),
        (("--max-aspect", "0.5"), "--max-aspect is a longer side over a shorter one, from 1, but got 0.5"),
        (("--max-aspect", "nan"), "--max-aspect is a longer side over a shorter one, from 1, but got nan"),
    ],
)
def test_refusals(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    assert build(source, tmp_path / "out", *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_transparency_and_other_encodings(source: Path, tmp_path: Path) -> None:
    """What the refusals above advise."""
    for number, encode in enumerate(("raw", "png", "webp")):
        assert build(source, tmp_path / str(number), "--size", "8", "--channels", "4", "--encode", encode) == 0
    assert build(source, tmp_path / "pad", "--size", "8", "--fit", "pad") == 0
    assert build(source, tmp_path / "top", "--size", "8", "--crop", "top") == 0


def test_elongated_pictures_are_listed_with_their_reason(source: Path, tmp_path: Path) -> None:
    assert build(source, tmp_path / "out", "--size", "8", "--max-aspect", "1.5") == 0
    lines = [json.loads(line) for line in (tmp_path / "out" / "excluded.jsonl").read_text().splitlines()]
    assert {line["reason"] for line in lines} == {"too_elongated"}
    assert len(lines) == 4
    assert len(Index.open(tmp_path / "out").table) == 8


def test_an_index_of_schema_1_is_of_square_rgb(source: Path, tmp_path: Path) -> None:
    assert build(source, tmp_path / "out", "--size", "8") == 0
    path = tmp_path / "out" / INDEX
    now = json.loads(path.read_text())
    settings = {name: value for name, value in now["settings"].items() if name not in ("height", "width", "channels")}
    del settings["crop"], settings["max_aspect"]
    path.write_text(json.dumps(now | {"schema": 1, "settings": {"size": 8} | settings}))
    index = Index.open(tmp_path / "out")
    assert (index.size, index.channels) == ((8, 8), 3)
    assert index.content["settings"] == now["settings"]
    assert upgrade_settings(now["settings"]) == now["settings"]
    assert build(source, tmp_path / "out", "--size", "8", "--resume") == 0

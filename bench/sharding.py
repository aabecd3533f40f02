"""Sharding beside other programs: `python -m bench.sharding --pictures N` prints Markdown tables.

Pictures of two megapixels are made first: noise with the spectrum of natural pictures, and shapes with sharp edges.
Runs that are compared follow each other directly, in turns; ratios are taken within a turn.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt
import tyro
from PIL import Image, ImageDraw

from shards.building.options import Build
from shards.images.decode import decode_image
from shards.images.decoding import Decoding
from shards.images.encode import ENCODINGS

WIDTH, HEIGHT = 1632, 1224
BASES = 12  # spectra; every picture is one of them, turned and rolled, under shapes of its own
SIDE = 64
DEFAULT = Build.scaled_decode
PEERS = Path(__file__).parent.parent / ".bench-venv"
PYTHON, TOOL = PEERS / "bin/python", PEERS / "stylegan2-ada-pytorch/dataset_tool.py"
FEW = 400  # pictures, where the speed does not depend on their number
SIZES = ("64", "128", "256")


@dataclass(frozen=True)
class Bench:
    """Measure sharding."""

    pictures: int = 400
    turns: int = 3


def natural(seed: int) -> npt.NDArray[np.uint8]:
    """Return (HEIGHT, WIDTH, 3) pixels with amplitudes that fall with the frequency as those of photographs do."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)[None])
    frequency[0, 0] = 1
    planes = []
    for contrast in (50.0, 12.0, 12.0):
        phase = np.exp(2j * np.pi * random.random(frequency.shape))
        plane = np.fft.irfft2(phase / frequency**1.3, s=(HEIGHT, WIDTH))
        planes.append(plane * (contrast / plane.std()))
    light, warm, green = planes
    pixels = np.stack([light + warm, light + green, light - warm - green], axis=-1) + 128
    eight_bits: npt.NDArray[np.uint8] = np.clip(pixels, 0, 255).astype(np.uint8)
    return eight_bits


def make_pictures(folder: Path, count: int) -> None:
    """Write the JPEGs, of about 350 kB each."""
    bases = [natural(seed) for seed in range(min(BASES, count))]
    for number in range(count):
        random = np.random.default_rng(number)
        base = np.roll(bases[number % len(bases)], random.integers(0, HEIGHT, 2), (0, 1))
        image = Image.fromarray(base[:: random.choice([-1, 1])])
        draw = ImageDraw.Draw(image)
        for _ in range(random.integers(3, 9)):
            x, y, size = (int(value) for value in random.integers((0, 0, 40), (WIDTH, HEIGHT, 500)))
            color = tuple(random.integers(0, 256, 3).tolist())
            shape = draw.ellipse if random.random() < 0.5 else draw.rectangle
            shape([x, y, x + size, y + size // 2], fill=color)
        image.save(folder / f"{number:06d}.jpg", quality=80)


def plain(path: Path) -> int:
    """Decode in full and filter, as most scripts do."""
    with Image.open(path) as image:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = (left, top, left + side, top + side)
        small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS, box)
    return small.width


def bare(path: Path, scaled_decode: int) -> int:
    """Decode as `shards build` does, without anything else: its limit."""
    return decode_image(path.read_bytes(), decoding(scaled_decode)).width


def decoding(scaled_decode: int) -> Decoding:
    return Decoding((SIDE, SIDE), "crop", (255, 255, 255), scaled_decode, 1 << 28, 16)


@contextlib.contextmanager
def in_processes(processes: int) -> Iterator[Callable[[Callable[[Path], int], list[Path]], float]]:
    """Yield what returns the seconds that some processes, started before, need for a function of all pictures."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        list(pool.map(plain, [], chunksize=1))

        def measure(function: Callable[[Path], int], paths: list[Path]) -> float:
            list(pool.map(function, paths[: 2 * processes]))  # starts the processes, and imports
            started = time.perf_counter()
            list(pool.map(function, paths, chunksize=4))
            return time.perf_counter() - started

        yield measure


def build(source: Path, workers: int, sizes: Sequence[str] = (str(SIDE),)) -> float:
    """Return the seconds of the whole command, its start included."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "shards", "build", str(source), "--out", f"{out}/shards", "--size", *sizes]
        options = ["--workers", str(workers)]
        started = time.perf_counter()
        subprocess.run([*command, *options], check=True, capture_output=True)
        return time.perf_counter() - started


def resizer(source: Path, processes: int) -> float:
    """Return the seconds of img2dataset's resizer, which lives in an environment of its own."""
    command = [str(PYTHON), str(Path(__file__).parent / "img2dataset_resizer.py"), str(source), str(SIDE)]
    done = subprocess.run([*command, str(processes)], check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


def dataset_tool(source: Path) -> float:
    """Return the pictures per second of StyleGAN2-ADA's dataset_tool, as it stands: one process, a zip of PNGs."""
    count = min(FEW, sum(1 for _ in source.iterdir()))
    with tempfile.TemporaryDirectory() as out:
        command = [str(PYTHON), str(TOOL), "--source", str(source), "--dest", f"{out}/dataset.zip"]
        options = [
            "--transform",
            "center-crop",
            "--width",
            str(SIDE),
            "--height",
            str(SIDE),
            "--max-images",
            str(count),
        ]
        started = time.perf_counter()
        subprocess.run([*command, *options], check=True, capture_output=True)
        return count / (time.perf_counter() - started)


def one_turn(source: Path, paths: list[Path]) -> dict[str, float]:
    """Run everything once and return pictures per second."""
    seconds = {}
    for processes in (1, 2):
        with in_processes(processes) as measure:
            few = paths[:FEW]
            seconds[f"plain {processes}"] = measure(plain, few) * len(paths) / len(few)
            seconds[f"bare {processes}"] = measure(partial(bare, scaled_decode=DEFAULT), paths)
        seconds[f"build {processes}"] = build(source, processes)
        if PYTHON.exists():
            seconds[f"peer {processes}"] = resizer(source, processes)
    speeds = {name: len(paths) / value for name, value in seconds.items()}
    if TOOL.exists():
        # One row in both columns: it has no processes.
        speeds["tool 1"] = speeds["tool 2"] = dataset_tool(source)
    return speeds


def throughput(source: Path, paths: list[Path], turns: int) -> None:
    """Print pictures per second and ratios."""
    speeds = [one_turn(source, paths) for _ in range(turns)]
    names = {
        "plain": "plain Pillow: full decode + Lanczos, no output",
        "bare": "the decoding of `shards build` and nothing else: its limit",
        "build": "`shards build`, whole command",
    }
    pairs = [("build", "plain"), ("build", "bare")]
    if TOOL.exists():
        names["tool"] = "StyleGAN2-ADA's dataset_tool, whole command, one process"
        pairs.append(("build", "tool"))
    if PYTHON.exists():
        names["peer"] = "img2dataset's resizer: cv2 area, JPEG, no output"
        pairs.append(("build", "peer"))
    else:
        print("(img2dataset is not measured: `make bench` sets up its environment)\n")
    print("| pictures/s, 2 megapixels to 64 px | 1 process | 2 processes |\n|---|---|---|")
    for key, name in names.items():
        print(f"| {name} | {cells(speeds, key)} |")
    for over, under in pairs:
        print(f"| **{names[over]} ÷ {under}** | {cells(speeds, over, under)} |")
    print(f"| two processes ÷ one, `shards build` | | {spread([s['build 2'] / s['build 1'] for s in speeds])} |\n")


def cells(speeds: list[dict[str, float]], over: str, under: str | None = None) -> str:
    """Return two cells of a table: a speed, or a ratio of two, in one process and in two."""
    return " | ".join(spread([s[f"{over} {n}"] / (s[f"{under} {n}"] if under else 1) for s in speeds]) for n in (1, 2))


def spread(values: list[float]) -> str:
    """Return median, least and greatest."""
    digits = 0 if median(values) > 20 else 2
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def several_sizes(paths: list[Path], turns: int) -> None:
    """Print what several sizes in one pass take beside a build each, of JPEGs and of the same pictures as PNGs."""
    print(f"| `--size {' '.join(SIZES)}`, one process | one pass ÷ a build each |\n|---|---|")
    with tempfile.TemporaryDirectory() as jpegs, tempfile.TemporaryDirectory() as pngs:
        for path in paths[:FEW]:
            shutil.copy(path, jpegs)
            Image.open(path).save(Path(pngs, path.name).with_suffix(".png"), compress_level=1)
        for name, pictures in (("JPEG", Path(jpegs)), ("PNG", Path(pngs))):
            ratios = []
            for _ in range(turns):
                together = build(pictures, 1, SIZES)
                ratios.append(together / sum(build(pictures, 1, (size,)) for size in SIZES))
            print(f"| {name} | {spread(ratios)} |")
    print()


def psnr(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> float:
    """Return the peak signal-to-noise ratio in dB, at most 99."""
    error = float(np.square(a.astype(np.float64) - b).mean())
    return min(99.0, 10 * np.log10(255**2 / error)) if error else 99.0


def fidelity(files: list[bytes]) -> None:
    """Print what scaled decoding costs and gains."""
    print("| `--scaled-decode` | PSNR against 0, median (worst) | ms a picture |\n|---|---|---|")
    exact = [decode_image(data, decoding(0)).pixels for data in files]
    for scaled_decode in (0, 8, 4, 3, 2, 1):
        started = time.perf_counter()
        pixels = [decode_image(data, decoding(scaled_decode)).pixels for data in files]
        ms = (time.perf_counter() - started) * 1e3 / len(files)
        values = [psnr(a, b) for a, b in zip(exact, pixels, strict=True)]
        what = f"{median(values):.1f} ({min(values):.1f}) dB" if scaled_decode else "exact"
        print(f"| {scaled_decode} | {what} | {ms:.1f} |")
    print()


def encodings(files: list[bytes]) -> None:
    """Print what each encoding costs."""
    pixels = [decode_image(data, decoding(DEFAULT)).pixels for data in files]
    print("| `--encode` | bytes a picture | PSNR, median (worst) | encode, ms | decode, ms |\n|---|---|---|---|---|")
    for name, encoding in ENCODINGS.items():
        started = time.perf_counter()
        encoded = [encoding.encode(picture) for picture in pixels]
        middle = time.perf_counter()
        decoded = np.empty((len(files), SIDE, SIDE, 3), dtype=np.uint8)
        for data, out in zip(encoded, decoded, strict=True):
            encoding.decode(data, out)
        times = (middle - started, time.perf_counter() - middle)
        values = [psnr(a, b) for a, b in zip(pixels, decoded, strict=True)]
        what = "exact" if min(values) == 99.0 else f"{median(values):.1f} ({min(values):.1f}) dB"
        size = sum(map(len, encoded)) / len(files)
        ms = [f"{seconds * 1e3 / len(files):.3f}" for seconds in times]
        print(f"| {name} | {size:,.0f} | {what} | {ms[0]} | {ms[1]} |")


def main() -> None:
    args = tyro.cli(Bench)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        make_pictures(source, args.pictures)
        paths = sorted(source.iterdir())
        size = sum(path.stat().st_size for path in paths) / len(paths)
        print(f"{len(paths)} JPEGs of {WIDTH} x {HEIGHT}, {size / 1e3:.0f} kB on average\n")
        throughput(source, paths, args.turns)
        several_sizes(paths, args.turns)
        files = [path.read_bytes() for path in paths[:60]]
        fidelity(files)
        encodings(files)


if __name__ == "__main__":
    main()

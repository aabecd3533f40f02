"""Films: frames to the bytes of a .gif, .webp or .mp4."""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from trainer.core.fields import Refused
from trainer.sampling.sampler import Images

KINDS = (".gif", ".webp", ".mp4")
PALETTE_PIXELS = 1 << 20  # from which the colours of a GIF are chosen
LEAST_FPS, MOST_FPS = 0.1, 50  # browsers show no more of a GIF
BEST_CRF, WORST_CRF = 16, 51  # of x264: 16 looks like the frames


def check_film(out: Path, fps: float, quality: int | None) -> None:
    """Check what a film is to be, before anything is generated for it.

    Raises:
        Refused: its file is of no kind that is known, it is too fast or slow, or ffmpeg is wanted and not there.
    """
    kind = out.suffix.lower()
    if kind not in KINDS:
        raise Refused(f"--out must be a .gif, a .webp or an .mp4, but is {out}")
    if not LEAST_FPS <= fps <= MOST_FPS:
        raise Refused(f"--fps must be from {LEAST_FPS} to {MOST_FPS}, but is {fps:g}")
    if quality is not None and (kind == ".gif" or not 1 <= quality <= 100):
        raise Refused(f"--quality is of a .webp or an .mp4, from 1 to 100, but is {quality} for {out.name}")
    if kind == ".mp4":
        find_ffmpeg()


def encode_film(frames: Images, kind: str, fps: float, loop: bool = True, quality: int | None = None) -> bytes:
    """Encode a film.

    Args:
        frames: (n, h, w, 3).
        kind: one of KINDS.
        fps: frames per second.
        loop: play for ever; an .mp4 leaves that to the player.
        quality: from 1 to 100; None: a .webp without loss, an .mp4 that looks so.

    Raises:
        Refused: ffmpeg is wanted and not there, or failed.
    """
    if kind == ".gif":
        return encode_gif(frames, fps, loop)
    return encode_webp(frames, fps, loop, quality) if kind == ".webp" else encode_mp4(frames, fps, quality)


def encode_gif(frames: Images, fps: float, loop: bool) -> bytes:
    """Encode a film with the 256 colours that fit all of it best, so that nothing flickers."""
    pixels = frames.reshape(1, -1, 3)
    palette = Image.fromarray(pixels[:, :: -(-pixels.shape[1] // PALETTE_PIXELS)]).quantize(256)
    first, *rest = (Image.fromarray(frame).quantize(palette=palette) for frame in frames)
    file, repeat = io.BytesIO(), {"loop": 0} if loop else {}
    # Its times are in hundredths of a second.
    first.save(file, "GIF", save_all=True, append_images=rest, duration=10 * round(100 / fps), **repeat)
    return file.getvalue()


def encode_webp(frames: Images, fps: float, loop: bool, quality: int | None) -> bytes:
    """Encode a film, without loss if no quality is given."""
    first, *rest = (Image.fromarray(frame) for frame in frames)
    file = io.BytesIO()
    first.save(
        file,
        "WEBP",
        save_all=True,
        append_images=rest,
        duration=round(1000 / fps),
        loop=0 if loop else 1,
        lossless=quality is None,
        quality=quality or 80,  # without loss: how hard to try; 80 is Pillow's own
    )
    return file.getvalue()


def find_ffmpeg() -> str:
    """Return the path of ffmpeg: on the PATH, or that of the package imageio-ffmpeg.

    Raises:
        Refused: there is none.
    """
    if found := shutil.which("ffmpeg"):
        return found
    if find_spec("imageio_ffmpeg"):
        from imageio_ffmpeg import get_ffmpeg_exe

        try:
            return str(get_ffmpeg_exe())
        except RuntimeError:  # a package without its program
            pass
    raise Refused(
        "an .mp4 is made by ffmpeg, which is not here: install it with your system's packages, or with "
        "pip install imageio-ffmpeg; or name a .webp or a .gif, which need nothing"
    )


def mp4_arguments(size: tuple[int, int], fps: float, quality: int | None) -> list[str]:
    """Return what ffmpeg is told besides its input's and output's place, for frames of height and width `size`."""
    crf = BEST_CRF if quality is None else round(WORST_CRF * (1 - quality / 100))
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{size[1]}x{size[0]}", "-r", f"{fps:g}", "-i", "pipe:0"]
    # Browsers and phones show H.264 with halved colours only; the index in front lets a page begin to play at once.
    coding = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", str(crf), "-movflags", "+faststart"]
    # One thread and no version in the file: the same frames give the same bytes.
    return [*source, "-an", *coding, "-threads", "1", "-bitexact"]


def encode_mp4(frames: Images, fps: float, quality: int | None) -> bytes:
    """Encode a film by ffmpeg; frames of odd sides get a copy of their last row or column.

    Raises:
        Refused: there is no ffmpeg, or it failed.
    """
    program = find_ffmpeg()
    height, width = frames.shape[1:3]
    # Colours of half the size want even sides.
    frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "film.mp4"  # ffmpeg goes back in it, and cannot in a pipe
        command = [program, "-nostdin", "-v", "error", *mp4_arguments(frames.shape[1:3], fps, quality), str(file)]
        done = subprocess.run(command, input=frames.tobytes(), capture_output=True, check=False)
        if done.returncode or not file.exists():
            raise Refused(f"{program} could not make the film: {last_line(done.stderr)}")
        return file.read_bytes()


def last_line(output: bytes) -> str:
    """Return the last line of what a program said."""
    lines: Sequence[str] = output.decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")

"""Films: frames to the bytes of a .gif or .webp."""

from __future__ import annotations

import io

from PIL import Image

from trainer.sampling.sampler import Images

PALETTE_PIXELS = 1 << 20  # from which the colours of a GIF are chosen


def encode_film(frames: Images, kind: str, fps: float, loop: bool = True, quality: int | None = None) -> bytes:
    """Encode a film.

    Args:
        frames: (n, h, w, 3).
        kind: .gif or .webp.
        fps: frames per second.
        loop: play for ever.
        quality: of a .webp, from 1 to 100; None: without loss.
    """
    return encode_gif(frames, fps, loop) if kind == ".gif" else encode_webp(frames, fps, loop, quality)


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

"""Real videos, made with PyAV: what frame k shows is a function of k, so that it is known again."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import trees
from PIL import Image

LEVELS = 200
"""Grey levels that frames differ by, from 20 on"""


def grey(number: int, frames: int) -> int:
    """Of the frame of that number among so many."""
    return 20 + LEVELS * number // frames


def animated(path: Path, number: int, frames: int = 4) -> Path:
    """An animated picture, by the file's ending; with one frame, one that does not move."""
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = (trees.draw(10 * number + k) for k in range(frames))
    first.save(path, save_all=True, append_images=others, duration=40)
    return path


def two_colours(path: Path) -> Path:
    """An MP4 of twelve equal frames, 64 x 48, black on the left and red on the right, darker above
    than below."""
    av = pytest.importorskip("av")
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:24, 32:], pixels[24:, 32:] = (127, 0, 0), (255, 0, 0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(12):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def turn(path: Path) -> Path:
    """Let an MP4 say, as phones do, that it is to be shown turned by 90 degrees clockwise: the
    matrix in the header of its track."""
    content, one = bytearray(path.read_bytes()), 1 << 16
    matrix = 0, one, 0, -one, 0, 0, 0, 0, 1 << 30
    place = content.index(b"tkhd") + 44
    content[place : place + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(content)
    return path


def number_of(picture: Image.Image, frames: int) -> int:
    """The number of the frame that a picture is, or was before it was coded."""
    level = float(np.asarray(picture.convert("L"), dtype=float).mean())
    return min(range(frames), key=lambda k: abs(grey(k, frames) - level))


def video(
    path: Path, frames: int, *, codec: str = "mpeg4", rate: int = 10, every: int = 5,
    sound: float = 0.0,
) -> Path:  # fmt: skip
    """A video with a key frame in every so many, and seconds of silence beside it, if any."""
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.gop_size = every
        audio = container.add_stream("aac", rate=16000) if sound else None
        for k in range(frames):
            pixels = np.full((48, 64, 3), grey(k, frames), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
        if audio:
            for k in range(int(sound * 16000 / 1024)):
                silence = av.AudioFrame.from_ndarray(
                    np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
                )
                silence.sample_rate, silence.pts = 16000, 1024 * k
                silence.time_base = Fraction(1, 16000)
                container.mux(audio.encode(silence))
            container.mux(audio.encode())
    return path

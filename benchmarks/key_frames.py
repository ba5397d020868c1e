"""How much faster a clip is read from key frames than from its video.

Usage: ``python benchmarks/key_frames.py [--videos N] [--seconds S]``

Writes N videos (640 x 360, H.264 where PyAV has it, 30 frames a second) of moving noise and shapes
into a temporary folder, makes key frames of them as `radapter data frames` does, and reads 12
frames of each clip in one thread. Needs the extra `video`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import av
import numpy as np

from radapter.data.clip_files import find_clips
from radapter.data.key_frames import Settings, write_key_frames
from radapter.data.pixels import USUAL
from radapter.data.videos import Videos

WIDTH, HEIGHT, RATE = 640, 360, 30


def write(path: Path, seconds: int, seed: int) -> None:
    """A video in which all of the picture changes, with a key frame every four seconds."""
    random = np.random.default_rng(seed)
    ground = random.integers(0, 255, (HEIGHT // 8, 2 * WIDTH // 8, 3), dtype=np.uint8)
    ground = ground.repeat(8, axis=0).repeat(8, axis=1)
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.gop_size = 4 * RATE
        for k in range(seconds * RATE):
            pixels = np.roll(ground, 3 * k, axis=1)[:, :WIDTH]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def seconds_of(root: Path, names: list[str], frames: int) -> float:
    """To read the frames of one clip, on average."""
    clips = Videos(root, find_clips(root, names, 0), frames, "clip", USUAL)
    start = time.perf_counter()
    for index in range(len(names)):
        clips.read(index)
    return (time.perf_counter() - start) / len(names)


def main() -> None:
    """Print seconds a clip, both ways."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=15)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        videos, out = Path(scratch) / "videos", Path(scratch) / "frames"
        videos.mkdir()
        names = [f"{number}.mp4" for number in range(arguments.videos)]
        for number, name in enumerate(names):
            write(videos / name, arguments.seconds, number)
        start = time.perf_counter()
        write_key_frames(videos, out, Settings(frames=12))
        made = (time.perf_counter() - start) / len(names)
        decoded, read = seconds_of(videos, names, 12), seconds_of(out, names, 12)
    print(f"{arguments.seconds} s of {WIDTH} x {HEIGHT}, 12 frames a clip, one thread")
    print(f"from the video: {decoded:.3f} s a clip")
    print(f"from key frames: {read:.3f} s a clip, {decoded / read:.0f} times as fast")
    print(f"to make them: {made:.3f} s a clip")


if __name__ == "__main__":
    main()

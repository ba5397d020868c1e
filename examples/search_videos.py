"""Search a folder of videos with a bundle that `radapter export` wrote, without torch and radapter.

Type:

    pip install onnxruntime numpy Pillow tokenizers av     # av reads videos; GIF and WebP need none
    python search_videos.py BUNDLE VIDEOS "a dog runs on a beach"

Of a video 12 frames are read, from the middles of as many segments of equal length, and it is the
mean of their unit-norm features. With the bundle of a model of clips, as many are read as that
model takes, and the video is what `video_model.onnx` makes of them. The file `classify.py` has to
lie beside this one.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from classify import as_rgb, open_model, preprocess, text_features
from PIL import Image

ANIMATED = (".gif", ".webp", ".apng")
VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".webm")
FRAMES = 12


def shares(most: int) -> list[float]:
    """Where frames lie, as shares of the video."""
    return [(k + 0.5) / most for k in range(most)]


def of_animation(path: Path, most: int) -> list[Image.Image]:
    """The frames of an animated picture; all, if they are no more than that."""
    with Image.open(path) as picture:
        number = getattr(picture, "n_frames", 1)
        places = range(number) if number <= most else [int(s * number) for s in shares(most)]
        found = []
        for place in places:
            picture.seek(place)
            found.append(as_rgb(picture))
        return found


def turned(frame) -> Image.Image:
    """A frame as it is seen: turned as the file says, which phones write."""
    return frame.to_image().rotate(round(frame.rotation), expand=True)


def of_video(path: Path, most: int) -> list[Image.Image]:
    """The frames that are on screen at these times, each once."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        length = float(stream.duration * stream.time_base if stream.duration else 0)
        length = length or container.duration / 1e6
        start = float((stream.start_time or 0) * stream.time_base)
        times = [start + share * length for share in shares(most)]
        found, before = [], None
        for frame in container.decode(stream):
            shown = False
            while times and before is not None and frame.time > times[0]:
                times.pop(0)
                shown = True
            if shown:
                found.append(turned(before))
            before = frame
        return found + ([turned(before)] if times and before is not None else [])


def features(
    model, config: dict, frames: list[Image.Image], of_clips: bool, most: int
) -> np.ndarray:
    """Frames -> the unit-norm feature of their clip, [dim], by `video_model` or `vision_model`."""
    pixels = np.concatenate([preprocess(frame, config) for frame in frames])
    if of_clips:  # frames that are none are NaN
        clip = np.full((1, most, *pixels.shape[1:]), np.nan, dtype=np.float32)
        clip[0, : len(pixels)] = pixels
        return model.run(None, {"pixel_values_videos": clip})[0][0]
    mean = model.run(None, {"pixel_values": pixels})[0].sum(axis=0)
    return mean / np.linalg.norm(mean)


def main(bundle: Path, videos: Path, text: str, top: int) -> None:
    query = text_features(bundle, [text], "fp32")[0]
    frames = json.loads((bundle / "manifest.json").read_text("utf-8")).get("frames")
    config = json.loads((bundle / "preprocessor_config.json").read_text())
    most, of_clips = frames or FRAMES, frames is not None
    model = open_model(bundle, "video_model" if of_clips else "vision_model")
    found = []
    for path in sorted(videos.rglob("*")):
        if path.suffix.lower() not in (*ANIMATED, *VIDEOS):
            continue
        read = of_animation if path.suffix.lower() in ANIMATED else of_video
        try:
            images = read(path, most)
            if not images:
                raise ValueError("it has no frames")
        except ImportError:
            raise  # PyAV is not installed
        except Exception as error:  # Pillow's and PyAV's have no common base
            print(f"skipped: {path}: {error}", file=sys.stderr)
            continue
        own = features(model, config, images, of_clips, most)
        found.append((float(own @ query), path))
    for cosine, path in sorted(found, key=lambda pair: -pair[0])[:top]:
        print(f"{cosine:.3f}  {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("videos", type=Path)
    parser.add_argument("text")
    parser.add_argument("--top", type=int, default=10)
    main(**vars(parser.parse_args()))

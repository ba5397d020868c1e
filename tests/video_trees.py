"""Miniatures of published sets of videos: real folder, file and field names. A video is a folder of
two frames, as `radapter data frames` makes of it; `make` may write something else in its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import trees

Make = Callable[[Path, int], object]


def frames(path: Path, number: int) -> None:
    """A folder of frames in the place of a video."""
    for k in range(2):
        trees.jpeg(path.with_suffix("") / f"{k}.jpg", number + k)


def msr_vtt(root: Path, make: Make = frames) -> dict[str, int]:
    """Videos by split. Every one has two captions in MSRVTT_data.json, and in 1k-A one."""
    named = {"train": [f"video{i}" for i in (0, 1, 7020)], "test": ["video9770", "video7010"]}
    _lines(root / "MSRVTT_train.9k.csv", "video_id", *named["train"])
    _lines(root / "MSRVTT_train.7k.csv", "video_id", *named["train"][:2])
    rows = [f'ret{k},msr{n[5:]},{n},"test, {n}"' for k, n in enumerate(named["test"])]
    _lines(root / "MSRVTT_JSFUSION_test.csv", "key,vid_key,video_id,sentence", *rows)
    names = named["train"] + named["test"]
    videos = [{"category": 9, "url": "u", "video_id": n, "id": i, "split": "train",
               "start time": 1.0, "end time": 9.0} for i, n in enumerate(names)]  # fmt: skip
    sentences = [{"caption": f"{n} as {k}", "video_id": n, "sen_id": k}
                 for k in range(2) for n in names]  # fmt: skip
    content = {"info": {}, "videos": videos, "sentences": sentences}
    (root / "MSRVTT_data.json").write_text(json.dumps(content))
    for number, name in enumerate(names):
        make(root / "videos" / "all" / f"{name}.mp4", number)
    return {split: len(own) for split, own in named.items()}


def msvd(root: Path, make: Make = frames) -> dict[str, int]:
    """As the corpus comes: captions in AllVideoDescriptions.txt, several a video."""
    named = {"train": ["-4wsuPCjDBc_5_15", "00jrXRMlZOY_0_10"], "validation": ["bQJQGoJF7_k_1_2"],
             "test": ["eyhzdC936uk_15_27", "f-24IxG9ijw_25_40"]}  # fmt: skip
    said = ["# VideoID Descriptions", ""]
    for split, names in named.items():
        _lines(root / f"{'val' if split == 'validation' else split}_list.txt", *names)
        said += [f"{name} a thing seen {k} times" for k in range(3) for name in names]
    _lines(root / "AllVideoDescriptions.txt", *said)
    for number, name in enumerate(n for names in named.values() for n in names):
        make(root / "YouTubeClips" / f"{name}.avi", number)
    return {split: len(own) for split, own in named.items()}


def lsmdc(root: Path, make: Make = frames) -> dict[str, int]:
    """Ids with dots in them, in a folder for each film."""
    files = {"train": "LSMDC16_annos_training.csv", "validation": "LSMDC16_annos_val.csv",
             "test": "LSMDC16_challenge_1000_publictect.csv"}  # fmt: skip
    number = 0
    for split, name in files.items():
        rows = []
        for k in range(2):
            film = f"000{number}_American_Beauty"
            clip = f"{film}_00.00.51.92{k}-00.00.54.12{k}"
            rows.append(f"{clip}\t00.00.51.926\t00.00.54.129\t1\t2\tSOMEONE turns {split} {k}.")
            make(root / "videos" / film / f"{clip}.avi", number)
            number += 1
        _lines(root / name, *rows)
    return {"train": 2, "validation": 2, "test": 2}


def didemo(root: Path, make: Make = frames) -> dict[str, int]:
    """Three descriptions a video, not one after the other."""
    number = 0
    for name in ("train", "val", "test"):
        videos = [f"1001556{number + k}@N08_36550842{k}_d8b58466fa.mov" for k in range(2)]
        _lines(root / f"{name}_list.txt", *videos)
        entries = [{"description": f"moment {k} of {v}", "video": v, "times": [[0, 0]],
                    "annotation_id": 9, "num_segments": 6, "dl_link": "u"}
                   for k in range(3) for v in (*videos, "in_no_list.avi")]  # fmt: skip
        (root / f"{name}_data.json").write_text(json.dumps(entries))
        for video in videos:
            make((root / "videos" / video).with_suffix(".mp4"), number)
            number += 1
    return {"train": 2, "validation": 2, "test": 2}


def activitynet(root: Path, make: Make = frames) -> dict[str, int]:
    number = 0
    for name in ("train", "val_1"):
        entries = {}
        for _ in range(2):
            video = f"v_QOlSCBRmfW{number}"
            entries[video] = {"duration": 82.7, "timestamps": [[0, 9], [9, 20]],
                              "sentences": [f"First {number}. ", " Then more."]}  # fmt: skip
            make(root / "videos" / f"{video}.mp4", number)
            number += 1
        (root / f"{name}.json").write_text(json.dumps(entries))
    return {"train": 2, "test": 2}


def ucf101(root: Path, make: Make = frames) -> dict[str, int]:
    classes = ("ApplyEyeMakeup", "Archery", "YoYo")
    lists = root / "ucfTrainTestlist"
    _lines(lists / "classInd.txt", *(f"{k + 1} {name}" for k, name in enumerate(classes)))
    train = [f"{name}/v_{name}_g08_c0{k}.avi" for name in classes for k in range(2)]
    test = [f"{name}/v_{name}_g01_c01.avi" for name in classes[:2]]
    _lines(lists / "trainlist01.txt", *(f"{v} {classes.index(v.split('/')[0]) + 1}" for v in train))
    _lines(lists / "testlist01.txt", *test)
    for number, video in enumerate(train + test):
        make(root / "UCF-101" / video, number)
    return {"train": len(train), "test": len(test)}


def moments_in_time(root: Path, make: Make = frames) -> dict[str, int]:
    categories = {"playing+music": 1, "aiming": 0, "yawning": 2}
    _lines(root / "moments_categories.txt", *(f"{n},{i}" for n, i in categories.items()))
    for number, part in enumerate(("training", "validation")):
        videos = [
            (f"{name}/yt-xyz_{k}.mp4", name) for name in categories for k in range(number + 1)
        ]
        _lines(root / f"{part}Set.csv", *(f"{video},{name},3,0" for video, name in videos))
        for k, (video, _) in enumerate(videos):
            make(root / part / video, 10 * number + k)
    return {"train": 3, "test": 6}


def _lines(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")

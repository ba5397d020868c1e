"""The commands that the first pages show are run, on small folders and with a tiny model.

Blocks that need a GPU, a download or an installation are not: see `test_commands`.
"""

import glob
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from video_files import animated

from .pages import ROOT, blocks, simple_commands

PAGES = ["README.md", "docs/getting-started.md", "docs/own-data.md"]
WITH_A_RUN = (
    "merge", "export", "eval", "predict", "embed", "search", "compare", "report", "runs", "bench"
)  # fmt: skip


def split_folders(folder):
    for split in ("train", "test"):
        tiny.draw_shapes(folder / split, each=20)


def classes_called_like_splits(folder):
    tiny.draw_shapes(folder, each=20)
    (folder / "red_square").rename(folder / "train")


def classes_and_captions(folder):
    tiny.draw_shapes(folder, each=20)
    for picture in folder.rglob("*.png"):
        picture.with_suffix(".txt").write_text(f"a {picture.parent.name} on grey, {picture.stem}\n")


OTHER_FOLDERS = {
    "--split train": split_folders,
    "--split none": classes_called_like_splits,
    "--task captions": classes_and_captions,
}
"""What my-data/ is where `radapter init my-data/` takes an option"""


@pytest.fixture
def reader(own_folder, cli, small, tiny_folder, monkeypatch):
    """`reader(line)` runs a command of the documentation as its reader does: what goes wrong."""
    lines = ["filepath,title"]
    for number in range(20):
        tiny_picture(own_folder / "photos" / f"photo-{number:02d}.png", number)
        lines.append(f"photo-{number:02d}.png,a picture in colour {number}")
    (own_folder / "captions.csv").write_text("\n".join(lines) + "\n")
    lines = ["video,caption"]
    for number in range(20):
        animated(own_folder / "videos" / f"clip-{number:02d}.gif", number)
        lines.append(f"clip-{number:02d}.gif,a thing that moves {number}")
    (own_folder / "videos.csv").write_text("\n".join(lines) + "\n")
    tiny_picture(own_folder / "bicycle.jpg", 0)  # of which search wants something changed

    def radapter(*words):
        outcome = cli(*words)
        assert outcome.code == 0, f"radapter {' '.join(words)}: {outcome.err}"
        return outcome

    def init(words):
        text = " ".join(words)
        drawn = next((draw for option, draw in OTHER_FOLDERS.items() if option in text), None)
        with monkeypatch.context() as patch:
            if drawn:
                folder = own_folder / re.sub(r"\W+", "-", text)
                drawn(folder / "my-data")
                patch.chdir(folder)
            for path in Path().glob("*.yaml"):
                path.unlink()  # each line that shows init is one way to begin
            radapter(*words)
            (path,) = Path().glob("*.yaml")
            found = re.sub(r"^model: .*$", f"model: {tiny_folder}", path.read_text(), flags=re.M)
            path.write_text(found)

    def read(line):
        for program, *words in simple_commands(line):
            if program == "python":
                done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
                assert done.returncode == 0, done.stderr
                continue
            assert program == "radapter", f"mark what this needs: {line}"
            words = [w for word in words for w in (sorted(glob.glob(word)) or [word])]
            if words[0] == "init":
                init(words)
                continue
            if "my-data.yaml" in words and not Path("my-data.yaml").exists():
                init(["init", "my-data/"])
            if words[0] in WITH_A_RUN and not Path("runs").exists():
                read("radapter train my-data.yaml")
                radapter("merge")
            radapter(*words, *(small if words[0] == "train" and "--resume" not in words else ()))

    return read


def tiny_picture(path, number):
    tiny.Image.new("RGB", (40, 36), (12 * number, 90, 200 - 9 * number)).save(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PAGES if (ROOT / name).exists()])
def test_the_commands_of_a_page_run_one_after_the_other(name, reader):
    for block in blocks(ROOT / name):
        if block.needs <= {"own data"}:
            for line in block.commands():
                reader(line)


@pytest.mark.slow
def test_a_command_that_fails_is_seen(reader):
    with pytest.raises(AssertionError, match="No such option"):
        reader("radapter train my-data.yaml --dryrun")

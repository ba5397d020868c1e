"""Several pictures, beginnings of names, folders with spaces, pipes, an early Ctrl-C."""

import json
import shlex
import shutil
import subprocess
import sys
import time

import pytest

from radapter.errors import BrokenInput, UsageError, command
from radapter.files import write_atomic
from radapter.run import Run, find
from radapter_cli import console


def test_predict_takes_several_pictures_and_folders(cli, merged, shapes, tmp_path):
    shutil.copytree(shapes, tmp_path / "photos")
    (tmp_path / "photos" / "notes.heic").write_bytes(b"x")
    two = ["photos/red_square/00.png", "photos/blue_circle/01.png"]
    outcome = cli("predict", *two, "photos/red_square", "--json")
    content = json.loads(outcome.out)
    assert [row["picture"] for row in content["pictures"]][:2] == two
    names = [row["picture"] for row in content["pictures"]]
    assert len(names) == len(set(names)) == 1 + len(list((shapes / "red_square").iterdir()))
    one = json.loads(cli("predict", two[0], "--json").out)["pictures"][0]["labels"]
    assert [row["label"] for row in content["pictures"][0]["labels"]] == [
        row["label"] for row in one
    ]
    outcome = cli("predict", "gone.jpg", two[0], "away/")
    assert outcome.code == 4
    assert "No such picture, folder or table: gone.jpg, away/." in outcome.err


def test_search_names_files_that_can_be_opened(cli, merged, shapes, tmp_path):
    shutil.copytree(shapes, tmp_path / "in" / "photos")
    assert cli("embed", "in/photos", "--out", "out/f.safetensors").code == 0
    found = json.loads(cli("search", "red", "--in", "out/f.safetensors", "--json").out)["results"]
    assert all((tmp_path / row["path"]).is_file() for row in found)
    assert found[0]["path"] == f"in/photos/{found[0]['picture']}"
    assert found[0]["path"] in cli("search", "red", "--in", "out/f.safetensors").out
    (tmp_path / "in" / "photos").rename(tmp_path / "moved")
    found = json.loads(cli("search", "red", "--in", "out/f.safetensors", "--json").out)["results"]
    assert found[0]["path"] == found[0]["picture"]


def test_embed_takes_pictures_that_were_added(cli, merged, shapes, tmp_path):
    shutil.copytree(shapes, tmp_path / "photos")
    (tmp_path / "photos" / "red_square" / "00.png").rename(tmp_path / "later.png")
    cli("embed", "photos", "--out", "f.safetensors")
    (tmp_path / "later.png").rename(tmp_path / "photos" / "later.png")
    outcome = cli("embed", "photos", "--out", "f.safetensors")
    assert outcome.code == 0
    before = len(list(shapes.rglob("*.png"))) - 1
    assert "1 pictures in" in outcome.err
    assert f"{before} kept from before" in outcome.err
    assert "Up to date" in cli("embed", "photos", "--out", "f.safetensors").out


def test_a_run_by_the_beginning_of_its_name(cli, merged, tmp_path):
    assert find(merged.name[:-3], tmp_path / "runs").path == merged.path
    shutil.copytree(merged.path, merged.path.with_name(f"{merged.name}-b"))
    with pytest.raises(UsageError, match="2 runs begin with tiny"):
        find("tiny", tmp_path / "runs")
    assert find(merged.name, tmp_path / "runs").path == merged.path
    with pytest.raises(BrokenInput, match="No run at other"):
        find("other", tmp_path / "runs")
    assert cli("runs", "show", merged.name[:-2], "--json").code == 2


def test_names_of_runs_are_completed(merged, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert console.complete_run(merged.name[:4]) == [merged.name]
    assert console.complete_run("no") == []


def test_a_printed_command_can_be_pasted(cli, trained, tmp_path):
    place = shutil.copytree(trained.path, tmp_path / "my runs" / "it's mine")
    words = shlex.split(cli("merge", "--run", place).err.split("Next: ")[1])
    assert words == ["radapter", "export", "--run", str(place)]
    assert shlex.split(command("merge", "--run", place)) == [
        "radapter",
        "merge",
        "--run",
        str(place),
    ]
    (place / "merged" / "current").unlink()
    with pytest.raises(BrokenInput) as caught:
        Run(place).merged()
    assert f"radapter merge --run {shlex.quote(str(place))}" in str(caught.value)


def test_nothing_is_cut_in_a_pipe(cli, trained):
    name = trained.path.with_name("a-run-with-a-name-" + "x" * 120 + "-20260101T000000Z-abcdef")
    trained.path.rename(name)
    assert name.name in cli("runs").out


def test_a_folder_that_cannot_be_written_is_named_as_the_user_knows_it(tmp_path, monkeypatch):
    def refuse(source, target):
        raise PermissionError(13, "Permission denied", str(source))

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(PermissionError) as caught:
        write_atomic(tmp_path / "result.json", "{}")
    assert caught.value.filename == str(tmp_path / "result.json")


def test_a_rate_is_said_when_it_means_something(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    lines = []
    monkeypatch.setattr(console, "note", lines.append)
    with console.progress("embed") as update:
        update(0, 100, "")
        now[0] = 0.001
        update(64, 100, "")
        now[0] = 30.0
        update(70, 100, "")
        now[0] = 60.0
        update(100, 100, "")
    assert lines == ["embed: 70/100 2.3/s", "embed: 100/100 1.7/s"]


EARLY = """
import builtins, sys
imported = builtins.__import__
def interrupt(name, *arguments, **more):
    if name == "typer":
        raise KeyboardInterrupt
    return imported(name, *arguments, **more)
builtins.__import__ = interrupt
sys.argv = ["radapter", "runs"]
from radapter_cli.__main__ import run
run()
"""


def test_ctrl_c_before_anything_is_imported():
    done = subprocess.run([sys.executable, "-c", EARLY], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "Interrupted.\n")


def test_python_m_radapter_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "radapter", "runs", "nothing"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "Known: list, show" in done.stderr

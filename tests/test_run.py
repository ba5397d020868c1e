import contextlib
import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import tiny

from radapter import files
from radapter import recipe as recipes
from radapter import run as runs
from radapter.errors import BrokenInput

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def recipe(tmp_path):
    return recipes.parse(tiny.text(tmp_path / "model", tmp_path / "pictures"))


def names(folder):
    """Everything in a folder, hidden files too."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


def fail(monkeypatch, name, after=0):
    """Let a function of `os` raise after so many calls."""
    real, calls = getattr(os, name), []

    def failing(*args, **kwargs):
        calls.append(args)
        if len(calls) > after:
            raise FULL
        return real(*args, **kwargs)

    monkeypatch.setattr(os, name, failing)


# ------------------------------------------------------------------ writing


@pytest.mark.parametrize("data", ["text Ω", b"bytes", ""])
def test_a_file_is_written_and_replaced(tmp_path, data):
    path = tmp_path / "deep" / "file.txt"
    for content in ("before", data):
        files.write_atomic(path, content)
    assert path.read_bytes() == (data.encode() if isinstance(data, str) else data)
    assert names(path.parent) == ["file.txt"]


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("old", [None, "old"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, function, old):
    path = tmp_path / "file"
    if old:
        path.write_text(old)
    fail(monkeypatch, function)
    with pytest.raises(OSError, match="No space"):
        files.write_atomic(path, "new")
    assert names(tmp_path) == (["file"] if old else [])
    assert not old or path.read_text() == old


def test_a_write_that_stops_midway_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")

    class Half:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, data):
            self.file.write(data[:2])
            raise FULL

    monkeypatch.setattr(
        files, "open", lambda *a: Half(open(*a)), raising=False  # noqa: SIM115
    )  # fmt: skip
    with pytest.raises(OSError, match="No space"):
        files.write_atomic(path, "new content")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def fill(path, content):
    with files.new_folder(path) as folder:
        assert folder.parent == path.parent  # a rename within one file system
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_text(content)
        (folder / "b").write_text(content)


def test_a_folder_is_made_whole_and_replaced_whole(tmp_path):
    path = tmp_path / "x" / "folder"
    for content in ("one", "two"):
        fill(path, content)
        assert names(path.parent) == ["folder", "folder/b", "folder/sub", "folder/sub/a"]
        assert (path / "b").read_text() == (path / "sub" / "a").read_text() == content


@pytest.mark.parametrize(
    ("function", "after"), [("fsync", 0), ("fsync", 1), ("rename", 0), ("rename", 1)]
)
def test_a_failure_leaves_the_old_folder(tmp_path, monkeypatch, function, after):
    path = tmp_path / "folder"
    fill(path, "old")
    with monkeypatch.context() as patch:
        real, calls = getattr(os, function), []

        def failing(*args):
            calls.append(args)
            if len(calls) == after + 1:
                raise FULL
            return real(*args)

        patch.setattr(os, function, failing)
        with pytest.raises(OSError, match="No space"):
            fill(path, "new")
    assert names(tmp_path) == ["folder", "folder/b", "folder/sub", "folder/sub/a"]
    assert (path / "b").read_text() == (path / "sub" / "a").read_text() == "old"


def test_a_failure_leaves_no_new_folder(tmp_path):
    def half():
        with files.new_folder(tmp_path / "a") as folder:
            (folder / "half").write_text("x")
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        half()
    assert names(tmp_path) == []


@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize("moment", [0, 1, 2])
def test_a_kill_at_any_moment_leaves_the_old_or_the_new_folder(tmp_path, replaced, moment):
    """Killed before the n-th rename; the next start clears up."""
    script = f"""
import os, pathlib, signal
from radapter import files
from radapter import run as runs
path, calls, real = pathlib.Path({str(tmp_path)!r}) / "folder", [], os.rename
def rename(*args):
    calls.append(args)
    if len(calls) > {moment}:
        os.kill(os.getpid(), signal.SIGKILL)
    real(*args)
if {replaced}:
    with files.new_folder(path) as folder:
        (folder / "a").write_text("old")
os.rename = rename
with files.new_folder(path) as folder:
    (folder / "a").write_text("new")
"""
    done = subprocess.run([sys.executable, "-c", script], check=False)
    renames = 2 if replaced else 1
    assert done.returncode == (-signal.SIGKILL if moment < renames else 0)
    files.clear_temporary(tmp_path)
    content = "new" if moment >= renames else "old"
    if replaced or content == "new":
        assert names(tmp_path) == ["folder", "folder/a"]
        assert (tmp_path / "folder" / "a").read_text() == content
    else:
        assert names(tmp_path) == []


def test_clearing_up_removes_only_temporary_things(tmp_path):
    fill(tmp_path / "folder", "kept")
    (tmp_path / ".folder.0123abcd.tmp").mkdir()
    (tmp_path / ".folder.0123abcd.tmp" / "x").write_text("half")
    (tmp_path / "folder" / ".b.0123abcd.tmp").write_text("half")
    (tmp_path / ".folder.89abcdef.old").mkdir()
    (tmp_path / ".lock").write_text("")
    (tmp_path / "notes.tmp").write_text("mine")
    files.clear_temporary(tmp_path)
    assert names(tmp_path) == [
        ".lock", "folder", "folder/b", "folder/sub", "folder/sub/a", "notes.tmp",
    ]  # fmt: skip


def test_clearing_up_one_name_leaves_others_alone(tmp_path):
    for name in (".ours_vision.0123abcd.tmp", ".ours_text.0123abcd.tmp", ".theirs.tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / ".ours_vision.89abcdef.old").mkdir()
    files.clear_temporary(tmp_path, "ours_vision.*")
    assert names(tmp_path) == [".ours_text.0123abcd.tmp", ".theirs.tmp", "ours_vision"]


def test_a_read_only_place(tmp_path, monkeypatch):
    """As a user; root may write anywhere, so the refusal is the system's own, simulated."""

    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files, "open", refuse, raising=False)
    with pytest.raises(PermissionError):
        files.write_atomic(tmp_path / "a", "x")
    assert names(tmp_path) == []


# ------------------------------------------------------------------ finding


def test_a_new_run_holds_its_recipe(tmp_path, recipe):
    before = datetime.now(UTC).replace(microsecond=0)
    run = runs.create(recipe, tmp_path / "runs")
    assert names(run.path) == ["recipe.yaml"]
    assert run.recipe() == recipe
    assert before <= run.created <= datetime.now(UTC)
    assert run.name.startswith("tiny-")
    assert runs.create(recipe, tmp_path / "runs").path != run.path


def test_a_run_that_cannot_be_written_leaves_nothing(tmp_path, recipe, monkeypatch):
    fail(monkeypatch, "fsync")
    with pytest.raises(OSError, match="No space"):
        runs.create(recipe, tmp_path / "runs")
    assert names(tmp_path / "runs") == []


def make(root, name):
    (root / name).mkdir(parents=True)
    (root / name / "recipe.yaml").write_text("name: x\n")
    return root / name


def test_runs_are_ordered_by_their_time_not_their_name(tmp_path):
    order = [
        "zeta-20240101T000000Z-aaaaaa",
        "my-emoji-run-20240101T000001Z-ffffff",
        "emoji-20240102T000000Z-000000",
        "alpha-20250101T000000Z-000000",
    ]
    for name in reversed(order):
        make(tmp_path, name)
    make(tmp_path, ".alpha-20300101T000000Z-000000.0123abcd.tmp")
    (tmp_path / "no-run-20310101T000000Z-000000").mkdir()
    assert [run.name for run in runs.all_runs(tmp_path)] == order
    assert runs.find(root=tmp_path).name == order[-1]
    assert runs.Run(tmp_path / order[1]).created == datetime(2024, 1, 1, 0, 0, 1, tzinfo=UTC)


def test_runs_of_one_second_are_ordered_by_when_they_were_written(tmp_path):
    now = datetime.now().timestamp()
    for number, end in enumerate(["cc", "aa", "bb"]):
        path = make(tmp_path, f"x-20240101T000000Z-{end}")
        moment = now + timedelta(milliseconds=number).total_seconds()
        os.utime(path / "recipe.yaml", (moment, moment))
    assert [run.name[-2:] for run in runs.all_runs(tmp_path)] == ["cc", "aa", "bb"]


def test_a_run_by_path_and_by_name(tmp_path):
    path = make(tmp_path, "a-20240101T000000Z-aaaaaa")
    make(tmp_path, "b-20250101T000000Z-aaaaaa")
    assert runs.find(path).path == path
    assert runs.find(path.name, tmp_path).path == path
    with pytest.raises(BrokenInput, match=r"No run at nowhere\. `radapter runs`"):
        runs.find("nowhere", tmp_path)


def test_no_run_at_all_names_the_command(tmp_path):
    for root in (tmp_path, tmp_path / "missing"):
        with pytest.raises(BrokenInput, match="Type first: radapter train RECIPE"):
            runs.find(root=root)
        assert runs.all_runs(root) == []


# ------------------------------------------------------------------ what a run lacks


def test_messages_name_the_command_to_type(tmp_path, recipe):
    run = runs.create(recipe, tmp_path)
    resume = f"Type first: radapter train --resume {run.path}"
    for step in (run.trained, run.merged):
        with pytest.raises(BrokenInput, match="has not finished training") as caught:
            step()
        assert resume in str(caught.value)
        assert caught.value.exit_code == 4
    run.adapter.write_bytes(b"x")
    assert run.trained() == run.adapter
    merge = f"Type first: radapter merge --run {run.path}"
    with pytest.raises(BrokenInput, match="has no merged model") as caught:
        run.merged()
    assert merge in str(caught.value)
    files.write_atomic(run.path / "merged" / "current", "alpha-0.50\n")
    with pytest.raises(BrokenInput, match="names a folder that does not exist") as caught:
        run.merged()
    assert merge in str(caught.value)
    (run.path / "merged" / "alpha-0.50").mkdir()
    assert run.merged() == run.path / "merged" / "alpha-0.50"


@pytest.mark.parametrize("name", ["../outside", "/", "..", ".", ""])
def test_a_pointer_that_leads_out_of_its_folder_is_refused(tmp_path, recipe, name):
    run = runs.create(recipe, tmp_path)
    run.adapter.write_bytes(b"x")
    (run.path / "outside").mkdir()
    files.write_atomic(run.path / "merged" / "current", name)
    with pytest.raises(BrokenInput, match="names a folder that does not exist"):
        run.merged()


def test_a_damaged_recipe_and_a_folder_that_is_no_run(tmp_path, recipe):
    run = runs.create(recipe, tmp_path)
    (run.path / "recipe.yaml").write_text("name: [")
    with pytest.raises(BrokenInput, match="recipe is damaged") as caught:
        run.recipe()
    assert caught.value.exit_code == 4
    with pytest.raises(BrokenInput, match="Not a run folder"):
        runs.Run(tmp_path).recipe()


def test_bundles_are_named_by_the_merged_weights(tmp_path):
    run = runs.Run(tmp_path)
    paths = {run.bundle_for(end * 32) for end in ("ab", "cd")}
    assert len(paths) == 2
    assert {path.parent for path in paths} == {tmp_path / "bundles"}


# ------------------------------------------------------------------ locking

HOLD = """
import pathlib, sys, time
from radapter.run import Run
with Run(pathlib.Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def held(path):
    """Another process that holds the run until its standard input closes."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.stdin.close()
        process.wait(timeout=60)


@pytest.mark.parametrize("end", ["done", "killed"])
def test_a_run_is_written_by_one_process_at_a_time(tmp_path, recipe, end):
    run = runs.create(recipe, tmp_path)
    with held(run.path) as process:
        with pytest.raises(BrokenInput) as caught, run.lock():
            pytest.fail("two processes hold one run")
        assert f"(pid {process.pid} on {socket.gethostname()}, since 2" in str(caught.value)
        assert "is being written by another process" in str(caught.value)
        if end == "killed":
            process.kill()
            process.wait(timeout=60)
            with run.lock():
                pass
    with run.lock():
        pass


def test_a_lock_is_given_back_on_an_error(tmp_path, recipe):
    run = runs.create(recipe, tmp_path)
    with pytest.raises(ValueError, match="mine"), run.lock():
        raise ValueError("mine")
    with run.lock(), pytest.raises(BrokenInput, match="another process"), run.lock():
        pass


def test_who_writes_is_gone_with_the_lock(tmp_path, recipe):
    run = runs.create(recipe, tmp_path)
    with run.lock():
        assert names(run.path) == [".lock", ".writer", "recipe.yaml"]
    assert names(run.path) == [".lock", "recipe.yaml"]


def test_a_writer_on_another_machine_that_did_not_finish(tmp_path, recipe, recwarn):
    """Where locks do not pass between machines, its file is all that is known."""
    run = runs.create(recipe, tmp_path)
    facts = '{"pid": 7, "host": "elsewhere", "since": "2026-01-01T00:00:00+00:00"}'
    (run.path / ".writer").write_text(facts)
    expected = "by pid 7 on elsewhere, since 2026.* did not finish"
    with pytest.warns(UserWarning, match=expected), run.lock():
        pass
    for damaged in ("", "[]", "{}"):
        (run.path / ".writer").write_text(damaged)
        with run.lock():
            pass
    assert not recwarn.list


def test_the_lock_clears_what_a_killed_process_left(tmp_path, recipe):
    run = runs.create(recipe, tmp_path)
    for folder in ("merged", "bundles", "checkpoints"):
        fill(run.path / folder / "kept", "kept")
        shutil.copytree(run.path / folder / "kept", run.path / folder / ".kept.0123abcd.tmp")
    fill(run.path / "eval", "kept")
    (run.path / "eval" / ".result.json.0123abcd.tmp").write_text("half")
    shutil.move(run.path / "merged" / "kept", run.path / "merged" / ".kept.89abcdef.old")
    with run.lock():
        pass
    assert not [name for name in names(run.path) if name.endswith((".tmp", ".old"))]
    for folder in ("merged/kept", "bundles/kept", "checkpoints/kept", "eval"):
        assert (run.path / folder / "b").read_text() == "kept"
    run.adapter.write_bytes(b"x")
    with run.lock():
        assert not run.checkpoints.exists()


def test_a_run_that_a_kill_left_half_made_is_removed_once_it_is_old(tmp_path, recipe):
    for name, age in (("old", 2 * runs.UNBORN_SECONDS), ("young", 5.0)):
        path = make(tmp_path, f".tiny-20240101T000000Z-{name}.0123abcd.tmp")
        os.utime(path, times=(time.time() - age,) * 2)
    runs.create(recipe, tmp_path)
    left = [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert left == [".tiny-20240101T000000Z-young.0123abcd.tmp"]


AS_NOBODY = """
import os, pathlib, sys
from radapter import recipe as recipes
from radapter import files
from radapter import run as runs
from radapter.errors import BrokenInput
path = pathlib.Path(sys.argv[1])
recipe = recipes.load(path / "recipe.yaml")
if os.getuid() == 0:
    os.setgid(65534), os.setuid(65534)  # root may write anywhere
try:
    with runs.Run(path).lock():
        sys.exit("it is locked")
except BrokenInput as error:
    print(error)
try:
    sys.exit(f"it is made: {runs.create(recipe, path)}")
except BrokenInput as error:
    print(error)
"""


@pytest.mark.slow
def test_a_run_folder_that_is_read_only(recipe):
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are for nobody else's eyes
        Path(folder).chmod(0o755)
        read_only(runs.create(recipe, Path(folder)))


def read_only(run):
    run.path.chmod(0o555)
    try:
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, str(run.path)],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        run.path.chmod(0o755)
    end = (
        f"{run.path} cannot be written to (Permission denied). "
        "Make it writable, or work on a copy in a place that is.\n"
    )
    assert done.stdout == f"The run folder {end}The folder for runs, {end}", done.stderr
    assert names(run.path) == ["recipe.yaml"]


def test_hash_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert files.file_hash(tmp_path / "a") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )

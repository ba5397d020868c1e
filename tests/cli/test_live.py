"""What is seen while training: the view by itself, then in a pseudo-terminal."""

import fcntl
import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time

import pytest
import tiny
from rich.console import Console

from radapter_cli import console, live


def metrics(step, **more):
    return {
        "step": step, "steps": 40, "loss": 1 / step, "lr": 2.5e-4, "start_share": 0.045,
        "seconds": 2.0 * step, "pairs_per_second": 50.0 if step == 1 else 1234.5,
        "peak_memory_bytes": 1_234_000_000, "memory_of": "cuda", **more,
    }  # fmt: skip


def validation(step, value, best_step):
    return {
        "validation": {"accuracy": value}, "metric": "accuracy", "alpha": 0.5,
        "best_step": best_step, "validation_seconds": 1.0,
    }  # fmt: skip


def screen(view, width=100, height=40, encoding="utf-8"):
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="")
    terminal = Console(file=file, width=width, height=height, force_terminal=True, no_color=True)
    terminal.print(view)
    file.flush()
    return re.sub(r"\x1b\[[0-9;]*m", "", file.buffer.getvalue().decode(encoding))


@pytest.fixture
def view(monkeypatch):
    """After nine steps of three seconds."""
    view, now = live.View(), [0.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    for step in range(1, 10):
        now[0] += 3
        view.step(metrics(step))
    return view


def test_everything_is_there(view):
    view.step(metrics(10, data_wait_share=0.07, **validation(10, 0.5, 10)))
    view.step(metrics(11, data_wait_share=0.07))
    view.step(metrics(12, data_wait_share=0.07, **validation(12, 0.4567, 10)))
    text = screen(view)
    for part in (
        "12/40  30%", "loss 0.0833", "learning rate 2.5e-04", "pairs/s 1,23",
        "memory 1.23 GB (cuda)",
        "average 4.5% is its zero start", "data 7% of time waiting",
        "validation class accuracy 45.7% at step 12, best 50.0% at step 10",
    ):  # fmt: skip
        assert part in text, text
    assert "⠉" in text or "⣀" in text


def test_what_is_not_known_is_not_shown(view):
    text = screen(view)
    assert "validation" not in text
    assert "data" not in text
    assert "preparing" in screen(live.View())
    assert "None" not in text


def test_the_time_left_is_that_of_the_steps_seen(view):
    assert "1 min 33 s left" in screen(view)  # 31 of 40


def test_the_rate_forgets_the_first_step(view):
    assert view.rate == pytest.approx(1234.5)


def test_while_scoring(view):
    view.scoring = (64, 1200)
    assert "validation scoring 64 of 1,200 pictures" in screen(view)
    view.step(metrics(10))
    assert "scoring" not in screen(view)


@pytest.mark.parametrize("width", [30, 60, 80, 200])
@pytest.mark.parametrize("height", [8, 12, 50])
def test_it_fits(view, width, height):
    view.step(metrics(10, data_wait_share=0.07, **validation(10, 0.5, 10)))
    lines = screen(view, width, height).splitlines()
    assert max(map(len, lines)) <= min(width, live.WIDEST)
    if width >= 60:
        assert len(lines) < height


def test_a_terminal_without_braille(view):
    assert screen(view, encoding="ascii").isascii()


def test_plain_lines_where_there_is_no_terminal(cli, recipe_file):
    more = ("data.hold_out=0.3", "monitor.every_epochs=1")
    outcome = cli("train", "tiny.yaml", *more)
    assert outcome.code == 0, outcome.err
    noted = [line for line in outcome.err.splitlines() if line.startswith("validation: ")]
    assert len(noted) == 3
    assert all(re.search(r"accuracy [\d.]+% at step \d, best [\d.]+%", line) for line in noted)
    assert "\x1b" not in outcome.err
    assert "best.safetensors" in outcome.out
    result = json.loads(cli("train", "tiny.yaml", *more, "--json").out)
    assert set(result["validation"]["validation"]) == {"accuracy"}


# ------------------------------------------------------------------ in a pseudo-terminal


class Terminal:
    """A command in a pseudo-terminal: both its streams, as bytes."""

    def __init__(self, folder, *arguments, **environment):
        self.seen = b""
        self.master, slave = pty.openpty()
        environment = {"TERM": "xterm", "OMP_NUM_THREADS": "1", **environment}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "radapter_cli", *arguments],
            cwd=folder,
            env={k: v for k, v in os.environ.items() if k != "NO_COLOR"} | environment,
            stdin=slave,
            stdout=subprocess.PIPE,
            stderr=slave,
            # Its controlling terminal, so that Ctrl-C is a signal.
            preexec_fn=lambda: (os.setsid(), fcntl.ioctl(0, termios.TIOCSCTTY, 0)),
        )
        os.close(slave)

    def until(self, words, limit=120):
        """Read until the words are there; b"" is the end of the process."""
        end = time.monotonic() + limit
        while not words or words not in self.seen:
            assert time.monotonic() < end, self.seen[-2000:]
            ready, _, _ = select.select([self.master], [], [], 0.1)
            try:
                data = os.read(self.master, 65536) if ready else b"-"
            except OSError:  # Linux says so at the end
                data = b""
            if not data:
                assert not words, self.seen[-2000:]
                break
            self.seen += data if ready else b""
        return self

    def press(self, key):
        os.write(self.master, key)

    def end(self):
        self.until(b"")
        out = self.process.stdout.read()
        return self.process.wait(timeout=60), out


@pytest.fixture
def start(tmp_path, tiny_folder, shapes):
    (tmp_path / "tiny.yaml").write_text(tiny.text(tiny_folder, shapes))
    return lambda *arguments, **more: Terminal(tmp_path, "train", "tiny.yaml", *arguments, **more)


HIDDEN, SHOWN = b"\x1b[?25l", b"\x1b[?25h"


@pytest.mark.slow
def test_a_terminal_sees_the_view_and_stdout_the_result(start):
    terminal = start("--json", NO_COLOR="1", COLUMNS="80", LINES="24")
    code, out = terminal.end()
    assert code == 0, terminal.seen
    assert b"pairs/s" in terminal.seen
    assert b"\x1b[3" not in terminal.seen  # no colours
    assert terminal.seen.rindex(SHOWN) > terminal.seen.rindex(HIDDEN)
    assert list(json.loads(out)) == ["schema_version", "ok", "run", "adapter", "last", "data"]


@pytest.mark.slow
@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_leaves_the_terminal_as_it_was(start, presses):
    terminal = start("optimisation.epochs=3000").until(b"pairs/s")
    for _ in range(presses):
        terminal.press(b"\x03")
        terminal.until(b"Stopping after this step")
    code, _ = terminal.end()
    assert code == 130
    assert terminal.seen.rindex(SHOWN) > terminal.seen.rindex(HIDDEN)
    text = terminal.seen.decode()
    assert "the state is saved" in text or (presses == 2 and "Interrupted." in text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.21, "3.2 s"), (200, "3 min 20 s"), (3 * 3600 + 300, "3 h 5 min"), (90 * 3600, "3 d 18 h")],
)
def test_long_times_are_short_to_read(seconds, text):
    assert console.seconds(seconds) == text

"""Printing: results on stdout, progress and logs on stderr, one JSON object with --json."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

SCHEMA_VERSION = 1
PLAIN_WIDTH = 1000  # of tables, where there is no terminal: nothing is cut
STEADY = 1.0  # seconds after which a rate says something
debug = False
brief = False  # what a command says beside its results and errors is left out

out = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)
err = Console(stderr=True, width=None if sys.stderr.isatty() else PLAIN_WIDTH, highlight=False)


def complete_run(incomplete: str) -> list[str]:
    """Names of runs under ./runs, for the shell."""
    from radapter.run import all_runs

    return [run.name for run in all_runs() if run.name.startswith(incomplete)]


RUN_HELP = "Run folder, or its name under ./runs or the beginning of it. Default: the newest."
RunOption = Annotated[str | None, typer.Option("--run", help=RUN_HELP, autocompletion=complete_run)]
DataRootOption = Annotated[
    str | None,
    typer.Option(
        "--data-root",
        envvar="RADAPTER_DATA",
        help="The folder that relative data paths start from. Default: the recipe's, else here.",
        callback=lambda value: (value and os.environ.update(RADAPTER_DATA=value)) or value,
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")
]


def note(message: str) -> None:
    """A line for the person at the terminal, on stderr."""
    if not brief:
        err.print(escape(message), style="dim", soft_wrap=True)


def error(message: str) -> None:
    err.print("[bold red]error:[/] " + escape(message), soft_wrap=True)


def result(message: str) -> None:
    """A line of the result, on stdout."""
    out.print(escape(message), soft_wrap=True)


def next_command(*words: object, why: str = "") -> None:
    """What to type next, at the end of every success, in words that can be pasted as printed."""
    if brief:
        return
    command, more = escape(shlex.join(map(str, words))), escape(f"   ({why})" if why else "")
    err.print(f"[dim]Next:[/] [bold]{command}[/]{more}", soft_wrap=True)


@contextmanager
def details(*, notes: bool, results: bool) -> Iterator[None]:
    """Whether commands inside show their notes and their results; progress, warnings and errors
    they do."""
    global brief
    before = brief, out.quiet
    brief, out.quiet = not notes, not results
    try:
        yield
    finally:
        brief, out.quiet = before


def only_the_first_process() -> None:
    """Silence all but the first of the processes that torchrun started."""
    out.quiet = err.quiet = os.environ.get("RANK", "0") != "0"


def print_json(content: dict[str, Any]) -> None:
    if not out.quiet:
        print(json.dumps({"schema_version": SCHEMA_VERSION, "ok": True} | content, default=str))


def seconds(duration: float) -> str:
    from radapter.reporting import terminal

    return terminal.duration(duration)


@contextmanager
def progress(what: str | None) -> Iterator[Callable[[int, int, str], None]]:
    """Report progress as `update(done, total, text)`; nothing is shown if there is no `what`.

    A bar with rate and time left on a terminal; elsewhere a line every 30 seconds. The rate is of
    what is done after the first report.
    """
    if what is None:
        yield lambda done, total, text: None
        return
    first: tuple[int, float] | None = None

    def rate(done: int) -> str:
        nonlocal first
        first = first or (done, time.monotonic())
        elapsed = time.monotonic() - first[1]
        steady = done > first[0] and elapsed >= STEADY
        return f"{(done - first[0]) / elapsed:.1f}/s" if steady else ""

    if not err.is_terminal:
        start = last = time.monotonic()

        def line(done: int, total: int, text: str) -> None:
            nonlocal last
            now, per_second = time.monotonic(), rate(done)
            if now - last >= 30 or (done == total and now - start > 2):
                last = now
                note(" ".join(filter(None, (f"{what}: {done}/{total}", per_second, text))))

        yield line
        return

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        Remaining(),
        TextColumn("[dim]{task.fields[text]}"),
    ]
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(what, total=None, text="", rate="")

        def update(done: int, total: int, text: str) -> None:
            bar.update(task, completed=done, total=total, text=text, rate=rate(done))

        yield update


def status(what: str) -> AbstractContextManager[Any]:
    """A spinner on a terminal, nothing elsewhere."""
    return err.status(escape(what)) if err.is_terminal else nullcontext()


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Python warnings of ours as one line each, those of libraries not at all."""
    import radapter

    ours = (str(Path(radapter.__file__).parent), str(Path(__file__).parent))

    def show(message: Any, category: Any, filename: str, *_: Any, **__: Any) -> None:
        if filename.startswith(ours) or debug:
            err.print(f"[yellow]warning:[/] {escape(str(message))}", soft_wrap=True)

    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = show
        yield

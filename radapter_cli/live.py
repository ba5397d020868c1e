"""What is seen while a model trains: a few lines that renew themselves, or plain lines."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from radapter_cli import console

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from radapter.run import Run
    from radapter.training import Plan

WIDEST = 78
"""Of lines: a terminal of 80 columns need not break them, nor where it adds `^C` to the last one"""
TALLEST = 5
RENEWED = 0.5  # seconds between two looks: drawing takes some milliseconds


class View:
    """The state of training as rich draws it. It is renewed after steps, by no thread of its own:
    worker processes are forked, and must not inherit a lock that such a thread holds."""

    def __init__(self) -> None:
        self.last: dict[str, Any] = {}
        self.losses: list[tuple[int, float]] = []
        self.rate, self.seen = 0.0, 0
        self.first: tuple[int, float] | None = None
        self.validation: dict[str, Any] | None = None
        self.best: tuple[int, float] | None = None
        self.scoring: tuple[int, int] | None = None

    def begin(self, run: Run) -> None:
        """What a resumed run has shown already."""
        self.losses = [(line["step"], line["loss"]) for line in run.logged("loss")]
        for line in run.logged("validation"):
            self._scored(line)

    def step(self, m: dict[str, Any]) -> None:
        self.last, self.scoring = m, None
        self.losses.append((m["step"], m["loss"]))
        if len(self.losses) > 400:  # more than the curve can show
            self.losses = self.losses[1::2]
        self.first = self.first or (m["step"], time.monotonic())
        # A moving average that forgets the first step, which waits for everything to start.
        weight = max(0.1, 1 / max(1, self.seen))
        self.rate += weight * (m["pairs_per_second"] - self.rate)
        self.seen += 1
        if "validation" in m:
            self._scored(m)

    def _scored(self, m: dict[str, Any]) -> None:
        self.validation = m
        if m["best_step"] == m["step"]:
            self.best = (m["step"], m["validation"][m["metric"]])

    def left(self) -> float | None:
        """Seconds, from the steps of this session, validations included."""
        if self.first is None or self.last["step"] == self.first[0]:
            return None
        step, since = self.first
        done = self.last["step"] - step
        return (time.monotonic() - since) / done * (self.last["steps"] - self.last["step"])

    def numbers(self) -> list[tuple[str, str]]:
        """Label and value of everything that is known."""
        m = self.last
        share = m.get("data_wait_share")
        found = [
            ("loss", f"{m['loss']:.4f}"),
            ("learning rate", f"{m['lr']:.1e}"),
            ("pairs/s", f"{self.rate:,.4g}"),
            ("memory", f"{m['peak_memory_bytes'] / 1e9:.2f} GB ({m['memory_of']})"),
            ("average", f"{m['start_share']:.1%} is its zero start"),
            ("data", "" if share is None else f"{share:.0%} of time waiting"),
        ]
        return [(label, value) for label, value in found if value]

    def validated(self) -> str:
        from radapter.evaluation.scores import name_of

        if self.scoring:
            return "scoring {:,} of {:,} pictures".format(*self.scoring)
        if self.validation is None:
            return ""
        v = self.validation
        text = f"{v['validation'][v['metric']]:.1%} at step {v['step']:,}"
        if self.best:
            text += f", best {self.best[1]:.1%} at step {self.best[0]:,}"
        return f"{name_of(v['metric'])} {text}"

    def __rich_console__(self, terminal: Console, options: ConsoleOptions) -> RenderResult:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        from radapter.reporting.terminal import curve

        if not self.last:
            yield Text("training: preparing", "dim")
            return
        width = min(WIDEST, options.max_width - 2)
        done, steps, left = self.last["step"], self.last["steps"], self.left()
        rest = "" if left is None else f"{console.seconds(left)} left"
        counted = f"{done:,}/{steps:,}  {done / steps:.0%}  {rest}"
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            "training",
            ProgressBar(total=steps, completed=done, width=max(4, width - 11 - len(counted))),
            Text(counted, no_wrap=True),
        )
        yield bar
        # Three pairs a line where there is room, else two, else one.
        across = max(1, min(3, width // 26))
        table = Table.grid(padding=(0, 1))
        cells = [Text.assemble((f"{a} ", "dim"), b) for a, b in self.numbers()]
        for i in range(0, len(cells), across):
            table.add_row(*(cell for cell in cells[i : i + across]))
        yield table
        if text := self.validated():
            yield Text.assemble(("validation ", "dim"), text, no_wrap=True, overflow="ellipsis")
        height = min(TALLEST, options.size.height - 10)
        if height > 1 and len(self.losses) > 1:
            plain = options.ascii_only
            for line in curve(self.losses, width=width, height=height, ascii_only=plain):
                yield Text(line, "cyan", no_wrap=True)


@contextmanager
def shown() -> Iterator[dict[str, Any]]:
    """The hooks of `radapter.training.train` that show how it goes, on stderr: `on_start`,
    `on_step`, `on_validation`."""
    if console.err.is_terminal and not console.err.is_dumb_terminal:
        with _live() as hooks:
            yield hooks
        return
    with console.progress("training") as update:

        def on_step(m: dict[str, Any]) -> None:
            update(m["step"], m["steps"], f"loss {m['loss']:.3f}  lr {m['lr']:.1e}")
            if "validation" in m:
                view._scored(m)
                console.note(f"validation: {view.validated()}")

        view = View()
        yield {"on_start": lambda run, plan: view.begin(run), "on_step": on_step}


@contextmanager
def _live() -> Iterator[dict[str, Any]]:
    from rich.live import Live

    view, renewed = View(), 0.0
    with Live(
        view, console=console.err, auto_refresh=False, transient=True, redirect_stdout=False
    ) as live:

        def renew(now: bool = False) -> None:
            nonlocal renewed
            if now or time.monotonic() - renewed > RENEWED:
                live.refresh()
                renewed = time.monotonic()

        def on_step(m: dict[str, Any]) -> None:
            view.step(m)
            renew("validation" in m)

        def on_validation(done: int, total: int) -> None:
            view.scoring = (done, total)
            renew()

        def on_start(run: Run, plan: Plan) -> None:
            view.begin(run)
            renew(now=True)

        yield {"on_start": on_start, "on_step": on_step, "on_validation": on_validation}

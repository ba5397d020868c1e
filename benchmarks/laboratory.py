"""Is the set of icons a good laboratory? Five known truths, from the study `laboratory`.

    radapter study laboratory
    python benchmarks/laboratory.py [RESULTS]

(a) full fine-tuning gains at least 8 points on line icons over zero-shot; (b) at alpha 1 it loses
on a shift, on novel classes or on emoji, the other domain, by more than three standard errors; (c)
interpolation is told from it on the mean of the shifts, by more than three; (d) two disjoint groups
of three seeds of one method are not told apart; (e) a learning rate ten times too high is seen in
every column. The first three are over three seeds. Standard errors and intervals are of seeds and
classes together, paired; a standard error is half of the width that 68 % of the resamples lie in.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from radapter.evaluation.intervals import interval_of
from radapter.study import table
from radapter.study.results import Folder

RESULTS = Path("results") / "laboratory"
GAIN, ERRORS, SEEDS = 0.08, 3.0, 3
LABELS = ("zero-shot", "full", "WiSE-FT", "ten times the rate")
KEPT = ("solid", "two-tone", "colour", "pixel", "novel", "emoji")


@dataclasses.dataclass(frozen=True)
class Difference:
    """Of two methods in a column: its mean, standard error and 95 % interval, as shares."""

    mean: float
    error: float
    low: float
    high: float

    @property
    def told(self) -> bool:
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{100 * self.mean:+.1f} ±{100 * self.error:.2f} (s.e.)"


def first(method: table.Method, start: int, count: int = SEEDS) -> table.Method:
    """The method with some of its seeds alone."""
    part = slice(start, start + count)
    return dataclasses.replace(method, runs=method.runs[part], results=method.results[part])


def difference(one: table.Method, other: table.Method, column: table.Column) -> Difference:
    """One method minus the other."""
    drawn = table.resampled([one, other], column)
    apart = drawn[:, 0] - drawn[:, 1]
    means = [float(np.mean(table.by_run(method, column))) for method in (one, other)]
    low, high = interval_of(apart)
    below, above = np.nanquantile(apart, [0.16, 0.84])
    return Difference(means[0] - means[1], float(above - below) / 2, low, high)


def rate_of(method: table.Method) -> float:
    """The learning rate of its runs."""
    return float(method.results[0]["recipe"]["optimisation"]["lr"])


def main(
    results: Annotated[Path, typer.Argument(help="The study's results.")] = RESULTS,
) -> None:
    """Print each truth, the numbers behind it, and whether it shows; exit 1 if one does not."""
    folder = Folder(results)
    outline = folder.read_study()
    methods = {m.label: m for m in table.read_methods(folder, outline)[0]}
    columns, _ = table.columns_of(list(methods.values()), outline["suites"], ["accuracy"])
    of = {column.place: column for column in columns}
    if missing := [label for label in LABELS if label not in methods]:
        raise typer.BadParameter(f"{results} lacks runs of {', '.join(missing)}.")
    zero, full, bad = methods["zero-shot"], methods["full"], methods["ten times the rate"]
    few, wise = first(full, 0), first(methods["WiSE-FT"], 0)
    base = first(zero, 0)
    shown = []

    def truth(words: str, holds: bool, *lines: str) -> None:
        shown.append(holds)
        print(f"{'yes' if holds else 'NO '}  {words}")
        for line in lines:
            print(f"       {line}")

    gain = difference(few, base, of["line"])
    truth("(a) full gains at least 8 points on line", gain.mean >= GAIN, f"line {gain}")
    losses = {name: difference(few, base, of[name]) for name in KEPT}
    truth(
        "(b) full loses on a shift, on novel classes or on emoji by more than 3 s.e.",
        any(loss.mean < -ERRORS * loss.error for loss in losses.values()),
        *(f"{name} {loss}" for name, loss in losses.items()),
    )
    apart = difference(wise, few, of["shifts"])
    truth(
        "(c) interpolation is told from full on the mean of the shifts by more than 3 s.e.",
        abs(apart.mean) > ERRORS * apart.error,
        f"shifts {apart}",
    )
    groups = {c.place: difference(first(full, 0), first(full, SEEDS), c) for c in columns}
    truth(
        "(d) two groups of three seeds of one method are not told apart",
        not any(d.told for d in groups.values()),
        *(f"{name} {d}{', told apart' if d.told else ''}" for name, d in groups.items()),
    )
    worse = {c.place: difference(bad, full, c) for c in columns}
    times = rate_of(bad) / rate_of(full)
    truth(
        "(e) ten times the rate is seen in every column",
        all(d.high < 0 for d in worse.values()) and bool(np.isclose(times, 10)),
        f"{times:g} times the rate that is chosen for full",
        *(f"{name} {d}{'' if d.high < 0 else ', not seen'}" for name, d in worse.items()),
    )
    if not all(shown):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)

"""radapter runs: what has been trained here; one run with its curves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from radapter.errors import UsageError, nearest
from radapter_cli import console

if TYPE_CHECKING:
    from radapter.run import Run


def runs(
    action: Annotated[str, typer.Argument(help="list or show")] = "list",
    run: Annotated[
        str | None,
        typer.Argument(help=console.RUN_HELP, autocompletion=console.complete_run),
    ] = None,
    as_json: console.JsonOption = False,
) -> None:
    """List the runs in ./runs, or show one of them, finished or running, with its curves.

    [bold]Examples[/]

        radapter runs
        radapter runs show
        radapter runs show runs/my-run --json
    """
    if action not in ("list", "show"):
        raise UsageError(f"Unknown action '{action}'.{nearest(action, ['list', 'show'])}")
    if action == "show":
        return show(run, as_json)
    if run is not None:
        raise UsageError(f"`radapter runs list` takes no run. Type: radapter runs show {run}")
    from radapter.reporting.runs import describe
    from radapter.run import all_runs

    rows = [describe(run) for run in all_runs()]
    if as_json:
        return console.print_json({"runs": rows})
    if not rows:
        console.result("No runs in ./runs yet.")
        return console.next_command("radapter", "train", "emoji")
    from rich.table import Table

    table = Table("run", "when (UTC)", "method", "state", "best numbers", box=None, pad_edge=False)
    for row in rows:
        table.add_row(
            row["name"], row["when"], row["method"], row["state"], "\n".join(row["best"]) or "-"
        )
    console.out.print(table)
    return None


# ---------------------------------------------------------------- one run

WIDEST = 100  # of a curve: a longer one is no clearer
HEIGHTS = {"loss": 8, "lr": 3}
TITLES = {"lr": "learning rate"}


def show(name: str | None, as_json: bool) -> None:
    from radapter.registry import folds
    from radapter.run import find

    run = find(Path(name) if name else None)
    with console.status("reading"):
        from radapter.reporting.runs import run_facts, state
    facts, curves = run_facts(run), run.curves()
    if as_json:
        return console.print_json({"run": {**facts, "state": state(run)}, "curves": curves})
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for label, text in in_words(run, facts):
        table.add_row(label, Text(text))
    console.out.print(Text(run.name, "bold"), soft_wrap=True)
    console.out.print(table)
    steps = [step for points in curves.values() for step, _ in points]
    for title, points in curves.items():
        print_curve(title, points, (min(steps), max(steps)))
    if facts["training"] == "stopped":
        console.next_command("radapter", "train", "--resume", run.path)
    elif state(run) == "trained":
        step = "merge" if folds(run.recipe().method.name) else "export"
        console.next_command("radapter", step, "--run", run.path)
    return None


def print_curve(title: str, points: list[tuple[int, float]], span: tuple[int, int]) -> None:
    from rich.text import Text

    from radapter.evaluation.scores import name_of
    from radapter.reporting.terminal import curve

    lines = curve(
        points,
        width=min(WIDEST, console.out.width),
        height=HEIGHTS.get(title, 5),
        span=span,
        ascii_only=console.out.options.ascii_only,
    )
    unit = ", %" if title.startswith("validation") else ""
    console.out.print(Text("\n" + TITLES.get(title, name_of(title)) + unit, "bold"))
    for line in lines:
        console.out.print(Text(line, "cyan"), no_wrap=True)


def in_words(run: Run, f: dict[str, Any]) -> list[tuple[str, str]]:
    """The facts of a run as rows: label, text."""
    from radapter.data.accounts import lines_of_accounts
    from radapter.evaluation.scores import name_of
    from radapter.reporting import soups
    from radapter.reporting.runs import best_numbers

    created = f"{f['created']:%Y-%m-%d %H:%M} UTC" if f["created"] else ""
    rows = [
        ("recipe", ", ".join(filter(None, (f["recipe"], f["description"])))),
        ("started", created),
        ("model", f["model"]),
        ("method", f["method"]),
        ("made of", "\n".join(soups.in_words(f["soup"])) if f["soup"] else ""),
        ("data", f["data"]),
        *(("", line) for line in lines_of_accounts(f["used"])),
        ("training", "" if f["soup"] else training_in_words(f)),
        ("speed", speed_in_words(f)),
    ]
    if f["loss"] is not None:
        rows.append(("loss", f"{f['loss']:.3f}, learning rate {f['lr']:.1e}"))
    if f["start_share"] is not None:
        rows.append(("average", f"{f['start_share']:.1%} of it is still its zero start"))
    if v := f["validation"]:
        rows.append(
            (
                "validation",
                f"{name_of(v['metric'])} {v['value']:.1%} at step {v['step']:,}, "
                f"best {v['best']:.1%} at step {v['best_step']:,} (alpha {v['alpha']:g})",
            )
        )
    if a := f["adapter"]:
        trained = a["trained_parameters"]
        parts = [a["file"], f"{a['bytes'] / 1e6:.1f} MB"]
        parts += [f"{trained:,} trained parameters"] if trained else ["damaged"]
        rows.append(("adapter", ", ".join(parts)))
    if f["best"]:
        rows.append(("best adapter", f["best"]))
    merged = [m + (" (present)" if m == f["present"] else "") for m in f["merged"]]
    rows += [
        ("merged", ", ".join(merged)),
        ("bundles", ", ".join(f["bundles"])),
        ("evaluations", ", ".join(f["evaluations"])),
        ("best numbers", "\n".join(best_numbers(run))),
    ]
    return [(label, text) for label, text in rows if text]


def training_in_words(f: dict[str, Any]) -> str:
    steps = f" of {f['steps']:,}" if f["steps"] else ""
    words = {"running": "running now", "stopped": "stopped, no process holds the run"}
    taken = f", {console.seconds(f['seconds'])}" if f["seconds"] is not None else ""
    text = f"{words.get(f['training'], f['training'])}; {f['step']:,}{steps} steps{taken}"
    if f["training"] == "running" and f["steps"] and f["step"]:
        text += f", {console.seconds(f['seconds'] / f['step'] * (f['steps'] - f['step']))} left"
    if f["writer"]:
        text += f"; written by {f['writer']}"
    return text


def speed_in_words(f: dict[str, Any]) -> str:
    parts = []
    if f["pairs_per_second"] is not None:
        parts.append(f"{f['pairs_per_second']:,.4g} pairs/s")
    if f["data_wait_share"] is not None:
        parts.append(f"{f['data_wait_share']:.0%} of the time waiting for data")
    if f["peak_memory_bytes"] is not None:
        parts.append(f"peak memory {f['peak_memory_bytes'] / 1e9:.2f} GB ({f['memory_of']})")
    return ", ".join(parts)

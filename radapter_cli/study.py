"""radapter study: several methods compared fairly, from one file."""

from __future__ import annotations

import contextlib
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from radapter.errors import BrokenInput, RadapterError, UsageError
from radapter_cli import console

if TYPE_CHECKING:
    from radapter.study.planning import Job, Plan
    from radapter.study.results import Folder
    from radapter.study.schema import Study

ENDINGS = ["json", "md", "png"]


def complete_study(incomplete: str) -> list[str]:
    from radapter.recipe import shipped

    return [name for name in shipped("studies") if name.startswith(incomplete)]


def study(
    study: Annotated[
        str | None,
        typer.Argument(
            help="A study file, or the name of a study that ships.", autocompletion=complete_study
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes at a time, each with its share of the cores. Default: one for each "
            "GPU, which it has for itself; without a GPU one.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check everything, say how many runs and how long, stop."),
    ] = False,
    tables: Annotated[
        bool, typer.Option("--tables", help="Only the table, from results that are there.")
    ] = False,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD",
            help="With --tables: the method that differences are from, in place of the study's.",
        ),
    ] = None,
    smoke: Annotated[
        bool,
        typer.Option(
            "--smoke",
            help="Try that all works: one trial, one seed, three steps, one data set of each role; "
            "nothing is kept.",
        ),
    ] = False,
    results: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Where result JSON is kept. Default: results/NAME, here."
        ),
    ] = None,
    runs: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where trained runs are kept, those of all studies. Default: runs/studies, here.",
        ),
    ] = None,
    out: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE.{json,md,png}",
            help="Write the table, or the picture, there too; may be repeated.",
        ),
    ] = None,
    data_root: console.DataRootOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Compare methods fairly: the same trials for each, chosen on held-out data, over seeds.

    First each method's settings are tried, then the best setting of each is trained with every seed
    and scored on the suites. A run that is there is not repeated, so the command goes on where it
    was stopped. At the end stands a table with paired intervals of the differences from the
    baseline, and a page of HTML with it and its figures, beside the results.

    [bold]Examples[/]

        radapter study emoji --dry-run
        radapter study mine.yaml --jobs 2
        radapter study mine.yaml --tables --out mine.md
        radapter study mine.yaml --tables --baseline LoRA
    """
    for path in out or []:
        if path.suffix[1:] not in ENDINGS:
            raise UsageError(f"--out takes names that end in .json, .md or .png, found '{path}'.")
    if baseline is not None and not tables:
        raise UsageError("--baseline is for --tables: a study is run for its own baseline.")
    from radapter.study import schema
    from radapter.study.results import Folder

    if study is None:
        known = ", ".join(schema.shipped_studies())
        raise UsageError(f"Name a study: radapter study STUDY. Those that ship: {known}.")
    place = schema.locate(study)
    loaded = schema.load(place)
    folder = Folder(results or Path("results") / loaded.name)
    if tables:
        say_if_changed(loaded, folder)
        return show(folder, out or [], as_json, baseline=baseline)
    with console.status("loading"):
        from radapter.study.planning import Plan
    if smoke:
        with tempfile.TemporaryDirectory() as kept:
            plan, folder = Plan(loaded, str(place), smoke=True), Folder(Path(kept) / "results")
            if failed := run(plan, folder, Path(kept) / "runs", jobs):
                raise failed
            return show(folder, out or [], as_json)
    plan = Plan(loaded, str(place))
    if dry_run:
        return say_estimate(plan, folder, jobs, as_json)
    failed = run(plan, folder, runs, jobs)
    if failed is None:
        return show(folder, out or [], as_json, keep=True)
    if not as_json:  # which prints one object, here of the failure
        with contextlib.suppress(BrokenInput):  # no method has all its runs
            show(folder, out or [], as_json, keep=True)
    raise failed


def run(plan: Plan, folder: Folder, runs: Path | None, jobs: int | None) -> RadapterError | None:
    """Run what is missing, with a line for each run; an error that names those that failed."""
    from radapter.study import running

    done, total = 0, 0

    def on_stage(stage: str, there: int, of: int) -> None:
        nonlocal done, total
        done, total = there, of
        console.note(f"{stage}: {there} of {of} runs are there")

    def on_done(job: Job, result: dict[str, Any] | None, seconds: float) -> None:
        nonlocal done
        done += 1
        took = console.seconds(seconds)
        if result is None:
            console.note(f"  {done}/{total} {job.in_words}: FAILED after {took}")
            return
        rule = plan.study.methods[job.label].alpha
        alpha, score = running.standing(plan, rule, result)
        held_out = f"held-out {100 * score:.1f} at alpha {alpha:g}"
        console.note(f"  {done}/{total} {job.in_words}: {held_out} ({took})")

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        failed = running.run_study(
            plan, folder, runs=runs or running.RUNS, jobs=jobs,
            progress=running.Progress(on_stage, on_done),
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGTERM, before)
    return running.RunsFailed(failed) if failed else None


def say_if_changed(loaded: Study, folder: Folder) -> None:
    """A line if the study file says other than the study that was run."""
    from pydantic import ValidationError

    try:
        same = type(loaded).model_validate(folder.read_study()["study"]) == loaded
    except ValidationError:  # of another version
        same = False
    if not same:
        console.note(
            "The study file has changed since it was run: the table is of the study as it was. "
            "For a new one, type again without --tables; what is there is not repeated."
        )


def show(
    folder: Folder, out: list[Path], as_json: bool, keep: bool = False, baseline: str | None = None
) -> None:
    """Print the table made of a folder's results, and write it where that is asked for; the report
    with it, if the folder is to keep them."""
    from radapter.files import write_atomic
    from radapter.reporting import study_picture, study_tables
    from radapter.reporting.report import page
    from radapter.reporting.report.of_study import report_on_study
    from radapter.study.table import summarise

    with console.status("resampling"):
        summary = summarise(folder, baseline)
    own = [folder.table, folder.table.with_suffix(".md")] if keep else []
    for path in [*own, *out]:
        if path.suffix == ".png":
            study_picture.draw(summary, path)
        else:
            write_atomic(path, study_tables.WRITERS[path.suffix](summary))
    written = [*own, *out]
    if keep:
        written.append(folder.report)
        page.write(report_on_study(folder, summary), folder.report)
    if as_json:
        console.print_json({"table": summary, "files": list(map(str, written))})
        return
    for part in study_tables.tables(summary):
        console.out.print(part)
    for path in written:
        console.note(f"Written: {path}")


def say_estimate(plan: Plan, folder: Folder, jobs: int | None, as_json: bool) -> None:
    """How many runs there are, and how long what is missing will take."""
    from dataclasses import asdict

    from radapter.study import running
    from radapter.study.estimate import estimate

    with console.status("timing"):
        found = estimate(plan, folder, jobs or len(running.gpus()) or 1)
    if as_json:
        console.print_json({"estimate": asdict(found)})
        return
    console.result(
        f"{len(plan.study.methods)} methods. Trials: {found.trials} runs, {found.trials_missing} "
        f"of them missing. Finalists: {found.finalists} runs, {found.finalists_missing} missing. "
        f"To train: {found.trainings_missing} runs."
    )
    console.result(f"About {console.seconds(found.seconds)}, by {found.by}.")

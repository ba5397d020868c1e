"""radapter report: runs on one page of HTML."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from radapter.errors import BrokenInput, UsageError
from radapter_cli import console

if TYPE_CHECKING:
    from radapter.reporting.report.page import Page


def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Run folders, or their names under ./runs; or one study: its file, the folder "
            "with its results, or its name under ./results. Default: the newest run.",
            autocompletion=console.complete_run,
        ),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where the results of the named study are, if `radapter study --results` kept "
            "them elsewhere. Default: results/NAME, here.",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="FILE.html", help="The file that is written.")
    ] = Path("report.html"),
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    as_json: console.JsonOption = False,
) -> None:
    """Write one page on runs or on a study: what they gain, what it costs elsewhere, and why.

    The page needs no network: figures, tables that sort, and pictures whose answer tuning changed
    are in the file. Pictures are shown only of data that may be passed on; of other data, names.
    Scores have their intervals, and all numbers their protocol; what may not be compared is marked.

    [bold]Examples[/]

        radapter report
        radapter report runs/emoji-* --out emoji.html
        radapter report results/my-study --open
        radapter report my-study.yaml --results elsewhere
    """
    if out.suffix not in (".html", ".htm"):
        raise UsageError(f"--out takes a name that ends in .html, found '{out}'.")
    with console.status("reading"):
        from radapter.reporting.report import page

        size = page.write(_content([Path(name) for name in runs or ()], results), out)
    if as_json:
        console.print_json({"file": str(out), "bytes": size})
    else:
        console.result(f"Written: {out} ({size / 1e6:.1f} MB)")
    if show:
        typer.launch(str(out))


def _content(paths: list[Path], results: Path | None) -> Page:
    """What is on the page: of one study, or of runs.

    Raises:
        UsageError: a study, and something else; or `results` without a study.
    """
    from radapter.run import find
    from radapter.study.results import Folder

    if results and len(paths) != 1:
        raise UsageError(
            "--results is where the results of one study are. Name that study: "
            f"radapter report STUDY --results {results}"
        )
    paths = [_results(path, results) or path for path in paths]
    studies = [Folder(path) for path in paths if Folder(path).study.is_file()]
    if not studies:
        from radapter.reporting.report.of_runs import report_on

        runs = [find(path) for path in paths] or [find()]
        found = {run.path.resolve(): run for run in runs}
        return report_on(list(found.values()))
    if len(paths) > 1:
        raise UsageError(
            f"A report is on one study or on runs: {studies[0].path} is a study. Name it alone."
        )
    from radapter.reporting.report.of_study import report_on_study
    from radapter.study.table import summarise

    return report_on_study(studies[0], summarise(studies[0]))


def _results(path: Path, results: Path | None) -> Path | None:
    """Where the results of a study are: of a file, of a study that ships where `results` is given,
    or of one of that name under ./results, if no run is called so; None: it is neither.

    Raises:
        UsageError: there is no such study, or the results are of another one.
        BrokenInput: there are no results of it.
    """
    from radapter.run import all_runs
    from radapter.study import schema
    from radapter.study.results import Folder

    if path.suffix not in (".yaml", ".yml") and results is None:
        named = Folder(Path("results") / path)
        is_run = path.exists() or any(run.name.startswith(str(path)) for run in all_runs())
        return named.path if named.study.is_file() and not is_run else None
    name = schema.load(schema.locate(str(path))).name
    folder = Folder(results or Path("results") / name)
    if not folder.study.is_file():
        elsewhere = (
            f". If they are elsewhere, name their folder: radapter report {path} --results FOLDER"
        )
        raise BrokenInput(
            f"{folder.path} has no results of the study {name}. Type first: radapter study {path}"
            + ("" if results else elsewhere)
        )
    if (found := folder.read_study()["study"]["name"]) != name:
        raise UsageError(f"{folder.path} has results of the study {found}, not of {name}.")
    return folder.path

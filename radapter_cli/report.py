"""radapter report: runs on one page of HTML."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from radapter.errors import UsageError
from radapter_cli import console

if TYPE_CHECKING:
    from radapter.reporting.report.page import Page


def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Run folders, or their names under ./runs; or one study: its file, or the folder "
            "with its results. Default: the newest run.",
            autocompletion=console.complete_run,
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
    Every number has its interval and its protocol; what may not be compared is marked.

    [bold]Examples[/]

        radapter report
        radapter report runs/emoji-* --out emoji.html
        radapter report results/my-study --open
    """
    if out.suffix not in (".html", ".htm"):
        raise UsageError(f"--out takes a name that ends in .html, found '{out}'.")
    with console.status("reading"):
        from radapter.reporting.report import page

        size = page.write(_content([Path(name) for name in runs or ()]), out)
    if as_json:
        console.print_json({"file": str(out), "bytes": size})
    else:
        console.result(f"Written: {out} ({size / 1e6:.1f} MB)")
    if show:
        typer.launch(str(out))


def _content(paths: list[Path]) -> Page:
    """What is on the page: of one study, or of runs.

    Raises:
        UsageError: a study, and something else.
    """
    from radapter.run import find
    from radapter.study.results import Folder

    paths = [_results(path) if path.suffix in (".yaml", ".yml") else path for path in paths]
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


def _results(study: Path) -> Path:
    """Where the results of a study file are.

    Raises:
        UsageError: there is no such file, or it is not a study.
        BrokenInput: there are no results of it.
    """
    from radapter.study import schema
    from radapter.study.results import Folder

    folder = Folder(Path("results") / schema.load(schema.locate(str(study))).name)
    folder.read_study()
    return folder.path

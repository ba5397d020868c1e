"""The `radapter` command: its subcommands, and how every error leaves it."""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer

from radapter.errors import RadapterError, ran_out_of_memory
from radapter.names import print_any
from radapter_cli import console
from radapter_cli.bench import bench
from radapter_cli.compare import compare
from radapter_cli.data import ACTIONS, ListByDefault, data
from radapter_cli.demo import demo
from radapter_cli.embed import embed
from radapter_cli.eval import eval_command
from radapter_cli.export import export
from radapter_cli.info import info, show_version
from radapter_cli.init import init
from radapter_cli.merge import merge
from radapter_cli.predict import predict
from radapter_cli.recipes import recipes
from radapter_cli.report import report
from radapter_cli.runs import runs
from radapter_cli.search import search
from radapter_cli.soup import soup
from radapter_cli.study import study
from radapter_cli.train import train

HELP = """Adapt a CLIP model to your data without losing what it knew, and ship it verified.

[bold]In sequence[/]

    radapter demo               all of this in minutes
    radapter init my-data/      a recipe for your pictures
    radapter train RECIPE       adapters, in a run folder
    radapter merge --alpha 0.5  one plain checkpoint
    radapter export             ONNX, a bundle to deploy
    radapter eval               scores on held-out data
    radapter predict photo.jpg  what is in it

Without --run a command works on the newest run in ./runs.
"""
INTERRUPTED = 130
BROKEN_PIPE = 141  # 128 + SIGPIPE, what a shell reports of any other program
EPILOG = (
    "Exit codes: 0 done, 2 wrong usage, 3 a gate failed, 4 missing or broken on disk, "
    "5 a device or package is absent, 130 interrupted."
)

app = typer.Typer(
    name="radapter",
    help=HELP,
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Print versions."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    console.debug = debug


COMMANDS: dict[str, Callable[..., None]] = {  # in the order of --help
    "init": init, "train": train, "merge": merge, "soup": soup, "export": export,
    "eval": eval_command, "predict": predict, "embed": embed, "search": search, "bench": bench,
    "demo": demo, "runs": runs, "compare": compare, "study": study, "report": report,
    "recipes": recipes, "info": info, "data": data,
}  # fmt: skip
GROUPS = {"data": ACTIONS}
"""Of commands that have actions these; such commands stand last in --help"""


def help_of(function: Callable[..., None]) -> str:
    """Lines of a paragraph are joined, so that it fits any terminal; examples stay lines."""
    text = re.sub(r"(?<!\n)\n(?![\n ])", " ", inspect.getdoc(function) or "")
    return re.sub(r"^ +", "", text, flags=re.MULTILINE)


for name, function in COMMANDS.items():
    if name not in GROUPS:
        app.command(name, help=help_of(function))(function)
        continue
    group = typer.Typer(cls=ListByDefault, rich_markup_mode="rich")
    group.callback(help=help_of(function))(function)
    for action, does in GROUPS[name].items():
        group.command(action, help=help_of(does))(does)
    app.add_typer(group, name=name)


def run() -> NoReturn:
    """The console entry point. Every way out is one of the documented exit codes."""
    console.debug = "--debug" in sys.argv
    as_json = "--json" in sys.argv
    for stream in (sys.stdout, sys.stderr):
        print_any(stream)
    try:
        with console.plain_warnings():
            code = app(standalone_mode=False)
        if code == INTERRUPTED:  # typer turns KeyboardInterrupt into this code, without a word
            _fail("Interrupted.", code, as_json)
        sys.stdout.flush()  # a reader that went away is noticed here, not at the interpreter's exit
    except RadapterError as error:
        kind = type(error).__name__
        code = _fail(str(error), error.exit_code, as_json, error.details, kind)
    except KeyboardInterrupt:
        code = _fail("Interrupted.", INTERRUPTED, as_json)
    except (BrokenPipeError, SystemExit) as error:
        if isinstance(error, SystemExit) and error.code != 1:
            raise
        # The reader of our output went away: `radapter runs | head -1`. rich makes that SystemExit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = BROKEN_PIPE
    except Exception as error:
        code = _unexpected(error, as_json)
    _leave(code or 0)


def _leave(code: int) -> NoReturn:
    """End with `code`; at once where training on several GPUs failed (`distributed.joined`)."""
    distributed = sys.modules.get("radapter.distributed")  # to import it takes time
    if distributed is not None and distributed.stuck():
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _unexpected(error: Exception, as_json: bool) -> int:
    if ran_out_of_memory(error):
        return _fail(_out_of_memory(error), 5, as_json, kind="MissingDependency")
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        return _fail(f"{error.strerror or error}{where}", 4, as_json)
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # click's own errors
        if hasattr(error, "message"):  # typer leaves pydantic's prefix in it
            error.message = str(error.message).removeprefix("Value error, ")
        if as_json:
            return _fail(error.format_message(), 2, as_json)
        if hasattr(error, "show"):
            error.show()
        return int(error.exit_code)
    if type(error).__name__ == "SafetensorError":
        return _fail(f"Weights cannot be read or written: {error}", 4, as_json)
    return _fail(
        f"A bug in radapter: {type(error).__name__}: {error}. "
        "Run the command again as `radapter --debug ...` and report what it prints.",
        1,
        as_json,
    )


def _out_of_memory(error: Exception) -> str:
    """What ran out, and those of the command's options that need less."""
    command: Any = typer.main.get_group(app)
    for word in sys.argv[1:]:
        command = getattr(command, "commands", {}).get(word, command)
    options = {text for p in command.params for text in p.opts}
    reason = " ".join(str(error).split())[:200].rstrip(".") or "this machine has no more"
    advice = [f"a smaller {option}" for option in ("--batch", "--max-batch") if option in options]
    if "--precision" in options and command.name not in ("bench", "export"):
        advice.append("--precision fp16")
    if "--device" in options and "CUDA" in reason:
        advice.append("--device cpu")
    less = f" What needs less: {', or '.join(advice)}." if advice else ""
    return f"Out of memory: {reason}.{less}"


def _fail(
    message: str,
    code: int,
    as_json: bool,
    details: dict[str, Any] | None = None,
    kind: str = "Error",
) -> int:
    if console.debug:
        traceback.print_exc()
    if "TORCHELASTIC_ERROR_FILE" in os.environ:  # one of several processes that train
        from radapter.training import launching

        if code == INTERRUPTED and console.out.quiet:
            return 0  # the first process says it: it must not be ended as if this one had failed
        if code != INTERRUPTED and launching.record(message, kind):
            return code
    if as_json:
        error = {"code": code, "message": message}
        console.print_json({"ok": False, "error": error, **(details or {})})
    elif code == INTERRUPTED:
        console.note(message)
    else:
        console.error(message)
    return code

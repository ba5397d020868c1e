"""Errors a user can act on. Each carries the exit code of the command-line table."""

import errno
import shlex
from typing import Any

OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "Failed to allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


class RadapterError(Exception):
    """One short paragraph: what is wrong, where, and what to do about it."""

    exit_code = 1

    def __init__(self, message: str, details: dict[str, Any] | None = None):
        super().__init__(message)
        self.details = details or {}
        """What `--json` prints beside the error"""


class UsageError(RadapterError):
    """Wrong usage: option, recipe, unknown suite, model or method."""

    exit_code = 2


class GateFailed(RadapterError):
    """A gate (parity, regression) found a result out of tolerance."""

    exit_code = 3


class BrokenInput(RadapterError):
    """Something on disk is missing, stale or broken."""

    exit_code = 4


class MissingDependency(RadapterError):
    """A needed device, its memory, or a package is absent."""

    exit_code = 5


def not_installed(what: str, package: str, extra: str) -> MissingDependency:
    """The error that a package is not installed which one of radapter's extras brings."""
    how = f'Type first: pip install "radapter[{extra}]"'
    return MissingDependency(f"{what} needs the package {package}, which is not installed. {how}")


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python, torch or onnxruntime says that memory ran out, of whatever."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or (
        # onnxruntime's errors have no common base, but a module.
        (isinstance(error, RuntimeError) or "onnxruntime" in type(error).__module__)
        and any(words in str(error) for words in OUT_OF_MEMORY)
    )


def command(*words: object) -> str:
    """A command of radapter in a message, ready to be pasted, as with the folder 'my runs/a'."""
    return shlex.join(["radapter", *map(str, words)])


def nearest(word: str, known: list[str]) -> str:
    """The end of a message about an unknown name: the nearest one, and all if they are few."""
    import difflib

    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return hint + (f" Known: {', '.join(sorted(known))}." if len(known) < 10 else "")

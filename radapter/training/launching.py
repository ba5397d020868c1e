"""`radapter train --devices N`: a process for each device of this machine, started and watched by
torchrun's own agent. Over several machines torchrun does the same (docs/distributed.md)."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from radapter.distributed import RankLost
from radapter.errors import RadapterError, UsageError

ERROR_FILE = "TORCHELASTIC_ERROR_FILE"  # torchrun gives each rank one of its own
STARTED_HERE = "RADAPTER_DEVICES"


class RankFailed(RadapterError):
    """A rank stopped, and with it the job. The exit code is the rank's."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


def launch(arguments: list[str], devices: int, *, quiet: bool = True) -> int:
    """Run `radapter ARGUMENTS` in as many processes as devices; 0, or 130 if it was interrupted.

    SIGINT and SIGTERM are passed on to every process, which then has a minute to save its state
    (TORCH_ELASTIC_SHUTDOWN_TIMEOUT). A second one kills them all.

    Raises:
        KeyboardInterrupt: on that second signal.
        RankFailed: with the error of the rank that failed first.
        UsageError: there are fewer CUDA devices.
    """
    import torch
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if ERROR_FILE in os.environ:
        raise UsageError("torchrun has started this process: leave out --devices.")
    os.environ[STARTED_HERE] = str(devices)
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "60")
    threads = max(1, torch.get_num_threads() // devices)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # a host's own name may lead nowhere
    with tempfile.TemporaryDirectory(prefix="radapter-") as folder, _silent(quiet):
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=devices,
            run_id=secrets.token_hex(8),
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        # Not passed above: torch 2.8 has no such option (a second signal waits that minute there).
        config.signals_to_handle = "SIGHUP,SIGQUIT"
        try:
            with _signals_handled():
                elastic_launch(config, sys.executable)("-m", "radapter_cli", *arguments)
        except SignalException:
            return 130
        except ChildFailedError as error:
            rank, failure = min(error.failures.items(), key=_order)
            code, message = failure.exitcode, _message(failure.message)
            if code == 130:
                return code
            raise RankFailed(*_explain(rank, devices, code, message)) from None
    return 0


@contextlib.contextmanager
def _signals_handled() -> Iterator[None]:
    """Let a second signal kill: the agent would treat it as the first, and wait for ranks again."""
    from torch.distributed.elastic.multiprocessing import SignalException

    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    asked = False

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def stop(number: int, frame: Any) -> None:
        nonlocal asked
        if not asked:
            asked = True
            # What the agent waits for, to pass the signal on: ranks are in sessions of their own.
            raise SignalException("asked to stop", signal.Signals(number))
        restore()
        for pid in _ranks():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)  # with the processes that read its pictures
        raise KeyboardInterrupt

    for number in previous:
        signal.signal(number, stop)
    try:
        yield
    finally:
        restore()


def _ranks() -> list[int]:
    """The pids of the ranks here; only Linux lists them: elsewhere they end after their step."""
    me = os.getpid()
    try:
        return [int(pid) for pid in Path(f"/proc/{me}/task/{me}/children").read_text().split()]
    except FileNotFoundError:
        return []


@contextlib.contextmanager
def _silent(quiet: bool) -> Iterator[None]:
    """Silence the agent's log: our own errors say the same more clearly."""
    if quiet:
        logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _order(failed: tuple[int, Any]) -> tuple[int, int, int]:
    """A sort key with the cause first, then ranks that lost another or that the agent ended."""
    rank, failure = failed
    lost = _message(failure.message).startswith(RankLost.__name__)
    ended = failure.exitcode == -signal.SIGTERM
    return 2 * lost + ended, failure.timestamp, rank


def _message(content: str | dict[str, str]) -> str:
    return content if isinstance(content, str) else content.get("message", "")


def _explain(rank: int, devices: int, code: int, message: str) -> tuple[str, int]:
    """What to say of a rank that failed, and the exit code."""
    if code >= 0:
        return f"{message.partition(': ')[2] or message}", code or 1
    name = signal.Signals(-code).name
    hint = " The system does that when memory runs out." if name == "SIGKILL" else ""
    return (
        f"Process {rank} of {devices} was killed by {name}, and the others were stopped.{hint} "
        f"To go on from the last checkpoint, type: radapter train --resume --devices {devices}",
        128 - code,
    )


def record(error: str, kind: str) -> bool:
    """Leave this rank's error where torchrun looks for it; whether `launch` will show it."""
    path = os.environ.get(ERROR_FILE)
    if path is None:
        return False
    text = f"{kind}: {error}"
    about = {"py_callstack": text, "timestamp": str(int(time.time()))}
    content = {"message": {"message": text, "extraInfo": about}}
    Path(path).write_text(json.dumps(content), encoding="utf-8")
    return STARTED_HERE in os.environ

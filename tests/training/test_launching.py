"""Which of several failures is the cause, and what is said of it."""

import json
import signal
from dataclasses import dataclass

import pytest

from radapter.training import launching


@dataclass
class Failure:
    exitcode: int
    message: object
    timestamp: int


def said(text):
    return {"message": text, "extraInfo": {"py_callstack": text}}


OWN = Failure(4, said("BrokenInput: No such file: x."), 7)
LOST = Failure(4, said("RankLost: Another rank stopped"), 6)
ENDED = Failure(-signal.SIGTERM, "Signal 15 (SIGTERM) received by PID 5", 6)
KILLED = Failure(-signal.SIGKILL, "Signal 9 (SIGKILL) received by PID 5", 8)


@pytest.mark.parametrize(
    ("failures", "cause"),
    [
        ([ENDED, OWN], 1),
        ([LOST, ENDED, OWN], 2),
        ([LOST, KILLED], 1),
        ([KILLED, OWN], 1),
        ([LOST, ENDED], 1),
        ([OWN, OWN], 0),
        ([LOST], 0),
    ],
)
def test_the_cause_of_several_failures(failures, cause):
    rank, failure = min(enumerate(failures), key=launching._order)
    assert (rank, failure) == (cause, failures[cause])


def test_what_is_said_of_it():
    text = "No such file: a: b."
    assert launching._explain(1, 2, 4, f"BrokenInput: {text}") == (text, 4)
    message, code = launching._explain(1, 2, -signal.SIGSEGV, "Signal 11")
    assert code == 139
    assert "Process 1 of 2 was killed by SIGSEGV" in message
    assert "memory" not in message
    assert "memory runs out" in launching._explain(0, 2, -signal.SIGKILL, "Signal 9")[0]


def test_an_error_is_left_where_torchrun_looks_for_it(tmp_path, monkeypatch):
    monkeypatch.delenv(launching.ERROR_FILE, raising=False)
    assert not launching.record("x", "BrokenInput")
    monkeypatch.setenv(launching.ERROR_FILE, str(tmp_path / "error.json"))
    assert not launching.record("x", "BrokenInput")  # torchrun's own: it is printed too
    monkeypatch.setenv(launching.STARTED_HERE, "2")
    assert launching.record("No such file", "BrokenInput")
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

    failure = ProcessFailure(0, 5, 4, str(tmp_path / "error.json"))
    assert launching._message(failure.message) == "BrokenInput: No such file"
    assert json.loads((tmp_path / "error.json").read_text())["message"]["message"]

"""One thread, so that tests run alike anywhere; what many tests need is made once a session."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
import torch
from open_clip import SimpleTokenizer

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the user's cache of features; processes that tests start neither."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RADAPTER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_vocabulary() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SimpleTokenizer, "__init__", tiny.shared_vocabulary())
        yield


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder, for reading only."""
    return tiny.write(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def quick_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with QuickGELU."""
    return tiny.write(tmp_path_factory.mktemp("models") / "quick", quick_gelu=True)


@pytest.fixture(scope="session")
def coca_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CoCa, which has a text decoder."""
    return tiny.write(tmp_path_factory.mktemp("models") / "coca", **tiny.COCA)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder of three classes with eight pictures each, for reading only."""
    return tiny.draw_shapes(tmp_path_factory.mktemp("pictures") / "shapes")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests measured: `record_property("meter", line)`, which comes from workers too."""
    reports = [r for kept in terminalreporter.stats.values() for r in kept]
    meters = [
        str(line)
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, line in report.user_properties
        if name == "meter"
    ]
    if meters:
        terminalreporter.section("meters")
    for line in sorted(meters):
        terminalreporter.write_line(line)

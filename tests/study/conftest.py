"""A small study of drawn shapes, whose runs are carried out in this process."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import tiny
import yaml
from cli.conftest import cli

from radapter.errors import RadapterError
from radapter.study import one, running, schema
from radapter.study.planning import Plan
from radapter.study.results import Folder

__all__ = ["cli"]


@pytest.fixture(scope="session")
def other_shapes(tmp_path_factory) -> Path:
    """The shift: the same classes, drawn fewer."""
    return tiny.draw_shapes(tmp_path_factory.mktemp("pictures") / "others", each=5)


@dataclass
class Small:
    """A study file with its suite in a folder, and what was run of it."""

    place: Path
    done: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Folder:
        return Folder(self.place / "results" / "small")

    def write(self, **changes) -> Path:
        tree = yaml.safe_load((self.place / "small.yaml").read_text()) | changes
        (self.place / "small.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
        return self.place / "small.yaml"

    def plan(self, **changes) -> Plan:
        path = self.write(**changes)
        return Plan(schema.load(path), str(path))

    def run(self, **changes) -> list[running.Failure]:
        return running.run_study(self.plan(**changes), self.folder, runs=self.place / "runs")


@pytest.fixture
def small(tmp_path, monkeypatch, tiny_folder, shapes, other_shapes) -> Small:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(tiny.text(tiny_folder, shapes))
    sets = [
        {"name": "shapes", "role": "in-distribution", "data": _folder(shapes)},
        {"name": "others", "role": "shifted", "data": _folder(other_shapes)},
    ]
    suite = {"name": "shapes-shift", "tasks": ["classification"], "datasets": sets}
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite))
    (tmp_path / "small.yaml").write_text(
        yaml.safe_dump(
            {
                "name": "small",
                "recipe": "tiny.yaml",
                "set": {"data.hold_out": 0.3},
                "baseline": "zero-shot",
                "methods": {
                    "zero-shot": {"alpha": 0},
                    "full": {
                        "set": {"method": {"name": "full"}},
                        "grid": {"optimisation.lr": [1e-3, 1e-2]},
                        "alpha": 1,
                    },
                    "WiSE-FT": {  # the same runs as of full, in other words
                        "recipe": "tiny.yaml",
                        "set": {"method": {"name": "full"}},
                        "grid": {"optimisation.lr": [1e-3, 1e-2]},
                    },
                },
                "finalists": {"seeds": [0, 1]},
                "suites": ["suite.yaml"],
                "alphas": [0, 0.5, 1],
            },
            sort_keys=False,
        )
    )
    found = Small(tmp_path)

    def call(workers, order):
        found.done.append(order.name)
        try:
            one.carry_out(order, one.Stop())
        except RadapterError as error:
            return error.exit_code, json.dumps({"message": str(error)})
        return 0, ""

    monkeypatch.setattr(running.Workers, "call", call)
    return found


def _folder(root):
    return {"source": "folder", "root": str(root), "split": "all"}

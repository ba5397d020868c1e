"""The script that reads known truths from a study's results, on results that are made up."""

import importlib
import re
from pathlib import Path

import numpy as np
import pytest
import typer

from radapter.study.results import Folder, counts_of

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PLACES = {
    "line": "in-distribution", "solid": "shifted", "two-tone": "shifted", "colour": "shifted",
    "pixel": "shifted", "novel": "zero-shot", "noto": "zero-shot", "emojione": "zero-shot",
}  # fmt: skip
CLASSES, EACH = 200, 9
LINE, ELSEWHERE = 0, 1
SHARES = {
    "zero-shot": (0.5, 0.5),
    "full": (0.7, 0.4),
    "WiSE-FT": (0.65, 0.55),
    "ten times the rate": (0.2, 0.1),
}
"""Of each method what it scores on line, and on every other data set"""


def result(shares, generator, rate):
    datasets = {}
    for place, role in PLACES.items():
        share = shares[LINE if place == "line" else ELSEWHERE]
        right = generator.binomial(EACH, share, CLASSES)
        metric = {"clusters": 0, "chance": 0.01, "items": str(EACH) * CLASSES}
        datasets[place] = {
            "role": role,
            "partial": None,
            "metrics": {"accuracy": metric | {"right": [counts_of(right)]}},
        }
    shifts, emoji = ["solid", "two-tone", "colour", "pixel"], ["noto", "emojione"]
    protocol = {"averages": {"shifts": shifts, "emoji": emoji}}
    suite = {"protocol": protocol, "alphas": [1.0], "clusters": [list(range(CLASSES))]}
    recipe = {"optimisation": {"lr": rate}}
    suites = {"icons-shifts": suite | {"datasets": datasets}}
    return {"held_out": {"auto": 1.0}, "recipe": recipe, "suites": suites}


@pytest.fixture
def laboratory(tmp_path, monkeypatch):
    """`laboratory(shares)` runs the script on results of those scores."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    script = importlib.import_module("laboratory")

    def run(shares, times=10):
        generator, folder = np.random.default_rng(0), Folder(tmp_path / "laboratory")
        methods = {}
        for number, (label, own) in enumerate(shares.items()):
            names = [f"m{number}-seed{seed}" for seed in range(6)]
            for name in names:
                rate = times * 1e-4 if label == "ten times the rate" else 1e-4
                folder.write_run(name, result(own, generator, rate))
            finalists = [{"fold": 0, "seed": i, "run": name} for i, name in enumerate(names)]
            methods[label] = {
                "alpha": 1.0, "settings": [], "chosen": None, "finalists": finalists
            }  # fmt: skip
        folder.write_study({"suites": ["icons-shifts"], "methods": methods})
        script.main(folder.path)

    return run


def truths(text):
    return [line[:3].strip() for line in text.splitlines() if line[5:6] == "("]


def test_what_holds_is_shown(laboratory, capsys):
    laboratory(SHARES)
    said = capsys.readouterr().out
    assert truths(said) == ["yes"] * 5
    gain = float(re.search(r"line ([+-][\d.]+)", said)[1])
    assert gain == pytest.approx(20, abs=1.5)


def test_ten_times_the_rate_has_to_be_that(laboratory, capsys):
    with pytest.raises(typer.Exit):
        laboratory(SHARES, times=3)
    said = capsys.readouterr().out
    assert truths(said) == ["yes"] * 4 + ["NO"]
    assert "3 times the rate that is chosen for full" in said


def test_methods_that_lack_runs_are_named(laboratory):
    with pytest.raises(typer.BadParameter, match="lacks runs of WiSE-FT"):
        laboratory({label: own for label, own in SHARES.items() if label != "WiSE-FT"})


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        ({"full": (0.52, 0.4)}, {0}),  # gains less than 8 points
        ({"full": (0.7, 0.5), "WiSE-FT": (0.65, 0.6)}, {1}),  # loses nothing
        ({"WiSE-FT": (0.65, 0.4)}, {2}),  # interpolation is full itself
        ({"ten times the rate": (0.7, 0.1)}, {4}),  # not seen on line
    ],
)
def test_what_does_not_hold_is_said(laboratory, capsys, change, lost):
    with pytest.raises(typer.Exit):
        laboratory(SHARES | change)
    shown = truths(capsys.readouterr().out)
    assert {i for i, said in enumerate(shown) if said == "NO"} == lost

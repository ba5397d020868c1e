"""Greedy soup (Wortsman et al., ICML 2022): a run is added where the mean scores better with it.

Runs are tried from the best to the worst by themselves, on held-out data of the training
distribution. The first is taken; each further one stays if the mean of those taken and it scores
higher than the mean without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from radapter.merging import uniform
from radapter.merging.deltas import State

Ties = Literal["leave", "add"]


def combine(
    base: State,
    tuned: Sequence[State],
    *,
    score: Callable[[State], float],
    ties: Ties = "leave",
) -> tuple[State, dict[str, Any]]:
    """The mean of those taken, with `tried`: in the order of trying, each run's number from 0,
    its score `alone`, the score `with` it, the `best` score before, and whether it was `added`.

    Args:
        base: the weights that all runs started from.
        tuned: of each run, the merged weights that differ from these.
        score: of such weights, on held-out data; larger is better.
        ties: what becomes of a run that changes the score by nothing. The authors' code leaves it
            out, the paper's recipe adds it.
    """
    alone = [score(state) for state in tuned]
    order = sorted(range(len(tuned)), key=lambda number: -alone[number])
    taken, best = [order[0]], alone[order[0]]
    soup = tuned[order[0]]
    tried = [{"run": order[0], "alone": best, "with": best, "best": None, "added": True}]
    for number in order[1:]:
        candidate, _ = uniform.combine(base, [tuned[i] for i in [*taken, number]])
        found = score(candidate)
        added = found > best or (ties == "add" and found == best)
        facts = {"alone": alone[number], "with": found, "best": best, "added": added}
        tried.append({"run": number, **facts})
        if added:
            taken, best, soup = [*taken, number], found, candidate
    return soup, {"tried": tried}

"""radapter runs: what has been trained here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from radapter.errors import RadapterError
from radapter_cli import console

if TYPE_CHECKING:
    from radapter.run import Run


def runs(as_json: console.JsonOption = False) -> None:
    """List the runs in ./runs: name, when, method, how far, suites and their best numbers."""
    from radapter.run import all_runs

    rows = [describe(run) for run in all_runs()]
    if as_json:
        console.print_json({"runs": rows})
        return
    if not rows:
        console.result("No runs in ./runs yet.")
        console.next_command("radapter train emoji")
        return
    from rich.table import Table

    table = Table("run", "when (UTC)", "method", "state", "best numbers", box=None, pad_edge=False)
    for row in rows:
        table.add_row(
            row["name"], row["when"], row["method"], row["state"], "\n".join(row["best"]) or "-"
        )
    console.out.print(table)


def describe(run: Run) -> dict[str, Any]:
    """One row. A run that cannot be read is listed as damaged rather than hiding the others."""
    when = f"{run.created:%Y-%m-%d %H:%M}" if run.created else "?"
    row: dict[str, Any] = {"name": run.name, "when": when, "path": str(run.path)}
    try:
        recipe = run.recipe()
    except RadapterError as error:
        return row | {"method": "?", "state": f"damaged: {error}", "best": []}
    return row | {"method": recipe.method.name, "state": state(run), "best": best_numbers(run)}


def state(run: Run) -> str:
    """How far the run's present model has come."""
    if not run.adapter.is_file():
        return "unfinished"
    try:
        merged = json.loads((run.merged() / "merged.json").read_text())
        exported = run.bundle_for(merged["weights_hash"]).is_dir()
        return f"{'exported' if exported else 'merged'} at {merged['alpha']:.2f}"
    except (RadapterError, OSError, ValueError, KeyError, TypeError):
        return "trained"


def best_numbers(run: Run) -> list[str]:
    """For each suite the evaluation with the best in-distribution accuracy, one line each."""
    best: dict[str, tuple[float, str]] = {}
    for path in sorted(run.evaluations.glob("*.json")):
        try:
            result = json.loads(path.read_text())
            label = next(name for name in result["models"] if name.startswith("alpha"))
            roles = result["models"][label]["roles"]
            metric = next(
                m for m in ("accuracy", "text_to_image_r1") if m in next(iter(roles.values()))
            )
            numbers = {role: 100 * values[metric]["value"] for role, values in roles.items()}
        except (ValueError, KeyError, TypeError, AttributeError, StopIteration, OSError):
            continue
        text = ", ".join(f"{role} {number:.1f}" for role, number in numbers.items())
        line = f"{result['suite']} at {label}: {metric.replace('_', ' ')} {text}"
        first = next(iter(numbers.values()))
        if result["suite"] not in best or first > best[result["suite"]][0]:
            best[result["suite"]] = (first, line)
    return [line for _, line in best.values()]

"""What a run is, how far it has come, its best numbers and curves; finished, running or killed."""

from __future__ import annotations

import statistics
from typing import Any

from radapter.data.accounts import read_accounts
from radapter.errors import BrokenInput, RadapterError
from radapter.evaluation.scores import main_metrics, name_of
from radapter.evaluation.written import of_kind, read_result
from radapter.files import radapter_facts
from radapter.registry import folds
from radapter.reporting.comparison import data_in_words, method_in_words
from radapter.run import Run

OF_THE_LAST_STEP = ("data_wait_share", "peak_memory_bytes", "memory_of", "loss", "lr")


def describe(run: Run) -> dict[str, Any]:
    """The row of a run in the list of all. One that cannot be read is listed as damaged rather than
    hiding the others."""
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
        merged = run.merged_facts()
    except (BrokenInput, OSError):
        plain = folds(run.recipe().method.name)  # of other methods there is no merged model
        return "exported" if not plain and _folders(run, "bundles") else "trained"
    exported = run.bundle_for(merged["weights_hash"]).is_dir()
    how = f"by {merged['rule']}" if "rule" in merged else f"at {merged['alpha']:.2f}"
    return f"{'exported' if exported else 'merged'} {how}"


def best_numbers(run: Run) -> list[str]:
    """For each suite the evaluation with the best in-distribution accuracy, one line each."""
    best: dict[str, tuple[float, str]] = {}
    for path in sorted(run.evaluations.glob("*.json")):
        try:
            result = read_result(path)
            label = of_kind(result, "tuned")[0]
            roles = result["models"][label]["roles"]
            metric = next(m for m in main_metrics().values() if m in next(iter(roles.values())))
            numbers = {role: 100 * values[metric]["value"] for role, values in roles.items()}
        except (ValueError, LookupError, TypeError, AttributeError, StopIteration, OSError):
            continue
        text = ", ".join(f"{role} {number:.1f}" for role, number in numbers.items())
        line = f"{result['suite']} at {label}: {name_of(metric)} {text}"
        first = next(iter(numbers.values()))
        if result["suite"] not in best or first > best[result["suite"]][0]:
            best[result["suite"]] = (first, line)
    return [line for _, line in best.values()]


def run_facts(run: Run) -> dict[str, Any]:
    """Everything that the run's files say of it, as plain data.

    `training` is `running` (a process, `writer`, holds the run), `stopped` (none does, and it has
    not finished), `finished` or `stopped early`. What is not known yet is None.

    Raises:
        BrokenInput: the recipe is missing or damaged.
    """
    recipe = run.recipe()
    steps, validations = run.logged("loss"), run.logged("validation")
    last = steps[-1] if steps else {}
    done = max((line["step"] for line in [*steps[-1:], *validations[-1:]]), default=0)
    adapter = adapter_facts(run)
    writer = run.writer()
    if adapter is not None:
        done = adapter["steps"] or done
        training = "stopped early" if last and done < last["steps"] else "finished"
    else:
        training = "running" if writer else "stopped"
    rates = [line["pairs_per_second"] for line in steps if "pairs_per_second" in line]
    return {
        "name": run.name,
        "path": str(run.path),
        "created": run.created,
        "recipe": recipe.name,
        "description": recipe.description,
        "model": recipe.model,
        "method": method_in_words(recipe),
        "soup": run.soup(),
        "data": data_in_words(recipe),
        "used": read_accounts(run.path),
        "training": training,
        "writer": writer,
        "step": done,
        "steps": last.get("steps"),
        "seconds": last.get("seconds"),
        "pairs_per_second": statistics.median(rates) if rates else None,
        **{key: last.get(key) for key in OF_THE_LAST_STEP},
        "start_share": adapter["start_share"] if adapter else last.get("start_share"),
        "validation": validation_facts(validations) if validations else None,
        "adapter": adapter,
        "best": run.best.name if run.best.is_file() else None,
        "merged": _folders(run, "merged"),
        "present": _present(run),
        "bundles": _folders(run, "bundles"),
        "evaluations": sorted(path.stem for path in run.evaluations.glob("*.json")),
    }


def adapter_facts(run: Run) -> dict[str, Any] | None:
    """Of adapter.safetensors: `file`, `bytes`, `steps`, `trained_parameters`, `start_share`; None
    if it is not there yet."""
    if not run.adapter.is_file():
        return None
    try:
        facts = radapter_facts(run.adapter)
    except (BrokenInput, KeyError, TypeError, ValueError):
        facts = {}  # damaged: the rest is still reported
    known = {key: facts.get(key) for key in ("steps", "trained_parameters", "start_share")}
    return {"file": run.adapter.name, "bytes": run.adapter.stat().st_size, **known}


def validation_facts(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The last validation and the best, which is of `best_step`, from all lines of validations."""
    last = lines[-1]
    metric = last["metric"]
    best = next((line for line in lines if line["step"] == last["best_step"]), last)
    return {
        "metric": metric,
        "alpha": last["alpha"],
        "step": last["step"],
        "value": last["validation"][metric],
        "best_step": best["step"],
        "best": best["validation"][metric],
    }


def _folders(run: Run, name: str) -> list[str]:
    found = (path for path in (run.path / name).glob("*") if path.is_dir())
    return sorted(path.name for path in found if not path.name.startswith("."))


def _present(run: Run) -> str | None:
    """The merged model that export and evaluation work on."""
    try:
        return run.merged().name
    except (BrokenInput, OSError):
        return None

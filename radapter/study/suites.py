"""The suites of a study: as they are scored, and as they are tried."""

from __future__ import annotations

import hashlib
import json

from radapter.evaluation.suite import Suite, load_suite
from radapter.recipe import Recipe


def suite_of(name: str, smoke: bool) -> Suite:
    """A suite by its name or file; to try that all works, one data set of each role, with few
    pictures where it can be so."""
    suite = load_suite(name)
    if not smoke:
        return suite
    first = {dataset.role: dataset.name for dataset in reversed(suite.datasets)}
    more = [dataset.name for dataset in suite.datasets if dataset.name not in first.values()]
    suite = suite.without(more)
    datasets = [own.model_copy(update={"data": own.data.fewest()}) for own in suite.datasets]
    return suite.model_copy(update={"datasets": datasets})


def suite_for(suite: Suite, recipe: Recipe, precision: str = "fp32") -> tuple[Suite, str]:
    """The suite as a recipe's model is scored on it, and a hash of what it says."""
    fitted = suite.for_recipe(recipe)
    half = {} if precision == "fp32" else {"precision": precision}
    text = json.dumps(fitted.model_dump(mode="json") | half, sort_keys=True)
    return fitted, hashlib.sha256(text.encode()).hexdigest()[:16]

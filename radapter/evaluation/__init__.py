"""Suites of data sets, scored on any runtime; two runtimes compared item by item."""

from radapter.evaluation.cache import Cache, user_cache
from radapter.evaluation.evaluate import evaluate
from radapter.evaluation.parity import compare
from radapter.evaluation.result import Evaluation
from radapter.evaluation.suite import (
    Suite,
    held_out_suite,
    load_suite,
    shipped_suites,
    trained_metric,
)

__all__ = [
    "Cache",
    "Evaluation",
    "Suite",
    "compare",
    "evaluate",
    "held_out_suite",
    "load_suite",
    "shipped_suites",
    "trained_metric",
    "user_cache",
]

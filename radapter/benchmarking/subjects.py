"""What is measured: a model with its weights, its bundle or both, in every runtime that opens."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radapter import bundle, models
from radapter.errors import GateFailed, MissingDependency, RadapterError, UsageError
from radapter.export import Contents, export_bundle
from radapter.merging import tuned, tuned_title
from radapter.models import LoadedModel
from radapter.run import Run
from radapter.runtimes import Runtime
from radapter.runtimes.engines import ENGINES

EXPORTED = ("fp32", "int8")
"""Precisions that a model without a bundle is exported in"""


@dataclass
class Subject:
    """A model to measure: its weights in PyTorch, its bundle, or both."""

    name: str
    loaded: LoadedModel | None
    folder: Path | None
    export: Callable[[], Path] | None = None
    """Exports the bundle, where there is none"""

    def weights(self) -> LoadedModel:
        if self.loaded is None:
            raise MissingDependency("A bundle has no weights for PyTorch: give --run or --model.")
        return self.loaded

    def bundle(self) -> Path:
        if self.folder is None:
            assert self.export
            self.folder = self.export()
        return self.folder


@contextlib.contextmanager
def open_subject(
    source: Run | Path | str, *, engines: bool, precisions: Sequence[str] | None, max_batch: int
) -> Iterator[Subject]:
    """A model, with its bundle if engines are asked for; what is exported is gone at the end.

    Args:
        source: a run, a bundle, or what `models.load` takes.
        engines: whether a bundle is needed.
        precisions: to export in, where there is no bundle. None: `EXPORTED`.
        max_batch: of an export, the largest batch that it is verified with.

    Raises:
        UsageError: no such model.
        BrokenInput: the bundle is missing or damaged.
    """
    if isinstance(source, Run):
        loaded, facts = tuned(source)
        exported = source.exported(facts["weights_hash"]) if engines else None
        if exported:
            bundle.verify(exported, weights_hash=facts["weights_hash"])
        yield Subject(tuned_title(source, facts), loaded, exported)
        return
    folder = Path(source)
    if (folder / bundle.MANIFEST).is_file():
        manifest = bundle.verify(folder)
        name = f"{manifest.get('recipe', folder)}, alpha {manifest.get('alpha', '?')}"
        yield Subject(name, None, folder)
        return
    if (folder / "recipe.yaml").is_file():
        raise UsageError(f"{folder} is a run: give it as --run {folder}")
    loaded = models.load(source)
    with tempfile.TemporaryDirectory(prefix="radapter-bench-") as temporary:

        def export() -> Path:
            target = Path(temporary) / "bundle"
            facts: dict[str, Any] = {"base_model": str(source), "base_hash": loaded.weights_hash}
            facts |= {"recipe": "none", "recipe_hash": "", "method": "none", "alpha": 0.0}
            contents = Contents(precisions or EXPORTED, max_batch=max_batch)
            export_bundle(loaded, target, contents, facts=facts)
            return target

        yield Subject(str(source), loaded, None, export)


Opened = list[tuple[str, Runtime, int | None]]
"""(name, runtime, threads)"""


def open_runtimes(
    subject: Subject, names: Sequence[str], precisions: Sequence[str], threads: Sequence[int]
) -> tuple[Opened, list[dict[str, str]]]:
    """Every runtime in every precision with every number of threads.

    Args:
        names: of `ENGINES`.
        precisions: of engines; PyTorch is opened in fp32 in any case.
        threads: on the CPU.

    Returns:
        What opened, and `runtime`, `precision` and `reason` of what did not.

    Raises:
        GateFailed: what was exported does not do what the model does.
        RadapterError: nothing opens; the first reason.
    """
    opened: Opened = []
    left_out = []
    first: RadapterError | None = None
    for name in dict.fromkeys(names):
        engine = ENGINES[name]
        on_cpu = engine.device == "cpu"
        wanted = list(precisions)
        if engine.reference:  # in half precision where engines of it are measured, on GPUs alone
            wanted = ["fp32", *(p for p in precisions if p in engine.precisions and not on_cpu)]
        for precision in dict.fromkeys(wanted):
            try:
                if precision not in engine.precisions:
                    known = " and ".join(engine.precisions)
                    raise UsageError(f"Unknown precision '{precision}' for {name}. Known: {known}.")
                source = subject.weights() if engine.reference else subject.bundle()
                for n in threads if on_cpu else threads[:1]:
                    runtime = engine.open(source, precision=precision, threads=n)
                    opened.append((name, runtime, n if on_cpu else None))
            except GateFailed:
                raise
            except RadapterError as error:
                first = first or error
                left_out.append({"runtime": name, "precision": precision, "reason": str(error)})
    if not opened:
        assert first
        raise first
    return opened, left_out

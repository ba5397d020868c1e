"""A run folder: what is in it, the newest one, atomic writes, locking.

    runs/<recipe>-<UTC time>-<short id>/
        recipe.yaml           the resolved recipe
        environment.json      versions and machine
        data.json             how many pictures training used, and what was left out
        metrics.jsonl         one line per logged step, and one per validation
        classes.json          class names and their prompts, if classes were trained
        soup.json             what a soup was made of (`radapter soup`)
        adapter.safetensors   the averaged adapter, once training has finished
        best.safetensors      the one with the best validation so far, if the recipe monitors it
        checkpoints/step-N/   state.safetensors + state.json, to resume from
        merged/alpha-0.50/    open_clip folder, with head.safetensors if a head was trained;
                              merged/current names the present one
        bundles/<hash>/       deployable folders, by the hash of the merged weights
        eval/*.json           results
        eval/answers/*.json   of each, the pictures that tuning gained or lost

A file is written under a temporary name, synced and renamed; a folder likewise. So a kill at any
moment leaves the old state or the new one.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import secrets
import shutil
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from radapter import recipe as recipes
from radapter.errors import BrokenInput, UsageError, command
from radapter.files import clear_temporary, new_folder, refuse_newer, remove_folder

DEFAULT_ROOT = Path("runs")
SOUP = "soup.json"
UNBORN_SECONDS = 3600.0
"""A run folder is made in less than that."""
Curves = dict[str, list[tuple[int, float]]]
Which = Literal["last", "best"]
"""The adapter after the last step, or the one with the best validation"""


@dataclass(frozen=True)
class Run:
    """Paths inside a run folder; nothing is read until asked for."""

    path: Path

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.path.name

    @property
    def adapter(self) -> Path:
        """The file of the adapter after the last step."""
        return self.path / "adapter.safetensors"

    @property
    def best(self) -> Path:
        """The file of the adapter with the best validation."""
        return self.path / "best.safetensors"

    def classes(self) -> dict[str, Any] | None:
        """`names` and, for each, its `prompts`, as trained; None if no classes were."""
        path = self.path / "classes.json"
        if not path.is_file():
            return None
        try:
            classes = json.loads(path.read_text(encoding="utf-8"))
            return {"names": classes["names"], "prompts": classes["prompts"]}
        except (ValueError, KeyError, TypeError):
            raise BrokenInput(f"{path} is damaged: train again.") from None

    def soup(self) -> dict[str, Any] | None:
        """What it was made of, if it is a soup: `rule`, `runs` and more; None if it was trained."""
        try:
            about = json.loads((self.path / SOUP).read_text(encoding="utf-8"))
            return {**about, "rule": str(about["rule"]), "runs": list(about["runs"])}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            raise BrokenInput(f"{self.path / SOUP} is damaged: make the soup again.") from None

    def class_names(self) -> list[str] | None:
        """The names alone."""
        classes = self.classes()
        return None if classes is None else list(classes["names"])

    @property
    def metrics(self) -> Path:
        """The file of metrics, a line of JSON each."""
        return self.path / "metrics.jsonl"

    def logged(self, key: str = "step") -> list[dict[str, Any]]:
        """Lines of metrics.jsonl that have `key`: `loss` those of training, `validation` those of
        validation. They end before the first that is not whole, as the last of a run that is being
        written, or was killed, may be."""
        lines: list[dict[str, Any]] = []
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            for line in self.metrics.read_text(encoding="utf-8").splitlines():
                content = json.loads(line)
                lines += [content] if content["step"] >= 0 and key in content else []
        return lines

    def curves(self, most: int | None = None) -> Curves:
        """(step, value) by name: `loss`, `lr`, and `validation METRIC` in %. Values are finite.

        Args:
            most: points of a curve at most, evenly spaced, with the first and the last.
        """
        found: Curves = {}
        for line in self.logged("loss"):
            for name in ("loss", "lr"):
                found.setdefault(name, []).append((line["step"], line[name]))
        for line in self.logged("validation"):
            value = 100 * line["validation"][line["metric"]]
            found.setdefault(f"validation {line['metric']}", []).append((line["step"], value))
        for name, points in list(found.items()):
            finite = [point for point in points if math.isfinite(point[1])]
            if most and len(finite) > most:
                last = len(finite) - 1
                finite = [finite[round(i * last / (most - 1))] for i in range(most)]
            found[name] = finite
        return {name: points for name, points in found.items() if points}

    def cost(self) -> dict[str, Any]:
        """`seconds` of training, and its peak memory, the largest, as a resumed run was several
        processes: `peak_memory_bytes`, and `memory_of` what, `cuda` or `process`.

        None for what its log does not say.
        """
        try:
            lines = self.logged("loss")
            seconds, kind = float(lines[-1]["seconds"]), lines[-1].get("memory_of")
            of_kind = [line for line in lines if kind and line.get("memory_of") == kind]
            peak = max((int(line["peak_memory_bytes"]) for line in of_kind), default=None)
            return {"seconds": seconds, "peak_memory_bytes": peak, "memory_of": kind}
        except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError):
            return {"seconds": None, "peak_memory_bytes": None, "memory_of": None}

    @property
    def checkpoints(self) -> Path:
        """The folder that training goes on from."""
        return self.path / "checkpoints"

    @property
    def evaluations(self) -> Path:
        """The folder of results of `radapter eval`."""
        return self.path / "eval"

    @property
    def created(self) -> datetime | None:
        """When the run was started, in UTC, from its name."""
        try:
            return datetime.strptime(self.name.rsplit("-", 2)[1], "%Y%m%dT%H%M%SZ").replace(
                tzinfo=UTC
            )
        except (IndexError, ValueError):
            return None

    def recipe(self) -> recipes.Recipe:
        """The recipe that the run was trained by, with every default."""
        path = self.path / "recipe.yaml"
        if not path.is_file():
            raise BrokenInput(f"Not a run folder: {self.path} has no recipe.yaml.")
        try:
            return recipes.as_trained(recipes.load(path))
        except UsageError as error:
            raise BrokenInput(f"The run's recipe is damaged: {error}") from None

    def trained(self, which: Which = "last") -> Path:
        """The adapter file; BrokenInput names the command to type if training has not finished."""
        if not self.adapter.is_file():
            raise BrokenInput(
                f"Run {self.name} has not finished training. "
                f"Type first: {command('train', '--resume', self.path)}"
            )
        if which == "best" and not self.best.is_file():
            raise BrokenInput(
                f"Run {self.name} has no {self.best.name}: its recipe sets no validation "
                "(monitor.every_epochs). Merge the last adapter, or train again."
            )
        return self.best if which == "best" else self.adapter

    def which(self) -> Which:
        """The adapter that the present merged model was made of; without one, the last."""
        try:
            return "best" if self.merged_facts().get("adapter") == "best" else "last"
        except (BrokenInput, OSError):
            return "last"

    def merged(self) -> Path:
        """The present merged model; BrokenInput names the command if there is none."""
        pointer = self.path / "merged" / "current"
        if not pointer.is_file():
            self.trained()
            raise BrokenInput(
                f"Run {self.name} has no merged model. "
                f"Type first: {command('merge', '--run', self.path)}"
            )
        name = pointer.read_text().strip()
        if name not in (path.name for path in pointer.parent.iterdir() if path.is_dir()):
            raise BrokenInput(
                f"{pointer} names a folder that does not exist. Type first: "
                f"{command('merge', '--run', self.path)}"
            )
        return pointer.parent / name

    def merged_facts(self) -> dict[str, Any]:
        """What the present merged model is: `weights_hash`, `alpha` and more.

        Raises:
            BrokenInput: there is none, or its facts are damaged.
        """
        path = self.merged() / "merged.json"
        try:
            facts = dict(json.loads(path.read_text(encoding="utf-8")))
            refuse_newer(path, facts)
            return facts | {
                "weights_hash": str(facts["weights_hash"]),
                "alpha": float(facts["alpha"]),
            }
        except (OSError, ValueError, KeyError, TypeError):
            raise BrokenInput(f"{path} is missing or damaged: merge again.") from None

    def bundle_for(self, merged_hash: str) -> Path:
        """Where the bundle made from merged weights with this hash is, or would be."""
        return self.path / "bundles" / merged_hash[:16]

    def exported(self, merged_hash: str) -> Path:
        """The same; BrokenInput names the command if there is none."""
        folder = self.bundle_for(merged_hash)
        if not folder.is_dir():
            raise BrokenInput(
                f"Run {self.name} has no bundle exported from its present merged model. "
                f"Type first: {command('export', '--run', self.path)}"
            )
        return folder

    def writer(self) -> str | None:
        """The process that holds the run now, None if none does."""
        path = self.path / ".lock"
        if not path.is_file():
            return None
        try:
            with FileLock(path, timeout=0):
                return None
        except Timeout:
            return _who(self.path / ".writer")
        except OSError:  # a folder that this user cannot write to
            return None

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run while writing to it; what a killed process left half-done is cleared first.

        It is an OS lock, so it does not outlive a killed process. `.writer` says who holds it. On a
        network file system that does not pass locks on between machines only that file can tell
        of a writer on another one, and not whether it is still alive: that is a warning.

        Raises:
            BrokenInput: another process holds it, or the folder cannot be written to.
        """
        writer = self.path / ".writer"
        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise BrokenInput(
                f"Run {self.name} is being written by another process ({_who(writer)}). "
                "Wait until it is done, or end it."
            ) from None
        except OSError as error:
            raise _not_writable("The run folder", self.path, error) from None
        with lock:
            left = _read_writer(writer)
            if left.get("host", socket.gethostname()) != socket.gethostname():
                warnings.warn(
                    f"Run {self.name} was last written by {_who(writer)}, which did not finish. If "
                    "it still runs, and this file system does not pass locks on between machines, "
                    "stop one of the two.",
                    stacklevel=3,
                )
            clear_temporary(self.path)
            if self.adapter.is_file():  # killed before they could be removed
                remove_folder(self.checkpoints)
            facts = {
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "since": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            with contextlib.suppress(OSError):  # a full disk: what is written next says so
                writer.write_text(json.dumps(facts) + "\n")
            try:
                yield
            finally:
                writer.unlink(missing_ok=True)


def _not_writable(what: str, folder: Path, error: OSError) -> BrokenInput:
    return BrokenInput(
        f"{what} {folder} cannot be written to ({error.strerror or error}). "
        "Make it writable, or work on a copy in a place that is."
    )


def _read_writer(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text())
        return {key: facts[key] for key in ("pid", "host", "since")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _who(path: Path) -> str:
    facts = _read_writer(path)
    return "pid {pid} on {host}, since {since}".format(**facts) if facts else "it is just starting"


def create(
    recipe: recipes.Recipe,
    root: Path = DEFAULT_ROOT,
    fill: Callable[[Path], None] = lambda folder: None,
) -> Run:
    """A new run folder with its resolved recipe in it, and what `fill` puts there."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    _clear_unborn(Path(root))
    run = Run(Path(root) / f"{recipe.name}-{stamp}-{secrets.token_hex(3)}")
    try:
        with new_folder(run.path) as folder:
            (folder / "recipe.yaml").write_text(recipes.dump(recipe), encoding="utf-8")
            fill(folder)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise _not_writable("The folder for runs,", run.path.parent, error) from None
        raise
    return run


def _clear_unborn(root: Path) -> None:
    """Remove run folders that a process was killed while making; a young one may be being made."""
    for leftover in root.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - leftover.stat().st_mtime > UNBORN_SECONDS:
                shutil.rmtree(leftover)


def all_runs(root: Path = DEFAULT_ROOT) -> list[Run]:
    """Every run under `root`, the oldest first."""
    found = [Run(p.parent) for p in Path(root).glob("*/recipe.yaml")]
    oldest = datetime.min.replace(tzinfo=UTC)
    return sorted(
        (run for run in found if not run.name.startswith(".")),
        key=lambda run: (run.created or oldest, (run.path / "recipe.yaml").stat().st_mtime_ns),
    )


def find(path: Path | None = None, root: Path = DEFAULT_ROOT) -> Run:
    """The run at `path` (a folder, or a name under `root`, or the beginning of one alone), or the
    newest one if it is None."""
    if path is None:
        runs = all_runs(root)
        if not runs:
            raise BrokenInput(
                f"No run in {Path(root)}/. Type first: radapter train RECIPE "
                "(`radapter recipes` lists what ships)"
            )
        return runs[-1]
    for candidate in (Path(path), Path(root) / path):
        if (candidate / "recipe.yaml").is_file():
            return Run(candidate)
    begin = [run for run in all_runs(root) if run.name.startswith(str(path))]
    if len(begin) > 1:
        raise UsageError(
            f"{len(begin)} runs begin with {path}: {', '.join(run.name for run in begin[:5])}"
            f"{', ...' if len(begin) > 5 else ''}. Give more of the name."
        )
    if begin:
        return begin[0]
    raise BrokenInput(f"No run at {path}. `radapter runs` lists what is there.")

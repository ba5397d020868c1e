"""Sets that clip-benchmark wrote as shards, with their class names and templates beside them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field

from radapter.data.dataset import Dataset
from radapter.data.pixels import PUBLISHED
from radapter.data.settings import USUAL_TEMPLATES, IdenticalClasses, Templates, located
from radapter.data.sources.shards import InShards, samples
from radapter.errors import BrokenInput, UsageError


class ClipBenchmarkData(InShards):
    """clip-benchmark's folders of shards: ROOT/SPLIT/{nshards.txt, 0.tar, 1.tar ...}, and beside
    the splits classnames.txt, or dataset_type.txt with the word `retrieval`."""

    convention = PUBLISHED
    source: Literal["clip-benchmark"]
    named_by = ("root", "dataset_split")
    root: Annotated[str, Field(examples=["wds_cars"])]
    """The folder of the set."""
    dataset_split: str = "train"
    """The folder of shards below the root. `hold_out` holds out a share of it."""
    templates: Templates | None = None  # type: ignore[assignment]
    """Prompts for class names, in which `{}` stands for the name. `null`: those in the set's file
    zeroshot_classification_templates.txt, as clip-benchmark takes them; without that file, those of
    the suite, or "a photo of a {}."."""
    identical_classes: IdenticalClasses = "apart"
    own_splits = True

    def prompts(self) -> Templates:
        return self.own_prompts() or USUAL_TEMPLATES

    def own_prompts(self) -> Templates | None:
        """Raises BrokenInput for a file that cannot be read or has a line without its one {c}."""
        if self.templates is not None:
            return self.templates
        path = located(self, self.root) / "zeroshot_classification_templates.txt"
        try:
            lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise BrokenInput(f"{path} cannot be read: {error}") from None
        # Written as Python formats: {c} is the class name.
        prompts = [line.replace("{c}", "{}") for line in lines if line]
        wrong = next((p for p in prompts if p.count("{}") != 1), None)
        if wrong is not None:
            raise BrokenInput(
                f"{path} has a template without exactly one {{c}} for the class name: "
                f"'{wrong}'. Correct it, or set data.templates."
            )
        return prompts or None

    def settled(self) -> Self:
        """With its templates, so that the model is used by them where the data is not."""
        return super().settled().model_copy(update={"templates": self.prompts()})

    def open(self) -> Dataset:
        """The shards of a split in clip-benchmark's layout, class names from the file beside."""
        root = located(self, self.root)
        split = root / self.dataset_split
        try:
            number = int((split / "nshards.txt").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            have = ", ".join(sorted(p.parent.name for p in root.glob("*/nshards.txt"))) or "none"
            raise BrokenInput(
                f"{split} has no nshards.txt with the number of its shards. Splits that are there "
                f"(data.dataset_split): {have}."
            ) from None
        kind = root / "dataset_type.txt"
        if kind.is_file() and kind.read_text(encoding="utf-8").strip().lower() == "multilabel":
            raise UsageError(f"{root} has several classes a picture; radapter scores one.")
        if self.task == "classification":
            self.own_prompts()  # damaged ones are named before any work is done
        names = root / "classnames.txt"
        class_names: list[str] = []
        if self.task == "classification" and names.is_file():
            class_names = [
                line.strip() for line in names.read_text(encoding="utf-8").rstrip().splitlines()
            ]
        paths = [split / f"{i}.tar" for i in range(number)]
        return samples(self, f"clip-benchmark {split}", paths, class_names, names)

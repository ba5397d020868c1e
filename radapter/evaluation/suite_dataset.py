"""A data set of a suite: its pictures, its role, its prompts, its gallery."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from radapter.data import Dataset, open_data
from radapter.data.opening import DataSource
from radapter.data.searched import LeftOutOf, of_classes, searchable
from radapter.data.settings import Data, Templates
from radapter.evaluation.published import Published
from radapter.recipe import Name
from radapter.registry import Positive, Section

Role = Literal["in-distribution", "shifted", "unseen", "seen", "zero-shot", "control"]


class Gallery(Section):
    """The pictures that are looked for, for the task `picture-retrieval`."""

    data: Annotated[list[DataSource], Field(min_length=1)]
    """The data sets that make it together, such as unseen classes and seen ones."""
    classes: Annotated[list[str], Field(min_length=1)] | None = None
    """The classes whose pictures are in it. `null`: all."""
    leave_out: LeftOutOf = "picture"
    """What is no answer to a query, right or wrong. `picture`: itself. `group`: all pictures of the
    same thing, such as a concept in another style. `maker`: all pictures by who drew it, as one
    hand's drawings of a class are near copies."""

    def searched(self, queries: Dataset) -> Dataset:
        """Queries and gallery as one data set, see `data.searched`."""
        parts = [
            open_data(section.model_copy(update={"task": "classification"}))
            for section in self.data
        ]
        if self.classes is not None:
            parts = [of_classes(part, self.classes) for part in parts]
        return searchable(queries, parts, self.leave_out)


class Dense(Section):
    """How pixels get a class, for the task `segmentation`."""

    by: Literal["values", "windows", "regions"] = "windows"
    """`values`: features of patches, the values of the last block (MaskCLIP), in windows of the
    model's size. `windows`: the feature of each window as a whole. `regions`: the feature of each
    given region, of which the rest is painted over."""
    short_side: Annotated[int, Field(ge=1)] | None = None
    """Pictures are resized so that their shorter side has so many pixels. `null`: they stay as they
    are, if the shorter side is not below the model's."""


class Rerank(Section):
    """How the best answers are put in order again, for the task `retrieval`, by a model that reads
    a picture and a text together (UniAdapter with `multimodal`). Other models are scored without.
    It needs a pass of the model's decoder for each query and answer."""

    top: Annotated[int, Field(ge=1)]
    """How many of the best by cosine, of each query. Published: 256 for COCO, 128 for Flickr30K."""
    similarity: Annotated[float, Field(ge=0.0)] = 0.0
    """What the cosine is multiplied by before it is added to the matching logit; BLIP has 1."""

    def in_words(self) -> str:
        """What results say of it."""
        more = f", and {self.similarity:g} times the cosine" if self.similarity else ""
        return (
            f"of each query the {self.top} best by cosine are put in order by the matching "
            f"head{more}; the others stay behind them"
        )


class Match(Section):
    """How texts are compared with pictures and clips, for the task `retrieval`."""

    by: Literal["cosine", "mug"] = "cosine"
    """`cosine`: of the text's feature and the clip's. `mug`: tokens with frames, without
    parameters; it needs features of both when it scores, and a cosine of each token with each
    frame."""
    pool: Literal["similarities", "features"] = "similarities"
    """What `mug` pools by its weights. `similarities`: rows and columns of cosines, the default of
    the released code. `features`: tokens and frames, its other form."""
    temperature: Positive = 100.0
    """What cosines are multiplied by before each softmax."""
    frames: Literal["mean", "auxiliary"] = "mean"
    """What a clip's feature is, for `cosine`. `mean`: the mean of its frames. `auxiliary`: half of
    that and half of the mean weighted by auxiliary captions (`auxiliary_column`)."""
    rerank: Rerank | None = None
    """Of pictures, whether the best answers are put in order again. `null`: they are not."""

    @model_validator(mode="after")
    def _weights_count(self) -> Match:
        if self.by == "mug" and self.frames == "auxiliary":
            raise ValueError(
                "mug compares single frames, whose weights it finds itself: "
                "`frames: auxiliary` goes with `by: cosine`"
            )
        if self.rerank and self.in_words() is not None:
            raise ValueError("rerank is of pictures: leave it out, or `by` and `frames`")
        return self

    def in_words(self) -> str | None:
        """What results say of it; None: nothing, as it is the usual."""
        if self.by == "mug":
            return f"Mug of tokens and frames, {self.pool} pooled, temperature {self.temperature:g}"
        if self.frames == "auxiliary":
            return f"frames weighted by auxiliary captions, temperature {self.temperature:g}"
        return None


class SuiteDataset(Section):
    """A data set of a suite."""

    name: Name
    """What results call it."""
    role: Role
    """What it is to a model that was trained: `in-distribution`, `shifted` from that, `unseen` or
    `seen` in pre-training, or another set, scored by `zero-shot` transfer. A `control` shows what
    the score of another data set is due to; it is in no mean over roles."""
    data: DataSource
    """Its pictures and texts."""
    templates: Templates | None = None
    """Prompts for class names, in which `{}` stands for the name. `null`: those of the source, if
    it has any (`coop`, `clip-benchmark`), else the suite's."""
    published: Published | None = None
    """What is published of it. `null`: nothing, it is data of one's own."""
    classes: Annotated[list[str], Field(min_length=1)] | None = None
    """The classes to choose among; pictures of other classes are left out. `null`: its own."""
    gallery: Gallery | None = None
    """Among what its pictures look for others, for the task `picture-retrieval`. `null`: among
    themselves, each without itself."""
    dense: Dense = Dense()
    """How pixels get a class, for the task `segmentation`."""
    match: Match = Match()
    """How texts are compared with pictures and clips, for the task `retrieval`."""

    weight_on: DataSource | None = None
    """For the task `composed`: edits on which the weight of the text in the sum of picture and text
    is chosen. `null`: none, and it is 0.5."""

    @property
    def protocol(self) -> str | None:
        """The name of the protocol, of data sets that have several."""
        return getattr(self.data, "protocol", None)

    def captions(self) -> int | None:
        """How many captions are published, by its protocol."""
        published = self.published.captions if self.published else None
        return published.get(self.protocol or "") if isinstance(published, dict) else published

    def own_prompts(self) -> Templates | None:
        """Templates that are not the suite's."""
        return self.templates if self.templates is not None else self.data.own_prompts()

    def shortfall(self, dataset: Dataset) -> str | None:
        """How the counts differ from the published ones; None if they do not."""
        if self.published is None:
            return None
        counts = [(len(dataset), self.published.pictures, "pictures")]
        if self.published.classes and dataset.labels:
            counts.append((len(set(dataset.labels)), self.published.classes, "classes"))
        captions = self.captions()
        if captions and dataset.captions:
            counts.append((sum(map(len, dataset.captions)), captions, "captions"))
        if self.published.edits and dataset.edits:
            counts.append((len(dataset.edits), self.published.edits, "edits"))
        wrong = [f"{n:,} of {wanted:,} {what}" for n, wanted, what in counts if n != wanted]
        return ", ".join(wrong) or None

    def all_data(self) -> list[Data]:
        """Its own section, those of its gallery, and what a weight is chosen on."""
        gallery = self.gallery.data if self.gallery else []
        return [self.data, *gallery, *([self.weight_on] if self.weight_on else [])]

    def with_data(self, data: Sequence[Data]) -> SuiteDataset:
        """With other sections in the place of those that `all_data` gives."""
        update: dict[str, Any] = {"data": data[0]}
        rest = list(data[1:])
        if self.weight_on:
            update["weight_on"] = rest.pop()
        if self.gallery:
            update["gallery"] = self.gallery.model_copy(update={"data": rest})
        return self.model_copy(update=update)

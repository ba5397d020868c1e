"""Training pairs: a picture as the recipe changes it, a text, a group; batches that can resume.

Every random choice for item i of epoch e is a function of (seed, e, i), and the order of an epoch
of (seed, e). So a resumed run needs no more than the number of its step.
"""

from __future__ import annotations

import functools
import hashlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

import torch
from open_clip import OPENAI_IMAGENET_TEMPLATES
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision.transforms import v2

from radapter.data.clips import stacked
from radapter.data.dataset import Dataset
from radapter.data.settings import Augmentation, Data
from radapter.distributed import divided
from radapter.errors import BrokenInput

WHITE = 255
NO_TEXT = NO_DOMAIN = -1


def training_transform(augmentation: Augmentation, preprocess_cfg: dict[str, Any]) -> v2.Transform:
    """PIL picture -> uint8 tensor [3, height, width], at random; the frames of a clip -> a list of
    such tensors, all changed alike.

    Bytes, a quarter of the floats: `training.feeding.Pixels` makes these on the device.
    """
    size = preprocess_cfg["size"]
    interpolation = v2.InterpolationMode(preprocess_cfg.get("interpolation", "bicubic"))
    steps: list[Any] = [
        v2.RandomResizedCrop(size, scale=augmentation.crop, interpolation=interpolation)
    ]
    if augmentation.rotate:
        steps.append(
            v2.RandomAffine(
                augmentation.rotate,
                translate=(0.05, 0.05),
                interpolation=v2.InterpolationMode.BILINEAR,
                fill=WHITE,
            )
        )
    if augmentation.flip:
        steps.append(v2.RandomHorizontalFlip(augmentation.flip))
    if augmentation.colour:
        c = augmentation.colour
        steps.append(v2.ColorJitter(c, c, c, hue=c / 10))
    if augmentation.grey:
        steps.append(v2.RandomGrayscale(augmentation.grey))
    return v2.Compose([*steps, v2.ToImage(), v2.ToPureTensor()])


def templates_of(templates: list[str] | str) -> list[str]:
    """Prompts with `{}` for the class name; `openai` is open_clip's list of 80."""
    if isinstance(templates, str):
        return [template("{}") for template in OPENAI_IMAGENET_TEMPLATES]
    return list(templates)


class Pairs(TorchDataset[dict[str, Any]]):
    """Picture-text pairs. For classification a pair is a picture and one template drawn for it, its
    group the class; for captions every caption is a pair of its own, its group the picture's. Of
    data that draws its pictures anew in each epoch, a pair is a picture and the text drawn with it.
    Of edits it is the reference and the text that tells of the right picture.
    """

    def __init__(
        self,
        dataset: Dataset,
        settings: Data,
        transform: Callable[[Any], Tensor],
        seed: int,
        mix_captions: float = 0.0,
    ):
        self.dataset, self.transform, self.seed = dataset, transform, seed
        self.mix_captions = mix_captions
        """Share of class prompts replaced by a caption of the picture"""
        self.classify = settings.task == "classification"
        self.templates = templates_of(settings.prompts())
        self.text_length = settings.text_length
        self.pictures = True
        """Whether training reads pictures, and not texts alone"""
        self.edits = [e for e in dataset.edits if e.told] if settings.task == "edits" else []
        if settings.task == "edits":
            self.items = [(edit.reference, edit.told) for edit in self.edits]
        elif self.classify or dataset.draw:
            self.items = [(i, "") for i in range(len(dataset))]
        else:
            self.items = [(i, text) for i, texts in enumerate(dataset.captions) for text in texts]

    def __len__(self) -> int:
        return len(self.items)

    def shards(self) -> list[int]:
        """The shard of every pair, [pairs]; empty if the data is in none."""
        return [self.dataset.shards[i] for i, _ in self.items] if self.dataset.shards else []

    def __getitem__(self, place: tuple[int, int] | tuple[int, int, bool]) -> dict[str, Any]:
        """(epoch, item), and whether the picture is wanted beside its text and group."""
        epoch, item, wanted = place if len(place) == 3 else (*place, True)
        index, text = self.items[item]
        own, seed = False, item_seed(self.seed, epoch, item)
        read: Callable[[], Any] = functools.partial(
            self.dataset.read_anew or self.dataset.read, index
        )
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would seed CUDA, too, and note where from: 0.1 ms a picture.
            torch.default_generator.manual_seed(seed)
            if self.classify:
                template = self.templates[int(torch.randint(len(self.templates), ()))]
                text = template.replace("{}", self.dataset.class_names[self.dataset.labels[index]])
                if self.mix_captions and torch.rand(()) < self.mix_captions:
                    captions = self.dataset.captions[index]
                    text, own = captions[int(torch.randint(len(captions), ()))], True
            elif self.dataset.draw:
                drawn = self.dataset.draw(index, epoch, seed)
                text, own, read = drawn.text, drawn.own, drawn.read
            group = self.dataset.labels[index] if self.classify else self.dataset.groups[index]
            about = {"text": text, "group": group, "own": own}
            if self.dataset.domains:
                about["domain"] = self.dataset.domains[index]
            if self.edits:
                changes = self.edits[item].texts
                about["edit"] = changes[int(torch.randint(len(changes), ()))]
            if not (wanted and self.pictures):
                return about
            try:
                return {"image": self.transform(read()), **about}
            except BrokenInput as error:
                return {"broken": str(error)}


def collate(
    items: list[dict[str, Any]], tokenizer: Any, text_length: int | None = None
) -> dict[str, Any]:
    """Items to tensors: `images` [batch, 3, h, w] in bytes, clips [batch, frames, 3, h, w] (see
    `clips.stacked`), `tokens` [texts, length] of the
    distinct `texts`, `text_of` [batch] from pair to text, `groups` [batch], `domains` [batch] where
    pictures have any (-1: this one has none), `own` [batch] for
    captions that are right for their own picture alone, `edits` (what is to be changed of pictures,
    where that is known), and messages about broken pictures.

    With unlabelled pictures, which stand last, there are `labelled`, how many pairs there are;
    `labelled_texts`, how many of the texts are theirs, which are the first; and
    `unlabelled_broken`. A picture without a text has -1 in `text_of`.

    Where other ranks read some of the pictures, `images` are the others, of the pairs from `first`
    on; `places` [batch] are the pairs' places among the `size` of the order."""
    places = [place for place, item in enumerate(items) if "broken" not in item]
    broken = [item for item in items if "broken" in item]
    mixed = any("unlabelled" in item for item in items)
    size, items = len(items), [items[place] for place in places]
    number: dict[str, int] = {}
    text_of = [
        number.setdefault(item["text"], len(number)) if "text" in item else NO_TEXT
        for item in items
    ]
    images = [item["image"] for item in items if "image" in item]
    read = [place for place, item in enumerate(items) if "image" in item]
    more: dict[str, Any] = {}
    if any("domain" in item for item in items):
        more["domains"] = torch.tensor([item.get("domain", NO_DOMAIN) for item in items])
    if mixed:
        more |= divided(text_of, sum("unlabelled" not in item for item in items)) | {
            "unlabelled_broken": [item["broken"] for item in broken if "unlabelled" in item]
        }
    return {
        "images": stacked(images) if images else torch.empty(0, dtype=torch.uint8),
        "texts": list(number),
        "tokens": tokenizer(list(number), context_length=text_length),
        "text_of": torch.tensor(text_of),
        "groups": torch.tensor([item["group"] for item in items]),
        "own": torch.tensor([item["own"] for item in items]),
        "edits": [item["edit"] for item in items if "edit" in item],
        "broken": [item["broken"] for item in broken if "unlabelled" not in item],
        "first": read[0] if read else 0,
        "places": torch.tensor(places, dtype=torch.int64),
        "size": size,
        **more,
    }


class BatchOrder:
    """Batches of (epoch, item), shuffled anew each epoch, the last short batch left out.

    `shuffle` gives the items of an epoch; by default, all in random order. After `most` steps there
    are no more."""

    def __init__(
        self,
        items: int,
        batch_size: int,
        epochs: int,
        seed: int,
        start_step: int = 0,
        shuffle: Callable[[torch.Generator], Tensor] | None = None,
        most: int | None = None,
    ):
        self.items, self.seed, self.start = items, seed, start_step
        self.shuffle = shuffle or (lambda generator: torch.randperm(items, generator=generator))
        self.batch_size = min(batch_size, items)
        self.steps_per_epoch = items // self.batch_size
        steps = epochs * self.steps_per_epoch
        self.steps = steps if most is None else min(steps, most)

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        permutation: tuple[int, Tensor] = (-1, torch.empty(0))
        for step in range(self.start, self.steps):
            epoch, place = divmod(step, self.steps_per_epoch)
            if permutation[0] != epoch:
                generator = torch.Generator().manual_seed(item_seed(self.seed, epoch, -1))
                permutation = (epoch, self.shuffle(generator))
            chosen = permutation[1][place * self.batch_size : (place + 1) * self.batch_size]
            yield [(epoch, int(i)) for i in chosen]


def loader(
    pairs: Any,
    order: BatchOrder,
    tokenizer: Any,
    workers: int,
    rank: int = 0,
    ranks: int = 1,
    *,
    pinned: bool = False,
) -> DataLoader[Any]:
    """Batches of pairs, or of pairs and unlabelled pictures (`mixed.Mixed`), in `order`, to be gone
    through once, read by `workers` processes (0: in this one).

    With several `ranks` each reads its share of the pictures of every batch, and the texts of all.
    `pinned` puts them where a GPU can fetch them by itself.
    """
    return DataLoader(
        pairs,
        batch_sampler=order if ranks == 1 else _share(order, rank, ranks),
        collate_fn=functools.partial(collate, tokenizer=tokenizer, text_length=pairs.text_length),
        num_workers=workers,
        pin_memory=pinned,
        worker_init_fn=_leave_signals_to_the_parent,
        persistent_workers=False,
    )


def _share(order: BatchOrder, rank: int, ranks: int) -> Iterator[list[tuple[int, int, bool]]]:
    """Batches of (epoch, item, whether this rank reads the picture)."""
    for batch in order:
        size = len(batch)
        own = range(size * rank // ranks, size * (rank + 1) // ranks)
        yield [(epoch, item, k in own) for k, (epoch, item) in enumerate(batch)]


def _leave_signals_to_the_parent(worker: int) -> None:
    """Ctrl-C, and torchrun's and Slurm's SIGTERM, reach the whole process group; the parent saves
    its state and ends the workers, and they end by themselves if it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def item_seed(seed: int, epoch: int, item: int) -> int:
    """One 63-bit seed from three numbers; neighbouring ones give unrelated streams."""
    digest = hashlib.blake2b(f"{seed},{epoch},{item}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1

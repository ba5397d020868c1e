"""What training needs, opened and checked before anything is written."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from radapter import distributed
from radapter.classes import distinct
from radapter.data import Dataset, open_data
from radapter.data.clips import prepared
from radapter.data.mixed import Mixed, MixedOrder, Pictures
from radapter.data.pairs import BatchOrder, Pairs, training_transform
from radapter.data.settings import Data
from radapter.data.texts import cut_texts
from radapter.errors import BrokenInput, MissingDependency, UsageError
from radapter.evaluation import seeing
from radapter.heads.head import Examples, Training
from radapter.methods.attached import Attached
from radapter.models import LoadedModel, check_name, load, takes_short_texts
from radapter.objectives.terms import Context, Term, check_pairs, check_rows
from radapter.processors import readers
from radapter.recipe import Recipe
from radapter.registry import METHODS, OPTIMIZERS, TERMS, Call, folds
from radapter.registry import load as registered
from radapter.training import execution, tracking
from radapter.training.feeding import Pixels
from radapter.training.reaching import check_reach
from radapter.training.sizing import sized
from radapter.training.validation import Validation, Validator, open_held_out

if TYPE_CHECKING:
    from radapter.training.planning import Fit


@dataclass(frozen=True)
class Plan:
    """What training will do, known before it starts."""

    pictures: int
    pairs: int
    batch_size: int
    steps: int
    trainable: int
    """Parameters that are trained"""
    parameters: int
    """Parameters of the model"""
    state_bytes: int
    """Memory for weights and their copies, gradients, averages and what the optimizer keeps,
    fp32, in each process"""
    device: str
    processes: int = 1
    """Each on a device of that kind"""
    cut_texts: int = 0
    """Distinct texts of which training reads the start alone, as they are longer than that"""
    fit: Fit | None = None
    """What a step takes, with its activations: where `plan` was asked, and the model allows it"""
    no_fit: str | None = None
    """Why there is no such estimate, where `plan` was asked"""
    unlabelled: int = 0
    """Pictures without labels, of which each batch has a share"""
    data: dict[str, Any] = field(default_factory=dict, compare=False)
    """See `radapter.data.accounts`"""


@dataclass
class Parts:
    """What `prepare` opens and checks, for a run to train with."""

    recipe: Recipe
    base: LoadedModel
    base_hash: str
    parameters: int
    """Of the base model"""
    method: Call
    """The recipe's, with all that follows from the data"""
    attached: Attached
    trained: list[torch.nn.Parameter]
    optimizer: torch.optim.Optimizer
    pairs: Pairs
    unlabelled: Pictures | None
    """None: the recipe has none"""
    terms: list[Term]
    """Of the loss"""
    head: Training | None
    """None: the recipe trains none"""
    device: torch.device
    precision: str
    """What the towers compute in: see `execution.precision_on`"""
    scaler: torch.amp.GradScaler | None
    """Of the gradients, in fp16"""
    held_out: Validator | None
    """None if the recipe monitors nothing"""
    trackers: list[tracking.Tracker]
    workers: int
    """Processes that read pictures for this one"""
    pixels: Callable[[Tensor], Tensor]
    """From the bytes of pictures to what the image tower takes"""

    @property
    def read(self) -> Pairs | Mixed:
        """What the order's items are of."""
        return Mixed(self.pairs, self.unlabelled) if self.unlabelled else self.pairs

    def order(self, start_step: int = 0) -> BatchOrder:
        recipe, o = self.recipe, self.recipe.optimisation
        labelled, more = recipe.in_a_batch()
        size = min(labelled, len(self.pairs))
        shuffle = recipe.data.shuffle(self.pairs.shards, size)
        epochs = o.epochs if self.trained else 0  # a head may be made and not trained
        order = BatchOrder(
            len(self.pairs), size, epochs, recipe.seed, start_step, shuffle, o.max_steps
        )
        if self.unlabelled is None or recipe.unlabelled is None:
            return order
        pictures = self.unlabelled
        shuffle = recipe.unlabelled.shuffle(pictures.shards, more)
        return MixedOrder(order, len(pictures), more, pictures.seed, shuffle)

    def validation(self) -> Validation | None:
        if self.held_out is None:
            return None
        order = self.order()
        steps = order.steps_per_epoch, order.steps
        return Validation(self.recipe, self.method, self.held_out, *steps, self.head)

    @property
    def encodes_once(self) -> bool:
        """Whether what the image tower gives is the same in all epochs: see
        `starting.encode_once`."""
        dataset = self.pairs.dataset
        drawn = dataset.varies or dataset.draw is not None
        augmented = bool(self.recipe.data.augmentation and self.trained)
        behind = self.attached.behind and dataset.frames is not None and self.unlabelled is None
        changed = self.attached.trains_model and not behind
        return self.pairs.pictures and not (drawn or augmented or changed)

    def plan(self) -> Plan:
        order = self.order()
        trainable = sum(p.numel() for p in self.trained)
        return Plan(
            pictures=len(self.pairs.dataset),
            pairs=len(self.pairs),
            batch_size=order.batch_size,
            steps=order.steps,
            trainable=trainable,
            parameters=self.parameters,
            state_bytes=4 * self._numbers(),
            device=self.device.type,
            processes=distributed.world_size(),
            cut_texts=len(self.cut_texts()),
            unlabelled=len(self.unlabelled or ()),
        )

    def cut_texts(self) -> list[str]:
        """The texts that are longer than what is trained on; of classes, in their templates."""
        dataset, pairs = self.pairs.dataset, self.pairs
        texts = [text for own in dataset.captions for text in own]
        if pairs.classify:
            texts = [t.replace("{}", n) for t in pairs.templates for n in dataset.class_names]
        texts += self.unlabelled_texts()
        return cut_texts(self.base.tokenizer, texts, self.recipe.data.text_length)

    def unlabelled_texts(self) -> list[str]:
        """The texts that come with unlabelled pictures."""
        captions = self.unlabelled.dataset.captions if self.unlabelled else []
        return [text for own in captions for text in own]

    def frames(self) -> int | None:
        """How many frames a clip has at most; None: items are pictures."""
        data = [of.dataset.frames for of in (self.pairs, self.unlabelled) if of is not None]
        return max((frames for frames in data if frames is not None), default=None)

    def held_out_models(self) -> int:
        """Copies of all weights that held-out data is scored with: a merged one, made from another;
        a method that does not fold is attached to one more."""
        if self.held_out is None:
            return 0
        return 2 if folds(self.recipe.method.name) else 3

    def queued(self) -> int:
        """Numbers that the queues of terms come to hold: two features a row."""
        dim = self.base.config["model_cfg"]["embed_dim"]
        return sum(2 * dim * term.queue.rows for term in self.terms if term.queue)

    def _numbers(self) -> int:
        """What is kept beside activations: see `Plan.state_bytes`."""
        weights = {id(p): p.numel() for p in (*self.base.model.parameters(), *self.trained)}
        moments = registered(OPTIMIZERS, self.recipe.optimisation.name).COPIES
        copies = (*self.attached.mean.values(), *self.attached.start.values())
        return (
            sum(weights.values())
            + (1 + moments) * sum(p.numel() for p in self.trained)  # gradients too
            + sum(t.numel() for t in copies)
            + self.queued()
            + self.held_out_models() * self.parameters
        )


def prepare(recipe: Recipe, processes: int | None = None) -> Parts:
    """Open the data, load the model, attach the method. Data first: it is what is often wrong.

    `processes` are those of this machine that will train together, if not those that do already.
    """
    check_name(recipe.model)
    device = device_of(recipe)
    precision = execution.precision_on(recipe, device)
    trackers = tracking.trackers(recipe)
    dataset = open_data(recipe.data)
    call = sized(recipe, dataset)
    unlabelled = seeing.open_checked(recipe)
    base = load(recipe.model, seed=recipe.seed)
    base_hash = base.weights_hash
    parameters = sum(p.numel() for p in base.model.parameters())
    base.model.to(device)
    held_out = (
        open_held_out(recipe, base, device, dataset.class_names) if recipe.monitor.wanted else None
    )
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(recipe.seed)
        attached = registered(METHODS, call.name).attach(base.model, **call.arguments())
    head = _head(recipe, dataset, base, attached)
    if head is not None:
        attached.add("head", head.module.to(device))
    execution.set_up(base.model, recipe, device.type)
    _check_text_length(recipe.data.text_length, base)
    preprocess = base.config["preprocess_cfg"]
    _check_mixing(recipe, dataset)
    transform = _transform(recipe.data, base)
    pairs = Pairs(dataset, recipe.data, transform, recipe.seed, recipe.mix_captions)
    if len(pairs) < 2:
        raise BrokenInput(f"{dataset.source} has {len(pairs)} pair: training needs at least two.")
    recipe.data.check_batch(min(recipe.in_a_batch()[0], len(pairs)))
    pictures = _unlabelled(recipe, unlabelled, base)
    trained = list(attached.parameters())
    if not trained and head is None:
        raise UsageError(
            f"Nothing would be trained: method {recipe.method.name} leaves the towers as they are, "
            "and the recipe has no head. Add head={name: linear}"
        )
    tokenize = functools.partial(base.tokenizer, context_length=recipe.data.text_length)
    context = Context(
        tokenize, dataset, attached, "", recipe.unlabelled, head.module if head else None
    )
    terms = [
        registered(TERMS, name).term(replace(context, place=place), **given)
        for place, (name, given) in zip(recipe.places(), recipe.terms(), strict=True)
        if trained
    ]
    check_reach(attached, terms, pairs.templates)
    check_rows(context, terms)
    check_pairs(context, terms)
    pairs.pictures = not terms or any(term.reads_images for term in terms)
    if any(term.teacher for term in terms):
        attached.keep_start()
    workers, rates = recipe.workers, recipe.optimisation
    parts = Parts(
        recipe=recipe,
        base=base,
        base_hash=base_hash,
        parameters=parameters,
        method=call,
        attached=attached,
        trained=trained,
        optimizer=registered(OPTIMIZERS, rates.name).optimizer(
            attached, rates.lr, **rates.arguments()
        ),
        pairs=pairs,
        unlabelled=pictures,
        terms=terms,
        head=head,
        device=device,
        precision=precision,
        scaler=torch.amp.GradScaler(device.type) if precision == "fp16" else None,
        held_out=held_out,
        trackers=trackers,
        workers=workers if workers != "auto" else readers(len(pairs), device.type, processes),
        pixels=Pixels(preprocess["mean"], preprocess["std"], device),
    )
    attached.steps = parts.order().steps
    return parts


def _head(
    recipe: Recipe, dataset: Dataset, base: LoadedModel, attached: Attached
) -> Training | None:
    """The head that the recipe trains, blank.

    Raises:
        UsageError: the data has no classes; or the head keeps features of the pictures, and these
            do not stay the same.
    """
    if recipe.head is None:
        return None
    if recipe.data.task != "classification" or not dataset.class_names:
        raise UsageError(
            f"head: a head tells classes apart, and {dataset.source} is paired with captions. "
            "Leave `head` out, or take data of `task: classification`."
        )
    names = distinct({"names": dataset.class_names})["names"]
    dim, count = base.config["model_cfg"]["embed_dim"], len(dataset)
    name = recipe.head.name

    def blank(passes: int) -> Examples:
        kept = f"head: {name} keeps features of the training pictures, and"
        if attached.trains_model:
            raise UsageError(
                f"{kept} method {recipe.method.name} changes them. Give method={{name: frozen}}"
            )
        if dataset.varies or dataset.draw is not None:
            raise UsageError(
                f"{kept} each epoch draws pictures of its own. Give `data.drawing: fixed`."
            )
        if passes and recipe.data.augmentation is None:
            raise UsageError(
                f"head.passes is {passes}, and `data.augmentation: null` changes no picture. Give "
                "head.passes=0, or an augmentation."
            )
        return torch.zeros(count, dim), torch.zeros(count, dtype=torch.int64)

    return Training(recipe.head, names, dim, blank)


def _unlabelled(recipe: Recipe, dataset: Dataset | None, base: LoadedModel) -> Pictures | None:
    """The pictures without labels as batches have them; None: the recipe has none."""
    if dataset is None or recipe.unlabelled is None:
        return None
    pictures = Pictures(dataset, _transform(recipe.unlabelled, base), recipe.seed)
    recipe.unlabelled.check_batch(min(recipe.in_a_batch()[1], len(pictures)))
    return pictures


def _transform(data: Data, base: LoadedModel) -> Callable[[Any], Any]:
    """What training makes of a picture or clip."""
    if data.augmentation is None:
        return functools.partial(prepared, base.preprocess)
    return training_transform(data.augmentation, base.config["preprocess_cfg"])


def _check_mixing(recipe: Recipe, dataset: Dataset) -> None:
    """UsageError if captions are to be mixed among class prompts, and there are not both."""
    classify = recipe.data.task == "classification"
    if not recipe.mix_captions or (classify and all(dataset.captions or [[]])):
        return
    places = zip(recipe.places(), recipe.terms(), strict=True)
    place = next(place for place, (_, given) in places if given.get("mix_captions"))
    raise UsageError(
        f"{place}.mix_captions puts captions among class prompts: it needs `task: "
        "classification` and pictures that have captions."
    )


def _check_text_length(wanted: int | None, base: LoadedModel) -> None:
    if wanted is None:
        return
    if not takes_short_texts(base.model):
        raise UsageError(f"data.text_length: the text tower of {base.name} takes full length only.")
    if wanted > base.context_length:
        raise UsageError(
            f"data.text_length is {wanted}, and the context length of {base.name} is "
            f"{base.context_length}."
        )


def device_of(recipe: Recipe) -> torch.device:
    """Where this process trains.

    Raises:
        MissingDependency, UsageError: there is no such device, or none left for this process.
    """
    wanted = recipe.device
    if wanted == "cuda" and not torch.cuda.is_available():
        raise MissingDependency("`device: cuda`: torch finds no CUDA device. Add device=cpu.")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if wanted == "cuda" and (several or "LOCAL_RANK" in os.environ):
        # torchrun numbers a machine's processes, one for each GPU; other launchers show each its
        # own. NCCL wants a number in any case.
        count = torch.cuda.device_count()
        number = int(os.environ.get("LOCAL_RANK", torch.cuda.current_device()))
        if number >= count:
            raise UsageError(
                f"This machine has {count} CUDA devices: start no more processes than that."
            )
        torch.cuda.set_device(number)
        return torch.device("cuda", number)
    return torch.device(wanted)

"""What training will do, and whether it fits, known before it starts."""

from __future__ import annotations

import dataclasses
import math
import os
from dataclasses import dataclass

import torch

from radapter.data.accounts import accounts_of
from radapter.models import shorten, takes_short_texts
from radapter.recipe import Recipe
from radapter.training import starting
from radapter.training.estimate import Memory, Sizes, fitting_micro_batch, step_memory
from radapter.training.preparing import Parts, Plan, prepare

ROOM = 0.9
"""Of a device's memory, what a step may fill: the rest is for what the estimate does not count."""
GIB = 2**30


@dataclass(frozen=True)
class Fit:
    """The estimated peak of a step beside what a device has, in bytes."""

    memory: Memory
    total: int
    device: str
    """What the device is called"""
    has: int
    fits: bool
    advice: str | None
    """A setting with which it fits, if it does not"""
    read_ahead: int
    """Pictures that workers hold ready, in the machine's memory (/dev/shm)"""


def plan(recipe: Recipe, processes: int = 1) -> Plan:
    """Check data and model as `train` would and say what training would do; nothing is written."""
    parts = prepare(starting.found(recipe), processes if processes > 1 else None)
    found, problem = None, None
    try:
        found = fit(parts, processes) if parts.trained else None
    except RuntimeError as error:  # a model asks for the content of tensors; fake ones have none
        problem = next(iter(str(error).splitlines()), "") or type(error).__name__
    needed = recipe.validation is not None
    unlabelled = parts.unlabelled.dataset if parts.unlabelled else None
    data = accounts_of(
        parts.pairs.dataset, recipe.validation_data(), needed=needed, unlabelled=unlabelled
    )
    return dataclasses.replace(
        parts.plan(), processes=processes, fit=found, no_fit=problem, data=data
    )


def fit(parts: Parts, processes: int = 1) -> Fit:
    """Estimate the memory of a step, and whether it fits the device."""
    recipe, batch = parts.recipe, parts.order().batch_size
    if recipe.gpu is None:  # else it is that one, of which nothing here tells what it emulates
        recipe = recipe.model_copy(update={"precision": parts.precision})
    distinct = batch
    if parts.pairs.classify and not recipe.mix_captions:
        names = set(parts.pairs.dataset.class_names)
        distinct = min(batch, len(names) * len(parts.pairs.templates))
    if parts.unlabelled_texts():
        distinct += recipe.in_a_batch()[1]
    if not any(term.loss and term.reads_texts for term in parts.terms):
        distinct = 1
    distinct += sum(term.drawn for term in parts.terms)
    sizes = Sizes(
        batch=batch,
        pictures=math.ceil(batch / processes),
        texts=math.ceil(distinct / processes),
        text_length=_text_length(parts),
        micro_batch=recipe.optimisation.micro_batch,
        frames=parts.frames(),
        pairs=math.ceil(batch * sum(term.paired for term in parts.terms) / processes),
    )
    copies = parts.held_out_models()
    # Beside its rows, each pair's similarities to them in both directions, four times over.
    rows = sum(term.queue.rows for term in parts.terms if term.queue)
    of_queues = 4 * (parts.queued() + 8 * batch * rows)

    def needs(micro_batch: int | None) -> Memory:
        changed = dataclasses.replace(sizes, micro_batch=micro_batch)
        found = step_memory(parts.base.model, parts.attached, recipe, changed, copies)
        return dataclasses.replace(found, average=found.average + of_queues)

    memory = needs(sizes.micro_batch)
    device, has = _device(parts)
    read_ahead = processes * parts.workers * memory.pictures  # two batches each
    room = int(ROOM * has)
    own = read_ahead if parts.device.type == "cpu" and recipe.gpu is None else 0
    advice = None
    if memory.total + own > room:
        most = min(sizes.micro_batch or sizes.pictures, sizes.pictures)
        micro = fitting_micro_batch(lambda size: needs(size).total, most, room - own)
        if micro is not None:
            advice = f"optimisation.micro_batch={micro}"
        elif not recipe.activation_checkpointing:
            advice = "optimisation.micro_batch=1 activation_checkpointing=true"
        else:
            advice = "a smaller model"
    fits = memory.total + own <= room
    return Fit(memory, memory.total, device, has, fits, advice, read_ahead)


def _text_length(parts: Parts) -> int:
    """Tokens of the longest text, as far as a look at the longest tells."""
    model, tokenizer = parts.base.model, parts.base.tokenizer
    whole = parts.recipe.data.text_length or int(tokenizer.context_length)
    if not takes_short_texts(model):
        return whole
    if parts.pairs.classify:
        names = sorted(set(parts.pairs.dataset.class_names), key=len)[-100:]
        templates = sorted(parts.pairs.templates, key=len)[-5:]
        texts = [template.replace("{}", name) for template in templates for name in names]
    else:
        texts = [text for _, text in parts.pairs.items]
    if parts.recipe.mix_captions:
        texts += [text for of in parts.pairs.dataset.captions for text in of]
    texts += parts.unlabelled_texts()
    for term in parts.terms:
        texts += term.pool
    longest = sorted(texts, key=len)[-500:]
    return shorten(model, tokenizer(longest, context_length=whole)).shape[1]


def _device(parts: Parts) -> tuple[str, int]:
    """The name and the bytes of what training is to fit on: the GPU here, else the one that the
    recipe names, else this machine."""
    gpu = parts.recipe.gpu
    if parts.device.type == "cuda":
        facts = torch.cuda.get_device_properties(parts.device)
        return facts.name, facts.total_memory
    if gpu is not None:
        return gpu.name, int(gpu.gigabytes * GIB)
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return "this machine", pages

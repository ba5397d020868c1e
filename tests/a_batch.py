"""A model with a method attached, what terms of the loss are made from, and a batch."""

import functools

import tiny
import torch

from radapter import distributed, registry
from radapter.data import Dataset
from radapter.data.edits import Edit
from radapter.heads.head import Start
from radapter.objectives.terms import Context
from radapter.registry import HEADS, METHODS, schema
from radapter.training.gradients import gradients
from radapter.training.step import TEACHERS, training_mode

TEXTS = ["a cat", "two green dogs on a very red sofa", "sun", "a photo of the sea"]


def setting(method, settings=None, **sizes):
    """A model at its start, what terms are made from, and a batch; the method has its first EXAMPLE
    where there are no settings."""
    loaded = tiny.build(**sizes)
    settings = settings or registry.load(METHODS, method).EXAMPLES[0]
    default = schema(method, METHODS[method], "attach").model_fields["average"].default
    average = settings.get("average", default).model_copy(update={"momentum": 0.9})
    settings = {**settings, "average": average}
    torch.manual_seed(2)
    attached = registry.load(METHODS, method).attach(loaded.model, **settings)
    dataset = Dataset(
        "x", ["a"], lambda i: None, domains=[0], class_names=["cat", "sea", "sun"],
        captions=[[f"{text} here" for text in TEXTS]],
        edits=[Edit("", 0, ("x",), (), (), told="y")],
    )  # fmt: skip
    head = registry.load(HEADS, "linear").head(Start(torch.eye(3, 16), 7.0))
    attached.add("head", head)
    attached.keep_start()
    generator = torch.Generator().manual_seed(1)
    batch = {
        "images": torch.randn(7, 3, 32, 32, generator=generator),
        "texts": TEXTS,
        "edits": [f"with {text}" for text in (*TEXTS, *TEXTS[:3])],
        "tokens": loaded.tokenizer(TEXTS),
        "text_of": torch.arange(7) % 4,
        "groups": torch.arange(7) % 3,
        "domains": torch.arange(7) % 2,
        "own": torch.arange(7) == 5,
    }
    training_mode(loaded.model)
    return loaded, attached, Context(loaded.tokenizer, dataset, attached, head=head), batch


def together():
    """The same with a model that reads pictures and texts together."""
    settings = registry.load(METHODS, "uniadapter").WITH_DECODER[1]
    return setting("uniadapter", settings, **tiny.COCA)


def move(attached):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in attached.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def found(loaded, attached, batch, terms, **settings):
    """The loss of terms on a batch, and the gradients of what is trained."""
    for parameter in attached.parameters():
        parameter.grad = None
    torch.manual_seed(3)
    teachers = {
        name: functools.partial(attached.at, alpha, average=True) for name, alpha in TEACHERS
    }
    loss = gradients(
        loaded.model, batch, terms, device=torch.device("cpu"), teachers=teachers, **settings
    )
    distributed.sum_gradients(list(attached.parameters()))
    return loss.item(), [p.grad.clone() for p in attached.parameters() if p.grad is not None]

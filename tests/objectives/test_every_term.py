"""What holds for every term of a loss, with each of its EXAMPLES, and for a new one."""

import functools
import json

import pytest
import tiny
import torch

from radapter import registry
from radapter.data import Dataset
from radapter.methods import full, r_adapter
from radapter.objectives.terms import Context, Term
from radapter.registry import TERMS
from radapter.training.gradients import gradients
from radapter.training.step import training_mode

CPU = torch.device("cpu")
TEXTS = ["a cat", "two green dogs on a very red sofa", "sun", "a photo of the sea"]
CASES = [
    pytest.param(name, settings, id=f"{name}-{number}")
    for name in TERMS
    for number, settings in enumerate(registry.load(TERMS, name).EXAMPLES)
]


def setting(method=r_adapter):
    """A model that has moved, what terms are made from, and a batch."""
    loaded = tiny.build()
    attached = method.attach(loaded.model)
    attached.keep_start()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in attached.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    training_mode(loaded.model)
    dataset = Dataset("x", ["a"], lambda i: None, captions=[[f"{text} here" for text in TEXTS]])
    batch = {
        "images": torch.randn(7, 3, 32, 32, generator=generator),
        "tokens": loaded.tokenizer(TEXTS),
        "text_of": torch.arange(7) % 4,
        "groups": torch.arange(7) % 3,
        "own": torch.arange(7) == 5,
    }
    return loaded, attached, Context(loaded.tokenizer, dataset, attached), batch


def found(loaded, attached, batch, terms, micro_batch=None):
    for parameter in attached.parameters():
        parameter.grad = None
    torch.manual_seed(3)
    scales = {"zero-shot": 0.0, "average": 1.0}
    teachers = {name: functools.partial(attached.at, alpha) for name, alpha in scales.items()}
    loss = gradients(
        loaded.model, batch, terms, device=CPU, teachers=teachers, micro_batch=micro_batch
    )
    return loss.item(), [p.grad.clone() for p in attached.parameters() if p.grad is not None]


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_a_recipe_calls_it(name, settings):
    call = json.dumps({"name": name, **settings})
    recipe = tiny.recipe("model", "data", f"objective=[{call}]")
    ((called, arguments),) = recipe.terms()
    assert called == name
    assert {key: arguments[key] for key in settings} == settings


@pytest.mark.parametrize("method", [r_adapter, full])
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_chunks_give_what_the_whole_gives(name, settings, method):
    loaded, attached, context, batch = setting(method)
    term = registry.load(TERMS, name).term(context, **settings)
    loss, whole = found(loaded, attached, batch, [term])
    assert loss > 0
    assert max(gradient.abs().max() for gradient in whole) > 1e-4
    again, parts = found(loaded, attached, batch, [term], micro_batch=3)
    assert again == pytest.approx(loss, rel=1e-5)
    for one, two in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_a_new_term_is_a_function():
    """Distance from the start, and similarities to the averaged model's of the same batch."""
    loaded, attached, context, batch = setting(full)
    start = {name: value.clone() for name, value in context.attached.start.items()}

    def penalty():
        return sum((p - start[n]).square().sum() for n, p in context.attached.trained.items())

    def loss(features, teacher, batch):
        now, then = (f.logit_scale * f.images @ f.texts.T for f in (features, teacher))
        return (now - then).square().mean()

    near = Term(penalty=penalty, weight=0.5)
    value, gradient = found(loaded, attached, batch, [near])
    assert value == pytest.approx(0.5 * penalty().item(), rel=1e-5)
    for (name, parameter), of in zip(attached.trained.items(), gradient, strict=True):
        torch.testing.assert_close(of, parameter.detach() - start[name])
    alike = Term(loss, teacher="average")
    assert found(loaded, attached, batch, [alike])[0] == pytest.approx(0, abs=1e-6)
    apart = Term(loss, teacher="zero-shot")
    assert found(loaded, attached, batch, [apart])[0] > 1e-3
    both = found(loaded, attached, batch, [near, apart])[0]
    assert both == pytest.approx(value + found(loaded, attached, batch, [apart])[0], rel=1e-5)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ("[{name: retain}]", "objective.0.name: unknown 'retain'; did you mean 'retention'?"),
        ("[{name: retention, pol: 2}]", "unknown key 'objective.0.pol'; did you mean 'pool'?"),
        ("[]", "objective: list should have at least 1 item"),
        ("{margn: 1}", "unknown key 'objective.margn'; did you mean 'margin'?"),
        ("{retain: {wait: 1}}", "unknown key 'objective.retain.wait'; did you mean 'weight'?"),
        ("{name: clip}", "objective.name: input should be 'mpm-nce', found 'clip'"),
    ],
)
def test_a_mistake_is_named(objective, message):
    with pytest.raises(Exception, match="objective") as caught:
        tiny.recipe("model", "data", f"objective={objective}")
    assert message in str(caught.value)

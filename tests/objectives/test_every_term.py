"""What holds for every term of a loss, with each of its EXAMPLES and every method, and for a new
one."""

import json

import pytest
import tiny
import torch
from a_batch import found, move, setting
from ranks import in_ranks, results

from radapter import distributed, registry
from radapter.errors import UsageError
from radapter.objectives.terms import Term
from radapter.registry import METHODS, TERMS
from radapter.training import Interrupted, resume, train

CASES = [
    pytest.param(name, settings, id=f"{name}-{number}")
    for name in TERMS
    for number, settings in enumerate(registry.load(TERMS, name).EXAMPLES)
]
REFUSED = (
    {("orthogonality", method) for method in METHODS if method != "full"}
    | {(term, method) for term in tiny.OF_PAIRS for method in METHODS}
    | {(term, "frozen") for term in TERMS if term != "cross-entropy"}
    | {
        (term, method)
        for term in TERMS
        for method in METHODS
        if (method in tiny.OF_QUERIES or term in tiny.OF_QUERIES["inversion"])
        and term not in (*tiny.OF_QUERIES.get(method, ()), "cross-entropy")
    }
)
"""(term, method): the term could have no effect there"""
MATRIX = [
    pytest.param(*case.values, method, id=f"{case.id}-{method}")
    for case in CASES
    for method in METHODS
    if (case.values[0], method) not in REFUSED
]


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_a_recipe_calls_it(name, settings):
    call = json.dumps({"name": name, **settings})
    recipe = tiny.recipe("model", "data", f"objective=[{call}]")
    ((called, arguments),) = recipe.terms()
    assert called == name
    assert {key: arguments[key] for key in settings} == settings


@pytest.mark.parametrize(("name", "settings", "method"), MATRIX)
def test_with_every_method(name, settings, method):
    """At the start, where that is the zero-shot model, a term that compares with it is 0; then its
    gradients are finite and reach what is trained, and are the same in chunks, and near in bf16."""
    loaded, attached, context, batch = setting(method)
    term = registry.load(TERMS, name).term(context, **settings)
    loss, _ = found(loaded, attached, batch, [term])
    compares = (term.teacher is not None or name == "l2-sp") and term.queue is None
    first = registry.load(METHODS, method).EXAMPLES[0]
    apart = term.teacher == "zero-shot" and tiny.starts_elsewhere(method, first)
    if apart:
        assert loss > 1e-6
    else:
        assert (loss == pytest.approx(0, abs=1e-5)) if compares else (loss > 1e-2)
    move(attached)
    loss, whole = found(loaded, attached, batch, [term])
    assert loss > 1e-4
    assert all(gradient.isfinite().all() for gradient in whole)
    assert max(gradient.abs().max() for gradient in whole) > 1e-4
    again, parts = found(loaded, attached, batch, [term], micro_batch=3)
    assert again == pytest.approx(loss, rel=1e-5, abs=1e-6)
    largest = max(1.0, *(gradient.abs().max() for gradient in whole))
    for one, two in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5 * float(largest))
    near, rough = found(loaded, attached, batch, [term], precision=torch.bfloat16)
    assert near == pytest.approx(loss, rel=0.25, abs=1e-3)
    one, two = (torch.cat([gradient.flatten() for gradient in of]) for of in (whole, rough))
    assert torch.nn.functional.cosine_similarity(one, two, dim=0) > 0.9


@pytest.mark.parametrize(("name", "method"), sorted(REFUSED))
def test_where_it_could_have_no_effect_it_is_refused(name, method):
    context = setting(method)[2]
    for settings in registry.load(TERMS, name).EXAMPLES:
        with pytest.raises(UsageError, match="could have no effect"):
            registry.load(TERMS, name).term(context, **settings)


FIRST = {case.values[2]: case.values[:2] for case in reversed(MATRIX)}
"""By method the first term that could have an effect there, and its settings"""
SHARED = [
    *((case.id, *case.values, None) for case in MATRIX),
    *(
        (f"example {number} of {method}", *FIRST[method], method, example)
        for method in METHODS
        for number, example in enumerate(registry.load(METHODS, method).EXAMPLES)
        if number
    ),
]
"""The MATRIX, of the first example of each method, and every other example with one term"""


def of_all():
    """Loss and summed gradients of all cases, each process with its part of the pictures."""
    values = []
    with distributed.joined():
        for _, name, settings, method, example in SHARED:
            loaded, attached, context, batch = setting(method, example)
            term = registry.load(TERMS, name).term(context, **settings)
            move(attached)
            share = distributed.share(len(batch["images"]))
            own = {**batch, "images": batch["images"][share], "first": share.start}
            loss, of = found(loaded, attached, own, [term])
            values.append((loss, [gradient.numpy() for gradient in of]))
    return values


@pytest.mark.slow
def test_two_processes_give_what_one_gives():
    expected = of_all()
    for values in results(in_ranks(2, of_all)):
        for (case, *_), one, two in zip(SHARED, expected, values, strict=True):
            assert two[0] == pytest.approx(one[0], rel=1e-5, abs=1e-6), case
            largest = max(1.0, *(abs(gradient).max() for gradient in one[1]))
            for ours, theirs in zip(two[1], one[1], strict=True):
                worst = abs(ours - theirs).max()
                assert worst < 1e-5 * largest, case


QUICK = ("lipsum-ft", "r-adapter")
RESUMED = [
    pytest.param(
        name, settings, method, marks=[] if (name, method) == QUICK else [pytest.mark.slow]
    )
    for name, settings, method in (case.values for case in MATRIX)
    if settings == registry.load(TERMS, name).EXAMPLES[0]
    if not (method in tiny.OF_QUERIES or tiny.follows(method))  # they have tests of their own
]


@pytest.mark.parametrize(("name", "settings", "method"), RESUMED)
def test_a_stopped_run_goes_on_to_the_same_end(
    tiny_folder, shapes, tmp_path, name, settings, method
):
    own = {"captions": __file__} if name == "retention" else {}
    term = json.dumps({"name": name, **settings, **own})
    of_method = {**registry.load(METHODS, method).EXAMPLES[0], "average": {"momentum": 0.5}}
    main = "cross-entropy" if method == "frozen" else "mpm-nce"
    recipe = tiny.recipe(
        tiny_folder, shapes, f"method={tiny.method(method, of_method)}", "head={name: linear}",
        f"objective=[{{name: {main}}}, {{name: cross-entropy}}, {term}]",
    )  # fmt: skip
    whole = train(recipe, tmp_path / "whole")
    with pytest.raises(Interrupted) as caught:
        train(recipe, tmp_path / "stopped", should_stop=iter([False] * 3 + [True]).__next__)
    assert resume(caught.value.run).adapter.read_bytes() == whole.adapter.read_bytes()


def test_a_new_term_is_a_function():
    """Distance from the start, and similarities to the averaged model's of the same batch."""
    loaded, attached, context, batch = setting("full")
    start = {name: value.clone() for name, value in context.attached.start.items()}
    move(attached)
    for name, value in attached.trained.items():
        attached.mean[name].copy_(value)

    def penalty():
        trained = context.attached.trained
        return sum((trained[name] - value).square().sum() for name, value in start.items())

    def loss(features, teacher, batch):
        now, then = (f.logit_scale * f.images @ f.texts.T for f in (features, teacher))
        return (now - then).square().mean()

    near = Term(penalty=penalty, weight=0.5)
    value, gradient = found(loaded, attached, batch, [near])
    assert value == pytest.approx(0.5 * penalty().item(), rel=1e-5)
    for (name, first), of in zip(start.items(), gradient, strict=True):
        torch.testing.assert_close(of, attached.trained[name].detach() - first)
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

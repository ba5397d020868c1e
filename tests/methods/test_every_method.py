"""What holds for every method, with each of its EXAMPLES: to register one is to test it."""

import numpy as np
import onnxruntime
import pytest
import tiny
import torch

from radapter import bundle, models, registry
from radapter.export.towers import export_towers
from radapter.models.frames import most_frames, video_features
from radapter.registry import METHODS, schema

CASES = tiny.methods()


def attached_to(name, settings, *, seed=0, **average):
    """A model with the method attached, and its start; `average` changes how it averages."""
    loaded = tiny.build(seed=seed)
    base = {key: value.clone() for key, value in loaded.model.state_dict().items()}
    default = schema(name, METHODS[name], "attach").model_fields["average"].default
    changed = settings.get("average", default).model_copy(update=average)
    torch.manual_seed(1 + seed)
    attached = registry.load(METHODS, name).attach(loaded.model, **settings | {"average": changed})
    attached.keep_start()
    return loaded, attached, base


def shake(attached, seed=0, size=0.2):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in attached.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))


def features(loaded):
    with torch.no_grad():
        return tiny.features(loaded.model, *tiny.batch(loaded))


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_a_recipe_calls_it_with_its_settings(name, settings):
    plain = tiny.method(name, settings)
    section = tiny.recipe("model", "data", f"method={plain}").method
    given = section.arguments()
    assert {key: given[key] for key in settings} == settings


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_training_starts_at_the_zero_shot_model_exactly(name, settings, training):
    untouched = tiny.build()
    untouched.model.requires_grad_(False).train(training)
    loaded, _, _ = attached_to(name, settings)
    loaded.model.requires_grad_(False).train(training)  # torch rounds otherwise with gradients
    elsewhere = tiny.starts_elsewhere(name, settings)
    assert torch.equal(features(loaded), features(untouched)) is not elsewhere


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_at_every_scale_it_is_the_merged_model(name, settings):
    loaded, attached, base = attached_to(name, settings, momentum=0.5)
    merge = getattr(registry.load(METHODS, name), "merge", None)
    for step in range(3):
        shake(attached, step)
        attached.update_average()
    loaded.model.train()
    loaded.model.visual.ln_post.eval()
    modes = [module.training for module in loaded.model.modules()]
    plain = tiny.build()
    before, stored = features(plain), attached.stored()
    trained = [p.detach().clone() for p in attached.parameters()]
    for alpha in (0.0, 0.3, 1.0, 1.5):
        with attached.at(alpha) as model:
            assert model is loaded.model
            assert not any(module.training for module in model.modules())
            found = features(loaded)
        assert [module.training for module in loaded.model.modules()] == modes
        if alpha == 0:
            torch.testing.assert_close(found, before, rtol=1e-6, atol=1e-6)
        else:
            assert (found - before).abs().max() > 1e-2
        other, again, _ = attached_to(name, settings)
        again.load_stored(stored, alpha)
        other.model.eval()
        torch.testing.assert_close(features(other), found, rtol=1e-5, atol=1e-5)
        if merge is not None:
            merged = merge(base, stored, alpha)
            assert list(merged) == list(base)
            plain.model.load_state_dict(merged)
            torch.testing.assert_close(features(plain), found, rtol=1e-5, atol=1e-5)
            if alpha == 0:
                assert all(torch.equal(merged[key], value) for key, value in base.items())
    assert all(map(torch.equal, trained, (p.detach() for p in attached.parameters())))


@pytest.mark.parametrize(("name", "settings"), CASES)
@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_state_comes_back_whole(name, settings, momentum):
    _, one, _ = attached_to(name, settings, momentum=momentum)
    for step in range(3):
        shake(one, step)
        one.update_average()
    state = {key: value.clone() for key, value in one.state().items()}
    # Another start, but for what the run of another method gives.
    seed = 0 if tiny.follows(name) else 1
    _, two, _ = attached_to(name, settings, seed=seed, momentum=momentum)
    two.load_state(state)
    for attached in (one, two):
        shake(attached, 9)
        attached.update_average()
    assert (two.start_share, two.updates) == (one.start_share, one.updates)
    for ours, theirs in ((one.state(), two.state()), (one.stored(), two.stored())):
        assert list(ours) == list(theirs)
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize(("name", "settings"), CASES)
@pytest.mark.parametrize("warmup", [False, True])
def test_the_average_by_hand(name, settings, warmup):
    _, attached, _ = attached_to(name, settings, momentum=0.8, warmup=warmup)
    means = {k: v.detach().double().numpy().copy() for k, v in attached.values().items()}
    share = 1.0
    for step in range(20):
        shake(attached, step)
        attached.update_average()
        m = min(0.8, (1 + step) / (10 + step)) if warmup else 0.8
        share *= m
        for key, value in attached.values().items():
            means[key] = m * means[key] + (1 - m) * value.detach().double().numpy()
    assert attached.start_share == pytest.approx(share, rel=1e-12)
    for key, mean in means.items():
        np.testing.assert_allclose(attached.mean[key], mean, atol=1e-5)


def test_an_average_whose_momentum_rises_by_hand():
    """As CaRot's: every third step, from 0.2 to 0.8 over the first half of 20 steps."""
    rising = {"momentum": 0.8, "every": 3, "rise": 0.5, "first": 0.2}
    _, attached, _ = attached_to("full", {}, **rising)
    attached.steps = 20
    (name, parameter), *_ = attached.trained.items()
    mean, share = parameter.detach().clone(), 1.0
    for step in range(20):
        shake(attached, step)
        attached.update_average()
        if step in (0, 3, 6, 9, 12, 15, 18):
            m = 0.2 + 0.6 * step / 10 if step < 10 else 0.8
            mean, share = m * mean + (1 - m) * parameter.detach(), m * share
        torch.testing.assert_close(attached.mean[name], mean)
    assert attached.start_share == pytest.approx(share)


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_an_average_may_be_a_teacher_alone(name, settings):
    loaded, attached, _ = attached_to(name, settings, momentum=0.5, keep="last")
    _, plain, _ = attached_to(name, settings, momentum=0.0)
    for one in (attached, plain):
        shake(one)
        one.update_average()
    stored, expected = attached.stored(), plain.stored()
    assert all(torch.equal(stored[key], value) for key, value in expected.items())
    assert attached.start_share == 0
    with attached.at(1.0):
        last = features(loaded)
    with attached.at(1.0, average=True):
        assert (features(loaded) - last).abs().max() > 1e-3


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_without_an_average_the_present_values_are_stored(name, settings):
    _, attached, _ = attached_to(name, settings, momentum=0.0)
    shake(attached)
    attached.update_average()
    first = attached.stored()
    assert not attached.mean
    shake(attached)
    assert any(not torch.equal(first[key], value) for key, value in attached.stored().items())


EXPORTED = [c for c in CASES if c.id.endswith("-0") or not registry.folds(c.values[0])]
"""What folds gives plain weights with any settings; what does not, layers of its own"""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "settings"), EXPORTED)
def test_what_it_gives_is_exported(name, settings, tmp_path):
    loaded, attached, _ = attached_to(name, settings, momentum=0.0)
    shake(attached)
    attached.load_stored(attached.stored(), 0.7)
    loaded.model.eval().requires_grad_(False)
    (tmp_path / "onnx").mkdir()
    pictures, tokens = tiny.batch(loaded)
    files = {bundle.VISION: pictures, bundle.TEXT: tokens}
    with torch.no_grad():
        expected = [
            loaded.model.encode_image(pictures, True),
            loaded.model.encode_text(tokens, True),
        ]
        if frames := most_frames(loaded.model):
            files[bundle.VIDEO] = torch.stack([pictures.roll(n, 0) for n in range(frames)], dim=1)
            expected.append(video_features(loaded.model, files[bundle.VIDEO]))
    inputs = (tower.input for tower in bundle.towers(frames))
    export_towers(
        loaded.model, tmp_path, dict(zip(inputs, files.values(), strict=True)),
        precision="fp32", context_length=77, opset=18,
    )  # fmt: skip
    for (file, batch), theirs in zip(files.items(), expected, strict=True):
        session = onnxruntime.InferenceSession(tmp_path / file)
        for size in (len(batch), 1):
            (ours,) = session.run(None, {session.get_inputs()[0].name: batch[:size].numpy()})
            np.testing.assert_allclose(ours, theirs[:size], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in METHODS if not registry.folds(name)])
def test_a_model_that_was_loaded_is_back_after_another_scale(name, tiny_folder):
    model, method = models.load(tiny_folder).model, registry.load(METHODS, name)
    attached = method.attach(model, **method.EXAMPLES[-1])
    stored = {key: torch.ones_like(value) / 9 for key, value in attached.stored().items()}
    attached.load_stored(stored, 0.3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with attached.at(0.0):
        pass
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())

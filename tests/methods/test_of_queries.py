"""What holds for every method that trains queries of a picture and a text, and the towers: these
stay as they are, bit for bit."""

import numpy as np
import pytest
import tiny
import torch

from radapter import models, registry
from radapter.errors import UsageError
from radapter.models.queries import asked, query_features
from radapter.registry import METHODS, schema

CASES = [
    pytest.param(name, settings, id=f"{name}-{number}")
    for name in tiny.OF_QUERIES
    for number, settings in enumerate(registry.load(METHODS, name).EXAMPLES)
]
TEXTS = ["a red one", "of the sea", "sun"]


def attached_to(name, settings, seed=0, momentum=0.5):
    loaded = tiny.build()
    average = schema(name, METHODS[name], "attach").model_fields["average"].default
    average = average.model_copy(update={"momentum": momentum})
    torch.manual_seed(seed)
    return loaded, registry.load(METHODS, name).attach(loaded.model, **settings, average=average)


def shake(attached, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in attached.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))


def tokens_of(loaded):
    template = loaded.model.inversion.template
    return loaded.tokenize([asked(template, text) for text in TEXTS])


def queries(loaded):
    pictures, _ = tiny.batch(loaded)
    with torch.no_grad():
        return query_features(loaded.model, loaded.model.encode_image(pictures), tokens_of(loaded))


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_features_of_pictures_and_texts_stay_as_they_are(name, settings):
    plain = tiny.build()
    plain.model.requires_grad_(False)  # torch rounds otherwise with gradients
    loaded, attached = attached_to(name, settings)
    shake(attached)
    attached.update_average()
    for alpha in (0.0, 0.4, 1.0):
        with attached.at(alpha) as model, torch.no_grad():
            for ours, theirs in zip(
                (tiny.features(model, *tiny.batch(loaded)), model.logit_scale),
                (tiny.features(plain.model, *tiny.batch(plain)), plain.model.logit_scale),
                strict=True,
            ):
                assert torch.equal(ours, theirs)
    assert not attached.towers()
    assert not attached.trains_model


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_alpha_leads_from_the_plain_text_to_what_was_kept(name, settings):
    loaded, attached = attached_to(name, settings)
    loaded.model.eval()
    with torch.no_grad():
        plain = models.encode_text(loaded.model, tokens_of(loaded))
    before = queries(loaded)
    for step in range(3):
        shake(attached, step)
        attached.update_average()
    now = queries(loaded)
    found = []
    for alpha in (0.0, 0.5, 1.0):
        with attached.at(alpha):
            found.append(queries(loaded))
        other, again = attached_to(name, settings, seed=5)
        again.load_stored(attached.stored(), alpha)
        other.model.eval()
        torch.testing.assert_close(queries(other), found[-1])
    torch.testing.assert_close(found[0], plain, rtol=1e-6, atol=1e-6)
    for one, two in zip(found, [*found[1:], before], strict=True):
        assert (one - two).abs().max() > 1e-3
    torch.testing.assert_close(queries(loaded), now)  # it trains on
    assert (found[2] - now).abs().max() > 1e-4  # the average is not the last value


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_state_comes_back_whole(name, settings):
    _, one = attached_to(name, settings)
    shake(one)
    one.update_average()
    _, two = attached_to(name, settings)  # what of it is not trained is the same again
    two.load_state({key: value.clone() for key, value in one.state().items()})
    for attached in (one, two):
        shake(attached, 9)
        attached.update_average()
    for ours, theirs in ((one.state(), two.state()), (one.stored(), two.stored())):
        assert list(ours) == list(theirs)
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_the_word_of_a_picture_by_hand():
    """The network in NumPy, and the text tower on embeddings that were put in by hand."""
    loaded, _ = attached_to("inversion", {"hidden": 2, "drop": 0.5, "template": "$ as {}"})
    loaded.model.eval()
    network, (pictures, _) = loaded.model.inversion, tiny.batch(loaded)
    with torch.no_grad():
        z = loaded.model.encode_image(pictures)
    x = (z / z.norm(dim=1, keepdim=True)).double().numpy()
    layers = [layer for layer in network.layers if hasattr(layer, "weight")]
    for number, layer in enumerate(layers):
        x = x @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
        if number < 2:
            x = x * 0.5 * (1 + torch.erf(torch.from_numpy(x) / 2**0.5).numpy())
    np.testing.assert_allclose(network.change(z).detach(), x, atol=1e-5)
    texts = ["a $ on a $", "$", "no picture"]
    tokens = loaded.tokenize(texts)
    plain = loaded.model.token_embedding(tokens).detach().clone()
    for row, place in ((0, 2), (0, 5), (1, 1)):
        assert tokens[row, place] == network.place
        plain[row, place] = torch.from_numpy(x[row])
    with torch.no_grad():
        wanted = models.encode_text(loaded.model, tokens, plain)
        torch.testing.assert_close(query_features(loaded.model, z, tokens), wanted)
        last = models.encode_text(loaded.model, tokens[2:])
    torch.testing.assert_close(wanted[2:], last)


def test_what_cannot_be_is_said():
    for template in ("a photo", "$ {} {}", "{}", "$ $ {}", "$, {}"):
        with pytest.raises(UsageError, match=r"needs one \$ between spaces for the picture"):
            attached_to("inversion", {"template": template})
    loaded = tiny.build(text={"no_causal_mask": True}, custom=True)
    with pytest.raises(UsageError, match="needs a causal text tower of open_clip's own code"):
        registry.load(METHODS, "inversion").attach(loaded.model)
    assert asked("$ {}", " five $ more") == "$ five more"


def test_the_words_of_mota_by_hand():
    """The gate, the prompts of all sets and the modulated feature in NumPy."""
    loaded, attached = attached_to("mota", {"sets": 3, "prompts": 2, "hidden": 1})
    shake(attached)
    network, (pictures, _) = loaded.model.inversion, tiny.batch(loaded)
    assert network.template == "$ $ a photo of $ that {}"
    names = {name.removeprefix("inversion.") for name in attached.trained}
    assert names == {"prompts", "gate.weight", "gate.bias", "stretch", "shift"}
    assert {"inversion.layers.0.weight", "inversion.prompts"} <= attached.stored().keys()
    tokens = tokens_of(loaded)
    with torch.no_grad():
        z = loaded.model.encode_image(pictures)
        plain = loaded.model.token_embedding(tokens)
        words = network.words(z, tokens, plain)
    assert words.shape == (3, 3, 16)
    own = {name: p.detach().double().numpy() for name, p in network.named_parameters()}
    for row in range(3):
        kept = [i for i, token in enumerate(tokens[row].tolist()) if token not in (0, 259)]
        mean = plain[row, kept].double().numpy().mean(axis=0)
        scores = np.exp(own["gate.weight"] @ mean + own["gate.bias"])
        prompts = np.tensordot(scores / scores.sum(), own["prompts"], 1)
        np.testing.assert_allclose(words[row, :2], prompts, atol=1e-5)
        unit = z[row].double().numpy() / np.linalg.norm(z[row])
        moved = torch.from_numpy((1 + own["stretch"]) * unit + own["shift"]).float()
        x = moved / moved.norm()
        with torch.no_grad():
            np.testing.assert_allclose(words[row, 2], network.layers(x[None])[0], atol=1e-5)

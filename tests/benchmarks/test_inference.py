"""The benchmark of adapters that do not fold gives each text tower texts that it takes."""

import pytest
import tiny
import torch
import torch.nn.functional as F

from radapter import bundle, registry


@pytest.mark.parametrize(
    ("text", "length"), [({}, 16), ({"context_length": 6}, 6), ({"pool_type": "last"}, 77)]
)
def test_texts_are_as_long_as_the_model_takes_them(inference, text, length):
    base = tiny.build(text=text)
    tokens = inference.examples(base, 3)["input_ids"]
    wanted = base.tokenizer([f"a picture of thing number {n}" for n in range(3)], length)
    assert tokens.shape == (3, length)
    assert tokens.equal(wanted)


@pytest.mark.slow  # it exports
@pytest.mark.parametrize("pool", ["argmax", "last"])
def test_exported_towers_give_what_pytorch_gives(inference, pool):
    base = tiny.build(text={"pool_type": pool})
    calls, given = inference.sessions(base.model, base), inference.examples(base, 2)
    with torch.no_grad():
        wanted = tiny.features(base.model, given["pixel_values"], given["input_ids"])
    found = [calls[tower.name](given[tower.input]) for tower in bundle.TOWERS]
    torch.testing.assert_close(torch.cat(found), F.normalize(wanted, dim=-1), rtol=0, atol=1e-5)


@pytest.mark.slow  # it exports
@pytest.mark.parametrize("name", registry.HEADS)
def test_an_exported_head_gives_probabilities_of_all_classes(inference, name):
    call = inference.head_session(name, 8, 64)
    features = F.normalize(torch.randn(5, 8), dim=-1)
    found = call(features)
    assert found.shape == (5, 4)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(5))
    assert (found.std(dim=0) > 0).any()

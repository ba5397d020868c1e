"""The benchmark of adapters that do not fold gives each text tower texts that it takes."""

import pytest
import tiny
import torch
import torch.nn.functional as F

from radapter import registry


@pytest.mark.parametrize(
    ("text", "length"), [({}, 16), ({"context_length": 6}, 6), ({"pool_type": "last"}, 77)]
)
def test_texts_are_as_long_as_the_model_takes_them(inference, text, length):
    assert inference.inputs_of(tiny.build(text=text)).tokens(3).shape == (3, length)


@pytest.mark.slow  # it exports
def test_the_tables_have_every_method_and_head(inference, tiny_folder, monkeypatch, capsys):
    few = {label: inference.ATTACHED[label] for label in ("MoTa", "GRU, 8 frames", "UCDR-Adapter")}
    monkeypatch.setattr(inference, "ATTACHED", few)
    inference.main(str(tiny_folder), [2], rounds=1, seconds=0.0)
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split(" | ")[0]: line.split(" | ")[1:] for line in lines if line.startswith("| ")}
    measured = {
        label: [bool(cell.strip(" |")) for cell in rows[f"| {label}"]] for label in few
    }  # pictures, texts, clips, queries
    assert measured["MoTa"] == [True, True, False, True]
    assert measured["GRU, 8 frames"] == [True, True, True, False]
    assert measured["UCDR-Adapter"] == [True, True, False, False]
    assert all(f"| {name}" in rows for name in registry.HEADS)


@pytest.mark.slow  # it exports
@pytest.mark.parametrize("name", registry.HEADS)
def test_an_exported_head_gives_probabilities_of_all_classes(inference, name):
    call = inference.head_session(name, 8, 64)
    features = F.normalize(torch.randn(5, 8), dim=-1)
    found = call(features)
    assert found.shape == (5, 4)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(5))
    assert (found.std(dim=0) > 0).any()

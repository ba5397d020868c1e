import pytest
import tiny
import torch
import torch.nn.functional as F

from radapter import models

END = 49407
TEXTS = ["sun", "", "a photo of two green dogs on a very red sofa by the sea", "word " * 100]
CAUSAL = {
    "CLIP, argmax": {},
    "CLIP, end token": {"text": {"pool_type": "eos", "eos_id": END}},
    "custom, argmax": {"custom": True},
    "custom, end token": {"custom": True, "text": {"pool_type": "eos", "eos_id": END}},
    "custom, projection with bias": {"custom": True, "text": {"proj_bias": True}},
    "short context": {"text": {"context_length": 20}},
    "quick_gelu": {"quick_gelu": True},
}
OTHERS = {
    "not causal": {"text": {"no_causal_mask": True}},
    "class token": {"custom": True, "text": {"embed_cls": True}},
    "last": {"text": {"pool_type": "last"}},
    "first": {"text": {"pool_type": "first"}},
}


@pytest.mark.parametrize("options", CAUSAL.values(), ids=CAUSAL)
@pytest.mark.parametrize("texts", [TEXTS, TEXTS[:3], TEXTS[:2], TEXTS[1:2]], ids=len)
def test_short_texts_have_the_features_of_full_length(options, texts):
    loaded = tiny.build(**options)
    tokens = loaded.tokenizer(texts)
    short = models.shorten(loaded.model, tokens)
    ends = (tokens == END).int().argmax(dim=1)
    assert short.shape == (len(texts), int(ends.max()) + 1)
    with torch.no_grad():
        expected = F.normalize(loaded.model.encode_text(tokens), dim=-1)
        for given in (short, tokens):
            features = F.normalize(models.encode_text(loaded.model, given), dim=-1)
            torch.testing.assert_close(features, expected, rtol=0, atol=1e-6)
    distances = torch.cdist(expected, expected) + torch.eye(len(texts))
    assert distances.min() > 1e-3  # the texts are told apart, so equality says something


def test_gradients_of_short_texts_are_those_of_full_length():
    loaded = tiny.build()
    tokens = loaded.tokenizer(TEXTS[:3])
    weights = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    gradients = []
    for features in (
        loaded.model.encode_text(tokens),
        models.encode_text(loaded.model, models.shorten(loaded.model, tokens)),
    ):
        loaded.model.zero_grad()
        (features * weights).sum().backward()
        gradients.append(
            {n: p.grad.clone() for n, p in loaded.model.named_parameters() if p.grad is not None}
        )
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", OTHERS.values(), ids=OTHERS)
def test_other_towers_keep_their_full_context(options):
    loaded = tiny.build(**options)
    tokens = loaded.tokenizer(TEXTS[:2])
    assert models.shorten(loaded.model, tokens) is tokens
    with torch.no_grad():
        assert torch.equal(
            models.encode_text(loaded.model, tokens), loaded.model.encode_text(tokens)
        )


def test_no_texts_at_all():
    loaded = tiny.build()
    assert models.shorten(loaded.model, torch.zeros(0, 77, dtype=torch.long)).shape == (0, 77)

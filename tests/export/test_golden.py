"""Golden files: computed again here from open_clip itself."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tiny_bundle import make

from radapter import models
from radapter.errors import GateFailed
from radapter.export import configs, golden


@pytest.fixture
def read(exported):
    content = json.loads((exported / "golden" / "golden.json").read_text(encoding="utf-8"))

    def read(name):
        return np.load(exported / content[name], allow_pickle=False) if name in content else content

    return read


def test_the_pictures_and_what_becomes_of_them(exported, tiny, read):
    pictures = [Image.open(exported / name) for name in read("")["pictures"]]
    assert len({picture.size for picture in pictures}) == 3
    assert {picture.mode for picture in pictures} == {"RGB", "L"}
    pixels = torch.stack([tiny.preprocess(picture) for picture in pictures])
    with torch.no_grad():
        features = F.normalize(tiny.model.encode_image(pixels), dim=1)
    assert read("pixel_values").dtype == np.float32
    np.testing.assert_allclose(read("pixel_values"), pixels, atol=1e-7)
    np.testing.assert_allclose(read("image_embeds"), features, atol=1e-6)
    cosines = features @ features.T
    assert cosines[0, 1] < 0.99  # a port that mixes them up is found out


@pytest.mark.parametrize("mistake", ["order", "filter"])
def test_the_pictures_tell_what_is_wrong(exported, tiny, read, mistake):
    for name, right in zip(read("")["pictures"], read("pixel_values"), strict=True):
        picture = Image.open(exported / name)
        if mistake == "order" and picture.mode == "RGB":
            wrong = tiny.preprocess(Image.merge("RGB", picture.split()[::-1]))
        elif mistake == "filter":
            wrong = tiny.preprocess(picture.resize((32, 32), Image.Resampling.NEAREST))
        else:
            continue
        assert np.abs(wrong.numpy() - right).max() > 100 * golden.PIXEL_TOLERANCE


def test_the_texts_and_their_ids(tiny, read):
    equal, different = (read("")["texts"][name] for name in ("equal", "different"))
    assert [row["text"] for row in equal] == list(golden.EQUAL)
    assert [row["text"] for row in different] == list(golden.DIFFERENT)
    for row in equal:
        ids = tiny.tokenizer([row["text"]])[0]
        assert row["ids"] == ids[: int(ids.argmax()) + 1].tolist()
    for row in different:
        ids = tiny.tokenizer([row["text"]])[0]
        assert row["open_clip_ids"] == ids[: int(ids.argmax()) + 1].tolist() != row["ids"]
    tokens = tiny.tokenizer([row["text"] for row in equal])
    with torch.no_grad():
        features = F.normalize(tiny.model.encode_text(tokens), dim=1)
    np.testing.assert_allclose(read("text_embeds"), features, atol=1e-6)
    assert max(len(row["ids"]) for row in equal) == 77


def test_models_that_pad_have_full_ids(tmp_path):
    loaded = make(custom=True, no_causal_mask=True)
    configs.write_tokenizer(tmp_path, loaded.tokenizer, context_length=77, dynamic=False)
    equal, different = golden.token_ids(tmp_path, loaded, dynamic=False)
    assert {len(row["ids"]) for row in (*equal, *different)} == {77}


def test_a_tokenizer_json_that_is_wrong_is_refused(tmp_path, tiny):
    configs.write_tokenizer(tmp_path, tiny.tokenizer, context_length=77, dynamic=True)
    path = tmp_path / "tokenizer.json"
    path.write_text(path.read_text().replace('{"type":"Lowercase"}', '{"type":"NFC"}'))
    with pytest.raises(GateFailed, match=r"token ids for 'Café.*No bundle was written"):
        golden.token_ids(tmp_path, tiny, dynamic=True)


class Other:
    """A tokenizer that is not CLIP's, cleaning texts in a way of its own."""

    def __init__(self, tokenizer, clean):
        self.tokenizer, self.clean_fn = tokenizer, clean
        self.context_length = tokenizer.context_length

    def __call__(self, texts):
        return self.tokenizer([self.clean_fn(text) for text in texts])


def as_if(tiny, tokenizer):
    return models.LoadedModel("other", tiny.model, tokenizer, tiny.preprocess, tiny.config)


def test_what_another_tokenizer_cleans_is_listed(exported, tiny, monkeypatch):
    other = as_if(tiny, Other(tiny.tokenizer, lambda text: text.replace("cat", "dog")))
    monkeypatch.setattr(golden, "DIFFERENT", ())  # which CLIP's own cleaning changes, too
    equal, different = golden.token_ids(exported, other, dynamic=True)
    assert [row["text"] for row in different] == ["a photo of a cat", "3 cats, 1,024 in 1999"]
    assert len(equal) == len(golden.EQUAL) - 2


def test_another_tokenizer_that_is_wrong_is_refused(exported, tiny):
    class Wrong(Other):
        def __call__(self, texts):
            return super().__call__([text.replace("cat", "dog") for text in texts])

    with pytest.raises(GateFailed, match="token ids for 'a photo of a cat'"):
        golden.token_ids(exported, as_if(tiny, Wrong(tiny.tokenizer, str)), dynamic=True)


def test_pictures_of_ones_own(tmp_path, tiny):
    configs.write_tokenizer(tmp_path, tiny.tokenizer, context_length=77, dynamic=True)
    pictures = [Image.new("RGB", (30 + n, 40), (80 * n, 9, 9)) for n in range(3)]
    golden.write(tmp_path, tiny, dynamic=True, pictures=pictures)
    for n, picture in enumerate(pictures):
        assert Image.open(tmp_path / f"golden/picture_{n}.png").tobytes() == picture.tobytes()

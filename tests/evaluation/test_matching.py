"""Mug and frames weighted by auxiliary captions, against NumPy."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from radapter import models, registry
from radapter.data.sources.videos import VideosData
from radapter.errors import UsageError
from radapter.evaluation.cache import Cache
from radapter.evaluation.evaluate import evaluate
from radapter.evaluation.matching import pooled
from radapter.evaluation.suite import Suite, SuiteDataset
from radapter.evaluation.suite_dataset import Match
from radapter.runtimes.opened import from_loaded, open_bundle

CLIPS = {"a": ("a dog", 3), "b": ("a red square on a wall", 1), "c": ("two cats run", 4)}
FORMS = ["similarities", "features"]


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def mug(s, tau, pool):
    """Of the cosines [tokens, frames] of one text and one clip, by loops."""
    rows = np.array([(softmax(tau * row) * row).sum() for row in s])
    columns = np.array([(softmax(tau * column) * column).sum() for column in s.T])
    a, b = softmax(tau * rows), softmax(tau * columns)
    return (a @ rows + b @ columns) / 2 if pool == "similarities" else a @ s @ b


@pytest.mark.parametrize("pool", FORMS)
def test_mug_of_padded_texts_and_clips(pool):
    chance = np.random.default_rng(0)
    lengths, frames = (2, 5, 3), (4, 1)
    s = chance.uniform(-1, 1, (3, 2, 5, 4))
    read = torch.arange(5) < torch.tensor(lengths)[:, None]
    there = torch.arange(4) < torch.tensor(frames)[:, None]
    match = Match(by="mug", pool=pool, temperature=7.0)
    found = pooled(torch.from_numpy(s), read, there, match)
    for a, t in enumerate(lengths):
        for b, v in enumerate(frames):
            assert found[a, b] == pytest.approx(mug(s[a, b, :t, :v], 7.0, pool), abs=1e-12)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Folders of frames of noise, one of a single frame, with auxiliary captions of two of them."""
    root = tmp_path_factory.mktemp("clips")
    chance = np.random.default_rng(1)
    more = {"a": ["an animal", "grass"], "b": [], "c": "cats"}
    rows = []
    for name, (caption, number) in CLIPS.items():
        (root / name).mkdir()
        for k in range(number):
            pixels = chance.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{k}.png")
        rows.append({"video": name, "caption": caption, "more": more[name]})
    (root / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


@pytest.fixture(scope="module")
def loaded(tiny_folder):
    return models.load(tiny_folder)


def suite(clips, more="more", **match):
    data = VideosData(
        source="videos", root=str(clips), path=str(clips / "list.jsonl"), task="captions",
        frames=4, auxiliary_column=more,
    )  # fmt: skip
    described = SuiteDataset(name="clips", role="zero-shot", data=data, match=Match(**match))
    return Suite(name="clips", tasks=["retrieval"], datasets=[described])


@pytest.fixture(scope="module", params=["mv-adapter", "stan", "gru"])
def of_clips(request, tiny_folder):
    """A model of clips whose weights are away from their start."""
    settings = {"mv-adapter": {"rank": 4, "scale": 1.0}, "stan": {"depth": 2, "places": "random"}}
    settings["gru"] = {"width": 8}
    loaded = models.load(tiny_folder)
    torch.manual_seed(3)
    attach = registry.load(registry.METHODS, request.param).attach
    attached = attach(loaded.model, frames=4, **settings[request.param])
    with torch.no_grad():
        for parameter in attached.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    loaded.model.eval().requires_grad_(False)
    return loaded


def features_by_hand(loaded, clips):
    """Unit-norm features of the frames of each clip, of the tokens of each text, of whole texts."""
    frames, tokens, whole = {}, {}, {}
    with torch.no_grad():
        for name, (caption, number) in CLIPS.items():
            files = [Image.open(clips / name / f"{k}.png").convert("RGB") for k in range(number)]
            frames[name] = loaded.model.encode_image(
                torch.stack(list(map(loaded.preprocess, files)))
            )
            ids = loaded.tokenizer([caption])
            model = loaded.model
            x = model.token_embedding(ids) + model.positional_embedding
            x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask))
            tokens[name] = (x @ model.text_projection)[0, : int(ids.argmax()) + 1]
            whole[name] = model.encode_text(ids)[0]
    unit = [
        {
            name: f.numpy() / np.linalg.norm(f.numpy(), axis=-1, keepdims=True)
            for name, f in own.items()
        }
        for own in (frames, tokens, whole)
    ]
    return unit


def ranks(similar, own):
    """Hits at 1 of each row, whose right column has its number."""
    return [(np.array(row) >= row[i]).sum() == 1 for i, row in zip(own, similar, strict=True)]


@pytest.mark.parametrize("pool", FORMS)
def test_a_suite_ranks_by_mug(loaded, clips, pool, tmp_path):
    frames, tokens, _ = features_by_hand(loaded, clips)
    similar = np.array([[mug(tokens[t] @ frames[v].T, 100.0, pool) for v in CLIPS] for t in CLIPS])
    model, cache = from_loaded(loaded), Cache(tmp_path, 1 << 30)
    for _ in range(2):  # the second time frames are in the cache
        result = evaluate(suite(clips, by="mug", pool=pool), model, cache=cache).sets["clips"]
        to_clip = result.metrics["text_to_image_r1"].scores
        assert to_clip.tolist() == ranks(similar, range(3))
        assert result.metrics["image_to_text_r1"].scores.tolist() == ranks(similar.T, range(3))
        assert result.facts["protocol"]["match"].startswith("Mug")
        count = sum(map(len, tokens.values())) * 8
        (said,) = [remark for remark in result.facts["remarks"] if "Mug took" in remark]
        assert f"Mug took {count:,} cosines" in said
        assert "take 9 cosines" in said


def test_frames_weighted_by_auxiliary_captions(loaded, clips):
    from radapter.evaluation import matching
    from radapter.evaluation.result import Evaluation
    from radapter.evaluation.texts import Texts

    frames, *_ = features_by_hand(loaded, clips)
    described, model = suite(clips, frames="auxiliary", temperature=9.0), from_loaded(loaded)
    dataset = described.open()["clips"]["retrieval"]
    assert dataset.auxiliary == [["an animal", "grass"], [], ["cats"]]
    texts = Texts(Evaluation(described, model.runtime), model, None)
    found = matching.weighted(dataset, texts, described.datasets[0].match)
    for name, own, feature in zip(CLIPS, dataset.auxiliary, found, strict=True):
        mean = frames[name].mean(axis=0)
        if own:
            with torch.no_grad():
                c = loaded.model.encode_text(loaded.tokenizer(own)).numpy()
            c = c / np.linalg.norm(c, axis=-1, keepdims=True)
            weights = np.mean([softmax(9.0 * (frames[name] @ k)) for k in c], axis=0)
            mean = mean / 2 + weights @ frames[name] / 2
        assert np.allclose(feature, mean / np.linalg.norm(mean), atol=1e-5)
    result = evaluate(described, model).sets["clips"]
    assert "auxiliary captions" in result.facts["protocol"]["match"]


def frames_together(loaded, clips):
    """Of a model of clips, each clip with its own frames alone: what its feature is the mean of."""
    found = {}
    for name, (_, number) in CLIPS.items():
        files = [Image.open(clips / name / f"{k}.png").convert("RGB") for k in range(number)]
        clip = torch.stack(list(map(loaded.preprocess, files)))[None]
        with torch.no_grad():
            found[name] = loaded.model.encode_frames(clip)[0].numpy()
            mean = found[name].mean(axis=0)
            whole = loaded.model.encode_video(clip)[0]
        assert np.allclose(whole, mean / np.linalg.norm(mean), atol=1e-5)
    return found


def test_the_frames_of_a_model_of_clips_are_seen_together(of_clips, clips):
    from radapter.evaluation import matching
    from radapter.evaluation.result import Evaluation
    from radapter.evaluation.texts import Texts

    together, model = frames_together(of_clips, clips), from_loaded(of_clips)
    alone, tokens, _ = features_by_hand(of_clips, clips)
    assert np.abs(together["c"] - alone["c"]).max() > 0.01
    described = suite(clips, by="mug", temperature=9.0)
    dataset = described.open()["clips"]["retrieval"]
    texts = Texts(Evaluation(described, model.runtime), model, None)
    found, there = matching.frames_of(dataset, texts)
    for name, own, real in zip(CLIPS, found, there, strict=True):
        assert np.allclose(own[real], together[name], atol=1e-5)
    captions = [caption for caption, _ in CLIPS.values()]
    similar, _ = matching.mug(dataset, captions, texts, described.datasets[0].match)
    expected = [[mug(tokens[t] @ together[v].T, 9.0, "similarities") for v in CLIPS] for t in CLIPS]
    assert np.allclose(similar, expected, atol=1e-5)
    found = matching.weighted(dataset, texts, described.datasets[0].match)
    mean = together["b"].mean(axis=0)  # it has no auxiliary captions
    assert np.allclose(found[1], mean / np.linalg.norm(mean), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("match", [{"by": "mug"}, {"frames": "auxiliary"}])
def test_an_exported_model_of_clips_has_no_frames(of_clips, clips, match, tmp_path):
    from tiny_bundle import FACTS

    from radapter.export import Contents, Sample, export_bundle

    frames = [Image.open(clips / "c" / f"{k}.png").convert("RGB") for k in range(4)]
    sample = Sample(frames, ["a dog", "a cat", "two", "run"], clips=[frames, frames[::-1]] * 2)
    export_bundle(of_clips, tmp_path / "b", Contents(["fp32"]), facts=FACTS, sample=sample)
    message = "onnx has no features of (single frames|tokens), since .* with --runtime torch"
    with pytest.raises(UsageError, match=message):
        evaluate(suite(clips, **match), open_bundle(tmp_path / "b"))


def test_what_cannot_be_is_refused(loaded, clips):
    with pytest.raises(UsageError, match="auxiliary_column"):
        suite(clips, more=None, frames="auxiliary").open()
    model = from_loaded(loaded)

    class Exported:
        name, device, precision, provenance, logit_scale = "onnx", "cpu", "fp32", {}, 1.0
        identity = None
        encode_image = staticmethod(model.runtime.encode_image)
        encode_text = staticmethod(model.runtime.encode_text)
        encode_video = staticmethod(model.runtime.encode_video)
        encode_frames = staticmethod(model.runtime.encode_frames)

    with pytest.raises(UsageError, match="onnx has no features of tokens.*--runtime torch"):
        evaluate(suite(clips, by="mug"), dataclasses.replace(model, runtime=Exported()))
    with pytest.raises(ValueError, match="goes with `by: cosine`"):
        Match(by="mug", frames="auxiliary")

import io
import json
import pickle
import shutil

import numpy as np
import open_clip
import pytest
import tiny
import torch
from open_clip.transformer import QuickGELU
from PIL import Image
from safetensors.torch import load_file, save_file

from radapter import models
from radapter.errors import BrokenInput, UsageError
from radapter.files import safetensors_metadata

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
LIKE = "like=ViT-B-32:laion2b_s34b_b79k"


@pytest.fixture
def folder(tiny_folder, tmp_path):
    """A model folder to damage."""
    return shutil.copytree(tiny_folder, tmp_path / "model")


@pytest.fixture(scope="session")
def architecture(tmp_path_factory):
    """A tiny architecture that open_clip knows by name."""
    folder = tmp_path_factory.mktemp("architectures")
    config = {"embed_dim": 16, "vision_cfg": tiny.VISION, "text_cfg": tiny.TEXT}
    for name in ("tiny-test", "tiny-test-quickgelu"):
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    return "tiny-test"


def picture():
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


# ------------------------------------------------------------------ what loads


def test_random_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = models.load("pictogram-clip:random", seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    again = models.load("pictogram-clip:random", seed=5)
    assert first.weights_hash == again.weights_hash
    assert first.weights_hash != models.load("pictogram-clip:random", seed=6).weights_hash
    assert not first.model.training
    assert first.tokenizer(["a cat"]).shape == (1, 77)
    assert first.preprocess(picture()).shape == (3, 64, 64)


@pytest.mark.parametrize("prefix", ["", "local-dir:"])
def test_a_folder_by_its_path(tiny_folder, prefix):
    loaded = models.load(f"{prefix}{tiny_folder}")
    stored = load_file(tiny_folder / WEIGHTS)
    state = loaded.model.state_dict()
    assert set(stored) == set(state)
    assert all(torch.equal(state[name], value) for name, value in stored.items())
    assert not loaded.model.training
    assert type(loaded.model) is open_clip.CLIP


@pytest.mark.parametrize(
    "options",
    [{}, {"quick_gelu": True}, {"custom": True}, {"custom": True, "quick_gelu": True}],
    ids=["CLIP", "CLIP quick", "custom", "custom quick"],
)
def test_what_is_saved_loads_with_open_clip_alone(tmp_path, options):
    original = tiny.build(**options)
    images, tokens = tiny.batch(original)
    folder = tiny.write(tmp_path / "model", **options)
    name = f"local-dir:{folder}"
    theirs, _, preprocess = open_clip.create_model_and_transforms(name)
    theirs.eval()
    ours = models.load(folder)
    with torch.no_grad():
        expected = tiny.features(original.model, images, tokens)
        for model in (theirs, ours.model):
            assert type(model) is type(original.model)
            torch.testing.assert_close(tiny.features(model, images, tokens), expected)
            quick = [m for m in model.modules() if isinstance(m, QuickGELU)]
            assert len(quick) == (4 if options.get("quick_gelu") else 0)
    pixels = preprocess(picture())
    assert torch.equal(ours.preprocess(picture()), pixels)
    assert torch.equal(original.preprocess(picture()), pixels)
    by_hand = (pixels.permute(1, 2, 0) * torch.tensor(tiny.STD) + torch.tensor(tiny.MEAN)) * 255
    assert (by_hand - by_hand.round()).abs().max() < 1e-3  # its own mean and standard deviation
    texts = ["a Photo of a cat's ear", "🐱", ""]
    assert torch.equal(open_clip.get_tokenizer(name)(texts), ours.tokenizer(texts))
    assert ours.config["model_cfg"] == json.loads((folder / CONFIG).read_text())["model_cfg"]


def test_the_activation_survives_a_second_round(quick_folder, tmp_path):
    loaded = models.load(quick_folder)
    (tmp_path / "again").mkdir()
    models.save(tmp_path / "again", loaded, loaded.model.state_dict())
    again = models.load(tmp_path / "again")
    images, tokens = tiny.batch(loaded)
    with torch.no_grad():
        first, second = (tiny.features(m.model, images, tokens) for m in (loaded, again))
    assert torch.equal(first, second)
    assert again.weights_hash == loaded.weights_hash
    without = json.loads((tmp_path / "again" / CONFIG).read_text())
    del without["model_cfg"]["quick_gelu"]
    (tmp_path / "again" / CONFIG).write_text(json.dumps(without))
    with torch.no_grad():
        other = tiny.features(models.load(tmp_path / "again").model, images, tokens)
    assert not torch.allclose(first, other, atol=1e-4)  # so the activation does make a difference


def test_a_checkpoint_file_of_a_known_architecture(architecture, tmp_path):
    state = tiny.build().model.state_dict()
    torch.save({"state_dict": state}, tmp_path / "weights.pt")
    save_file(state, tmp_path / "weights.safetensors")
    for file in ("weights.pt", "weights.safetensors"):
        loaded = models.load(f"{architecture}:{tmp_path / file},{LIKE}")
        assert loaded.weights_hash == models.weights_hash(state)


def test_an_activation_that_belongs_to_the_weights_is_written_down(architecture, tmp_path):
    """As with ViT-B-32:openai, whose architecture says nothing of it."""
    save_file(tiny.build().model.state_dict(), tmp_path / "weights.safetensors")
    plain = models.load(f"{architecture}:{tmp_path / 'weights.safetensors'},{LIKE}")
    quick = models.load(f"{architecture}-quickgelu:{tmp_path / 'weights.safetensors'},{LIKE}")
    images, tokens = tiny.batch(plain)
    (tmp_path / "saved").mkdir()
    models.save(tmp_path / "saved", quick, quick.model.state_dict())
    theirs = open_clip.create_model(f"local-dir:{tmp_path / 'saved'}").eval()
    with torch.no_grad():
        of_plain, of_quick, saved = (
            tiny.features(model, images, tokens) for model in (plain.model, quick.model, theirs)
        )
    torch.testing.assert_close(saved, of_quick)
    assert not torch.allclose(of_plain, of_quick, atol=1e-4)


# ------------------------------------------------------------------ hashes


def test_the_hash_covers_values_as_they_are_used(tmp_path):
    loaded = tiny.build()
    half = {name: value.half() for name, value in loaded.model.state_dict().items()}
    for name, state in (("fp16", half), ("fp32", {n: v.float() for n, v in half.items()})):
        (tmp_path / name).mkdir()
        models.save(tmp_path / name, loaded, state)
    fp16, fp32 = models.load(tmp_path / "fp16"), models.load(tmp_path / "fp32")
    sizes = [(tmp_path / name / WEIGHTS).stat().st_size for name in ("fp16", "fp32")]
    assert sizes[0] < 0.6 * sizes[1]
    assert all(p.dtype == torch.float32 for p in fp16.model.parameters())
    assert fp16.weights_hash == fp32.weights_hash == models.weights_hash(half)
    assert fp16.weights_hash != loaded.weights_hash


def test_the_hash_changes_with_one_bit_one_name_one_shape():
    state = {"a": torch.arange(6, dtype=torch.float32), "b": torch.ones(2, 3)}
    before = models.weights_hash(state)
    assert models.weights_hash(dict(reversed(state.items()))) == before
    changed = state["a"].clone()
    changed.numpy().view(np.uint32)[3] ^= 1
    others = [
        {**state, "a": changed},
        {"a": state["a"], "c": state["b"]},
        {**state, "b": torch.ones(3, 2)},
        {"a": state["a"]},
        {"a": state["b"], "b": state["a"]},
    ]
    hashes = {models.weights_hash(other) for other in others}
    assert len(hashes | {before}) == len(others) + 1


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-B-61:openai", "Unknown model 'ViT-B-61'.*Did you mean 'ViT-B-16'"),
        ("pictogram-clop", "Unknown model 'pictogram-clop'.*'pictogram-clip'"),
        ("emoji-clip", "emoji-clip was replaced by pictogram-clip"),
        ("emoji-clip:random", "was replaced"),
        ("ViT-B-16:opnai", "Unknown weights 'opnai' for ViT-B-16.*'openai'"),
        ("ViT-B-16", "needs its weights named too: ViT-B-16:TAG.*openai.*random"),
        ("pictogram-clip:rndom", "Unknown weights 'rndom'.*'random'"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(UsageError, match=message):
        models.load(name)


def test_names_of_all_models():
    known = models.names()
    assert known[0] == "pictogram-clip"
    assert "ViT-B-16:openai" in known


@pytest.mark.parametrize("name", ["no/such/folder", "model.safetensors", "local-dir:nowhere"])
def test_a_path_that_is_not_there(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BrokenInput, match="o model folder"):
        models.load(name)


@pytest.mark.parametrize("config", ["", "{", "[]", "{}", '{"model_cfg": 3}'])
def test_a_damaged_configuration(folder, config):
    (folder / CONFIG).write_text(config)
    with pytest.raises(BrokenInput, match=CONFIG):
        models.load(folder)


def test_missing_weights(folder):
    (folder / WEIGHTS).unlink()
    with pytest.raises(BrokenInput, match="Weights not found"):
        models.load(folder)


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, -1])
def test_truncated_weights(folder, keep):
    data = (folder / WEIGHTS).read_bytes()
    kept = int(len(data) * keep) if isinstance(keep, float) else keep
    (folder / WEIGHTS).write_bytes(data[:kept])
    with pytest.raises(BrokenInput, match=r"damaged or truncated"):
        models.load(folder)


def test_corrupt_weights(folder):
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:8] + b"\xff" * 40 + data[48:])
    with pytest.raises(BrokenInput, match="damaged"):
        models.load(folder)


def test_weights_of_another_shape(folder):
    state = load_file(folder / WEIGHTS)
    save_file({**state, "visual.proj": torch.zeros(3, 3)}, folder / WEIGHTS)
    with pytest.raises(BrokenInput, match="cannot be loaded"):
        models.load(folder)
    del state["visual.proj"]
    save_file(state, folder / WEIGHTS)
    with pytest.raises(BrokenInput, match="cannot be loaded"):
        models.load(folder)


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


def pickles(marker):
    """The same attack in every form that torch or pickle would read."""
    zipped, old = io.BytesIO(), io.BytesIO()
    torch.save({"state_dict": Malicious(marker)}, zipped)
    torch.save(Malicious(marker), old, _use_new_zipfile_serialization=False)
    return {
        "zip": zipped.getvalue(),
        "legacy": old.getvalue(),
        "raw": pickle.dumps(Malicious(marker)),
        "text": pickle.dumps(Malicious(marker), protocol=0),
    }


@pytest.mark.parametrize("form", ["zip", "legacy", "raw", "text"])
def test_a_pickle_in_place_of_weights_is_refused_and_not_run(folder, architecture, tmp_path, form):
    marker = tmp_path / "ran"
    data = pickles(marker)[form]
    (folder / WEIGHTS).write_bytes(data)
    (tmp_path / "weights.pt").write_bytes(data)
    (tmp_path / "weights.safetensors").write_bytes(data)
    for name in (
        folder,
        f"local-dir:{folder}",
        f"{architecture}:{tmp_path / 'weights.safetensors'},{LIKE}",
        f"{architecture}:{tmp_path / 'weights.pt'},{LIKE}",
    ):
        with pytest.raises(BrokenInput):
            models.load(name)
        assert not marker.exists(), name
    if form != "text":
        with pytest.raises(BrokenInput, match="is a pickle"):
            models.load(folder)
    pickle.loads(pickles(marker)["raw"])
    assert marker.exists()  # the attack itself works


@pytest.mark.parametrize("start", [b"\x80", b"PK"])
def test_safetensors_whose_length_looks_like_a_pickle(tmp_path, start):
    for padding in range(0, 24_000, 8):
        metadata = {"note": "x" * padding}
        save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors", metadata=metadata)
        if (tmp_path / "a.safetensors").read_bytes().startswith(start):
            break
    else:
        pytest.fail("no such length")
    assert safetensors_metadata(tmp_path / "a.safetensors") == metadata
    whole = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(whole[:-1])
    with pytest.raises(BrokenInput, match="is damaged or truncated"):
        safetensors_metadata(tmp_path / "a.safetensors")


def test_a_file_of_the_built_in_model_says_what_to_do(tmp_path):
    (tmp_path / "w.pt").write_bytes(b"x")
    with pytest.raises(UsageError, match="pictogram-clip comes with its weights"):
        models.load(f"pictogram-clip:{tmp_path / 'w.pt'}")

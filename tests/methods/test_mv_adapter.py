"""MV-Adapter against numpy, and what a model of clips is: order counts, padding does not."""

import copy
import inspect
from pathlib import Path

import numpy as np
import open_clip
import pytest
import tiny
import torch
import yaml

from radapter.errors import UsageError
from radapter.methods import mv_adapter
from radapter.models.frames import mean_of_frames, video_features
from radapter.models.text import encode_text
from radapter.runtimes.pytorch import PyTorchRuntime
from radapter.training.encoding import encode_pictures

FRAMES = 4


def shaken(**settings):
    """A model with the method attached and all of it away from its start, its parts by name, and
    the same model without."""
    plain, loaded = tiny.build(), tiny.build()
    torch.manual_seed(2)
    settings = {"rank": 4, "scale": 0.6, "frames": FRAMES} | settings
    attached = mv_adapter.attach(loaded.model, **settings)
    with torch.no_grad():
        for parameter in attached.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    loaded.model.eval()
    return plain, loaded, {n: v.double().numpy() for n, v in attached.stored().items()}


# ---------------------------------------------------------------- in numpy


def affine(x, part, name):
    return x @ part[f"{name}.weight"].T + part.get(f"{name}.bias", 0.0)


def layer_norm(x, part, name):
    centred = x - x.mean(-1, keepdims=True)
    unit = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return unit * part[f"{name}.weight"] + part[f"{name}.bias"]


def quick(x):
    return x / (1 + np.exp(-1.702 * x))


def block(x, part, name, seen):
    """x [tokens, r]; seen [tokens, tokens]: whom each attends to."""
    own = {k.removeprefix(f"{name}."): v for k, v in part.items() if k.startswith(f"{name}.")}
    queries, keys, values = np.split(affine(layer_norm(x, own, "norm_1"), own, "queries"), 3, -1)
    heads = []
    for q, k, v in zip(*(np.split(a, 2, -1) for a in (queries, keys, values)), strict=True):
        scores = np.where(seen, q @ k.T / np.sqrt(q.shape[-1]), -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        heads.append(weights / weights.sum(-1, keepdims=True) @ v)
    x = x + affine(np.concatenate(heads, -1), own, "out")
    return x + affine(quick(affine(layer_norm(x, own, "norm_2"), own, "enter")), own, "leave")


def part_of(stored, block_name, number):
    """The tensors of one block's adapter, with the rows of D scaled where it is tied."""
    start = f"{block_name}.mv."
    part = {k.removeprefix(start): v for k, v in stored.items() if k.startswith(start)}
    if "tie.weight" in part:
        rows = affine(stored[f"factor.{number}.m"], part, "tie")
        part["down.weight"] = rows[:, None] * part["down.weight"]
    return part


def video_change(y, part):
    """y [frames, tokens, width] of one clip."""
    frames, most = len(y), FRAMES
    h = quick(affine(y, part, "down"))
    c, p = h[:, 0], h[:, 1:].mean(axis=1)
    x = np.concatenate([part["temporal.whole"][None], c, p])
    places = part["temporal.places"]
    x = x + np.concatenate([places[: 1 + frames], places[1 + most : 1 + most + frames]])
    x = layer_norm(x, part, "temporal.norm")
    x = quick(block(x, part, "temporal.block", np.ones((len(x), len(x)), bool)))
    whole, c, p = x[0], x[1 : 1 + frames], x[1 + frames :]
    about = affine(whole, part, "calibration.of_whole")[None].repeat(frames, 0)
    hidden = affine(np.concatenate([c + p, about], -1), part, "calibration.down")
    c = (1 + affine(np.maximum(hidden, 0), part, "calibration.up")) * c
    return affine(np.concatenate([c[:, None], h[:, 1:]], 1), part, "up")


def text_change(y, part):
    """y [length, width] of one text."""
    x = affine(y, part, "down") + part["words.places"][: len(y)]
    before = np.tril(np.ones((len(y), len(y)), bool))
    x = quick(block(layer_norm(x, part, "words.norm"), part, "words.block", before))
    return affine(x, part, "up")


# ---------------------------------------------------------------- the formulas


def outputs_of_mlps(model, run):
    """What the MLP of each block gives, in a model without adapters."""
    found = {}
    for name, module in model.named_modules():
        if name.endswith(".mlp"):
            module.register_forward_hook(
                lambda module, inputs, output, name=name: found.update({name: output})
            )
    with torch.no_grad():
        run(model)
    return {name.removesuffix(".mlp"): value.double().numpy() for name, value in found.items()}


def adapters_of(model):
    return {
        name.removesuffix(".mlp.c_proj.adapter"): module
        for name, module in model.named_modules()
        if isinstance(module, mv_adapter.Adapter)
    }


@pytest.mark.parametrize("tied", [0, 1, 2])
def test_the_formulas_in_every_layer(tied):
    plain, loaded, stored = shaken(tied=tied)
    clips, (_, tokens) = tiny.clips_of(3, 2), tiny.batch(loaded)
    there = ~clips[:, :, 0, 0, 0].isnan()
    loaded.model.clip.there = there
    pixels = clips.nan_to_num(0.0).flatten(0, 1)

    def run(model):
        return model.encode_image(pixels), encode_text(model, tokens)

    outputs = outputs_of_mlps(plain.model, run)
    adapters = adapters_of(loaded.model)
    assert list(adapters) == list(outputs)
    for name, adapter in adapters.items():
        number = int(name.split(".")[-1]) - 2 + tied  # of two layers
        part, y = part_of(stored, name, number), outputs[name]
        assert ("tie.weight" in part) == (number >= 0)
        with torch.no_grad():
            found = adapter(torch.from_numpy(y).float()).double().numpy()
        if name.startswith("visual."):
            for clip, count in enumerate((3, 2)):
                rows = slice(3 * clip, 3 * clip + count)
                np.testing.assert_allclose(
                    found[rows], 0.6 * video_change(y[rows], part), atol=2e-4
                )
        else:
            for text, own in enumerate(y):
                np.testing.assert_allclose(found[text], 0.6 * text_change(own, part), atol=2e-4)


def test_an_adapter_is_added_behind_the_mlp():
    _, loaded, _ = shaken()
    tower = loaded.model.visual.transformer.resblocks[1]
    x = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(3))
    loaded.model.clip.there = None
    with torch.no_grad():
        after = x + tower.attention(tower.ln_1(x))
        mlp = tower.mlp.c_proj(tower.mlp.gelu(tower.mlp.c_fc(tower.ln_2(after))))
        expected = after + mlp + tower.mlp.c_proj.adapter(mlp)
        torch.testing.assert_close(tower(x), expected)


# ---------------------------------------------------------------- clips


@torch.no_grad()
def test_it_starts_at_the_mean_of_frames_exactly():
    plain, loaded = tiny.build(), tiny.build()
    mv_adapter.attach(loaded.model, frames=FRAMES)
    clips = tiny.clips_of(4, 1, 3)
    for training in (False, True):
        for model in (plain.model, loaded.model):
            model.requires_grad_(False).train(training)  # torch rounds otherwise with gradients
        found = (encode_pictures(model, clips, None) for model in (plain.model, loaded.model))
        assert torch.equal(*found)
    runtimes = (PyTorchRuntime(one).encode_video(clips) for one in (plain, loaded))
    torch.testing.assert_close(*runtimes)


@torch.no_grad()
def test_the_order_of_frames_counts_and_not_for_their_mean():
    plain, loaded, _ = shaken()
    clips = tiny.clips_of(4, 4)
    other = clips[:, [2, 0, 3, 1]]
    mean = mean_of_frames(plain.model.encode_image, clips)
    torch.testing.assert_close(mean, mean_of_frames(plain.model.encode_image, other))
    assert (
        video_features(loaded.model, clips) - video_features(loaded.model, other)
    ).abs().max() > 0.01


@torch.no_grad()
def test_a_short_clip_is_the_same_alone_and_beside_longer_ones():
    _, loaded, _ = shaken()
    several = tiny.clips_of(4, 2, 1)
    found = loaded.model.encode_video(several)
    for clip, count, row in zip(several, (4, 2, 1), found, strict=True):
        torch.testing.assert_close(loaded.model.encode_video(clip[None, :count])[0], row)
    noisy = several.clone()
    noisy[1, 2:, :, 1:] = 9.0  # what stands in a frame that is none
    torch.testing.assert_close(loaded.model.encode_video(noisy)[:2], found[:2])


@torch.no_grad()
def test_a_picture_is_a_clip_of_one_frame():
    _, loaded, _ = shaken()
    clips = tiny.clips_of(1, 1)
    runtime = PyTorchRuntime(loaded)
    pictures = runtime.encode_image(clips[:, 0])
    torch.testing.assert_close(runtime.encode_video(clips), pictures)
    copied = copy.deepcopy(loaded.model)
    copied.encode_video(tiny.clips_of(4))
    torch.testing.assert_close(
        runtime.encode_image(clips[:, 0]), pictures
    )  # knows of its own alone


def test_more_frames_than_it_has_places_for():
    _, loaded, _ = shaken()
    with pytest.raises(UsageError, match="clips of up to 4 frames .* these have 5: .*frames=5"):
        loaded.model.encode_video(tiny.clips_of(5))


def test_an_image_tower_without_a_class_token():
    model = open_clip.create_model("ViT-B-16-SigLIP", device="meta", pretrained_text=False)
    with pytest.raises(UsageError, match="reads the class token"):
        mv_adapter.attach(model)


# ---------------------------------------------------------------- the published start and size


@pytest.mark.parametrize(("length", "number"), [(32, 3_325_696), (77, 3_360_256)])
def test_parameters_at_the_published_widths(length, number):
    """With the 32 words of the released code for MSR-VTT the paper's 3.33 M."""
    cfg = open_clip.get_model_config("ViT-B-16")
    cfg["text_cfg"]["context_length"] = length
    with torch.device("meta"):
        model = open_clip.CLIP(**cfg)
    attached = mv_adapter.attach(model)
    assert sum(p.numel() for p in attached.parameters()) == number


@pytest.mark.parametrize("factors", ["random", "ones"])
def test_factors_at_first(factors):
    torch.manual_seed(0)
    stored = mv_adapter.attach(tiny.build().model, rank=64, factors=factors).stored()
    assert not stored["factor.0.m"].any()
    ties = [name for name in stored if name.endswith(".tie.bias")]
    assert len(ties) == 4  # two layers of two towers
    for name in ties:
        tie = {kind: stored[f"{name[:-5]}.{kind}"].numpy() for kind in ("weight", "bias")}
        scale = stored["factor.0.m"].numpy() @ tie["weight"].T + tie["bias"]
        if factors == "ones":
            assert (scale == 1).all()
        else:
            assert 0.05 < scale.std() < 32**-0.5
            assert abs(scale.mean()) < 0.05


def test_a_quirk_of_released_code_is_no_default():
    """The recipe with the published settings states it."""
    assert inspect.signature(mv_adapter.attach).parameters["factors"].default == "ones"
    recipe = Path(__file__).parents[2] / "recipes/mv-adapter-msr-vtt.yaml"
    assert yaml.safe_load(recipe.read_text())["method"]["factors"] == "random"

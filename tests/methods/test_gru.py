"""The GRU on frame features against numpy, and what a model of clips is: order counts, padding does
not."""

import copy

import numpy as np
import open_clip
import pytest
import tiny
import torch

from radapter.errors import UsageError
from radapter.methods import gru
from radapter.models.frames import mean_of_frames, video_features
from radapter.optimizers import adamw
from radapter.runtimes.pytorch import PyTorchRuntime
from radapter.training.encoding import encode_pictures

FRAMES = 4


def attached_to(loaded, *, shake=True, **settings):
    torch.manual_seed(2)
    attached = gru.attach(loaded.model, **{"width": 8, "frames": FRAMES, **settings})
    if shake:
        with torch.no_grad():
            for parameter in attached.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    loaded.model.eval()
    return attached


# ---------------------------------------------------------------- in numpy


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def features(frames, w, scale=1.0):
    """Unit-norm features [frames, dim] of one clip, of what the tower gives for its frames."""
    state, found = np.zeros(w["gru.weight_hh_l0"].shape[1]), []
    for x in frames:
        read = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
        given = w["gru.weight_ih_l0"] @ read + w["gru.bias_ih_l0"]
        before = w["gru.weight_hh_l0"] @ state + w["gru.bias_hh_l0"]
        (r, z, n), (own_r, own_z, own_n) = np.split(given, 3), np.split(before, 3)
        reset, keep = sigmoid(r + own_r), sigmoid(z + own_z)
        state = (1 - keep) * np.tanh(n + reset * own_n) + keep * state
        changed = x + scale * np.linalg.norm(x) * (w["up.weight"] @ state + w["up.bias"])
        found.append(changed / np.linalg.norm(changed))
    return np.array(found)


@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_the_formula_of_whole_and_short_clips(alpha):
    plain, loaded = tiny.build(), tiny.build()
    attached = attached_to(loaded, towers="none")
    stored = attached.stored()
    attached.load_stored(stored, alpha)
    w, clips = {name: v.double().numpy() for name, v in stored.items()}, tiny.clips_of(4, 2, 1)
    with torch.no_grad():
        found, frames = loaded.model.encode_video(clips), loaded.model.encode_frames(clips)
        towers = plain.model.encode_image(clips.nan_to_num(0.0).flatten(0, 1)).double()
    towers = towers.unflatten(0, (3, 4)).numpy()
    for place, count in enumerate((4, 2, 1)):
        own = features(towers[place, :count], w, alpha)
        np.testing.assert_allclose(frames[place, :count], own, atol=1e-5)
        mean = own.mean(axis=0)
        np.testing.assert_allclose(found[place], mean / np.linalg.norm(mean), atol=1e-5)


# ---------------------------------------------------------------- clips


@torch.no_grad()
def test_it_starts_at_the_mean_of_frames_exactly():
    plain, loaded = tiny.build(), tiny.build()
    attached_to(loaded, shake=False)
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
    plain, loaded = tiny.build(), tiny.build()
    attached_to(loaded)
    clips = tiny.clips_of(4, 4)
    other = clips[:, [2, 0, 3, 1]]
    mean = mean_of_frames(plain.model.encode_image, clips)
    torch.testing.assert_close(mean, mean_of_frames(plain.model.encode_image, other))
    change = video_features(loaded.model, clips) - video_features(loaded.model, other)
    assert change.abs().max() > 0.01


@torch.no_grad()
def test_a_short_clip_is_the_same_alone_and_beside_longer_ones():
    loaded = tiny.build()
    attached_to(loaded)
    several = tiny.clips_of(4, 2, 1)
    found = loaded.model.encode_video(several)
    for clip, count, row in zip(several, (4, 2, 1), found, strict=True):
        torch.testing.assert_close(loaded.model.encode_video(clip[None, :count])[0], row)
    runtime, copied = PyTorchRuntime(loaded), copy.deepcopy(loaded.model)
    picture = runtime.encode_image(several[:, 0])
    torch.testing.assert_close(runtime.encode_video(several[:, :1]), picture)
    copied.encode_video(several)
    torch.testing.assert_close(runtime.encode_image(several[:, 0]), picture)


def test_more_frames_than_it_takes():
    loaded = tiny.build()
    attached_to(loaded)
    with pytest.raises(UsageError, match="clips of up to 4 frames .* these have 5: .*frames=5"):
        loaded.model.encode_video(tiny.clips_of(5))


# ---------------------------------------------------------------- what is trained


@pytest.mark.parametrize("towers", ["text", "none"])
def test_the_frames_features_stay_as_they_are(towers):
    """The image tower gets no gradient, and the text tower's learning rate is a share."""
    loaded = tiny.build()
    plain = dict(tiny.build().model.named_parameters())
    attached = attached_to(loaded, towers=towers, rate=0.3)
    own = {name for name in attached.trained if name in plain}
    assert own == {
        name
        for name in plain
        if towers == "text" and not name.startswith("visual.") and name != "logit_scale"
    }
    assert attached.towers() == {"image"} | ({"text"} if own else set())
    loaded.model.encode_video(tiny.clips_of(4, 2)).square().sum().backward()
    reached = {name for name, p in loaded.model.named_parameters() if p.grad is not None}
    assert {name.removeprefix("joint.") for name in reached} == set(attached.trained) - own
    names = {parameter: name for name, parameter in attached.trained.items()}
    for group in adamw.optimizer(attached, 1e-3).param_groups:
        of_group = {names[parameter] for parameter in group["params"]}
        assert of_group <= own if group["rate"] == 0.3 else not of_group & own


@pytest.mark.parametrize("name", ["RN50", "ViT-B-16-SigLIP", "convnext_base", "coca_ViT-B-32"])
def test_any_image_tower(name):
    model = open_clip.create_model(name, device="meta", pretrained_text=False)
    attached = gru.attach(model, towers="none")
    dim = open_clip.get_model_config(name)["embed_dim"]
    number = 3 * 128 * (dim + 128 + 2) + (128 + 1) * dim
    assert sum(p.numel() for p in attached.parameters()) == number

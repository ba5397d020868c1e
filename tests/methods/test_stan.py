"""STAN against numpy: its start, its order of frames, short clips, its size."""

import copy

import numpy as np
import open_clip
import pytest
import tiny
import torch

from radapter.errors import UsageError
from radapter.methods import batch_rows, stan
from radapter.models.frames import mean_of_frames, video_features
from radapter.optimizers import adamw, ftp, spd
from radapter.runtimes.pytorch import PyTorchRuntime

FRAMES = 4


def build(**more):
    return tiny.build(quick_gelu=True, vision={**tiny.VISION, "layers": 3, **more})


def attached_to(loaded, *, shake=True, **settings):
    torch.manual_seed(2)
    attached = stan.attach(loaded.model, **{"depth": 2, "frames": FRAMES, **settings})
    if shake:
        with torch.no_grad():
            for parameter in attached.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    loaded.model.eval()
    return attached


# ---------------------------------------------------------------- in numpy


def layer_norm(x, w, name):
    centred = x - x.mean(-1, keepdims=True)
    unit = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return unit * w[f"{name}.weight"] + w[f"{name}.bias"]


def attention(x, w, name):
    """x [tokens, width], two heads."""
    given = x @ w[f"{name}.in_proj_weight"].T + w[f"{name}.in_proj_bias"]
    heads = []
    for q, k, v in zip(*(np.split(part, 2, -1) for part in np.split(given, 3, -1)), strict=True):
        scores = np.exp(q @ k.T / np.sqrt(q.shape[-1]))
        heads.append(scores / scores.sum(-1, keepdims=True) @ v)
    out = np.concatenate(heads, -1)
    return out @ w[f"{name}.out_proj.weight"].T + w[f"{name}.out_proj.bias"]


def mlp(x, w):
    h = x @ w["mlp.c_fc.weight"].T + w["mlp.c_fc.bias"]
    h = h / (1 + np.exp(-1.702 * h))
    return h @ w["mlp.c_proj.weight"].T + w["mlp.c_proj.bias"]


def inside(w, name):
    return {key.removeprefix(f"{name}."): v for key, v in w.items() if key.startswith(f"{name}.")}


def block(x, w):
    x = x + attention(layer_norm(x, w, "ln_1"), w, "attn")
    return x + mlp(layer_norm(x, w, "ln_2"), w)


def layer(whole, patches, w):
    """whole [width]; patches [frames, patches, width], by loops over what attends to what."""
    time, space = inside(w, "time"), inside(w, "space")
    changed = patches.copy()
    for place in range(patches.shape[1]):
        read = layer_norm(patches[:, place], time, "norm")
        found = attention(read, time, "attention")
        changed[:, place] += found @ time["last.weight"].T + time["last.bias"]
    added = [
        attention(layer_norm(np.vstack([whole, frame]), space, "ln_1"), space, "attn")
        for frame in changed
    ]
    whole = whole + np.mean([frame[0] for frame in added], axis=0)
    changed = changed + np.array([frame[1:] for frame in added])
    whole = whole + mlp(layer_norm(whole, space, "ln_2"), space)
    return whole, changed + mlp(layer_norm(changed, space, "ln_2"), space)


def features(clip, w, depth):
    """Unit-norm features of the frames [frames, dim] of one clip [frames, 3, height, width]."""
    frames, size = len(clip), 16
    cut = clip.reshape(frames, 3, 2, size, 2, size).transpose(0, 2, 4, 1, 3, 5)
    patches = cut.reshape(frames, 4, -1) @ w["conv1.weight"].reshape(32, -1).T
    class_token = np.broadcast_to(w["class_embedding"], (frames, 1, 32))
    x = np.concatenate([class_token, patches], 1) + w["positional_embedding"]
    x = layer_norm(x, w, "ln_pre")
    state = None
    for number in range(3):
        own = inside(w, f"transformer.resblocks.{number}")
        x = np.array([block(frame, own) for frame in x])
        if number < 3 - depth:
            continue
        whole, patches = x[:, 0].mean(0), x[:, 1:]
        if state is None:
            whole = (whole + w["class_embedding"] + w["positional_embedding"][0]) / 2
            patches = patches + w["positional_embedding"][1:]
            patches = patches + w["stan.places"][:frames, None]
        else:
            whole, patches = whole + state[0], patches + state[1]
        state = layer(whole, patches, inside(w, f"stan.layers.{number - 3 + depth}"))
    found = layer_norm(x[:, 0] + state[0], w, "ln_post") @ w["proj"]
    return found / np.linalg.norm(found, axis=-1, keepdims=True)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("shake", [True, False])
def test_the_formula_of_whole_and_short_clips(depth, shake):
    loaded = build()
    attached_to(loaded, shake=shake, depth=depth, places="random")
    w = {
        name: v.double().numpy() for name, v in inside(loaded.model.state_dict(), "visual").items()
    }
    clips = tiny.clips_of(3, 2, 1)
    with torch.no_grad():
        found = loaded.model.encode_video(clips)
    for clip, count, row in zip(clips.double().numpy(), (3, 2, 1), found, strict=True):
        mean = features(clip[:count], w, depth).mean(axis=0)
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-5)


# ---------------------------------------------------------------- its start


@torch.no_grad()
def test_attention_over_time_changes_nothing_at_first():
    loaded = build()
    attached_to(loaded, shake=False)
    patches, there = torch.randn(2, 4, 4, 32), torch.ones(2, 4, dtype=torch.bool)
    for number, own in enumerate(loaded.model.visual.stan.layers, 1):
        assert not own.time(patches, there).any()
        copied = own.space.state_dict()
        original = loaded.model.visual.transformer.resblocks[number].state_dict()
        assert all(torch.equal(copied[name], value) for name, value in original.items())
    clips = tiny.clips_of(4, 4)
    torch.testing.assert_close(
        loaded.model.encode_video(clips), loaded.model.encode_video(clips[:, [2, 0, 3, 1]])
    )
    assert not loaded.model.visual.stan.places.any()


@torch.no_grad()
def test_order_counts_in_training_and_from_the_start_with_random_places():
    clips = tiny.clips_of(4, 4)
    other, plain = clips[:, [2, 0, 3, 1]], build()
    mean = mean_of_frames(plain.model.encode_image, clips)
    torch.testing.assert_close(mean, mean_of_frames(plain.model.encode_image, other))
    for settings in ({"shake": True}, {"shake": False, "places": "random"}):
        loaded = build()
        attached_to(loaded, **settings)
        change = video_features(loaded.model, clips) - video_features(loaded.model, other)
        assert change.abs().max() > 1e-3


@torch.no_grad()
def test_at_zero_it_is_the_mean_of_frames_of_the_zero_shot_model():
    plain, loaded = build(), build()
    attached = attached_to(loaded)
    clips = tiny.clips_of(4, 1, 3)
    again = attached_to(fresh := build(), shake=False)
    again.load_stored(attached.stored(), 0.0)
    expected = mean_of_frames(plain.model.encode_image, clips)
    torch.testing.assert_close(fresh.model.encode_video(clips), expected)
    again.load_stored(attached.stored(), 1.0)
    torch.testing.assert_close(fresh.model.encode_video(clips), loaded.model.encode_video(clips))


# ---------------------------------------------------------------- clips


@torch.no_grad()
def test_a_short_clip_is_the_same_alone_and_beside_longer_ones():
    loaded = build()
    attached_to(loaded, places="random")
    several = tiny.clips_of(4, 2, 1)
    found = loaded.model.encode_video(several)
    for clip, count, row in zip(several, (4, 2, 1), found, strict=True):
        torch.testing.assert_close(loaded.model.encode_video(clip[None, :count])[0], row)
    noisy = several.clone()
    noisy[1, 2:, :, 1:] = 9.0  # what stands in a frame that is none
    torch.testing.assert_close(loaded.model.encode_video(noisy)[:2], found[:2])
    runtime, copied = PyTorchRuntime(loaded), copy.deepcopy(loaded.model)
    picture = runtime.encode_image(several[:, 0])
    torch.testing.assert_close(runtime.encode_video(several[:, :1]), picture)
    copied.encode_video(several)
    torch.testing.assert_close(runtime.encode_image(several[:, 0]), picture)


def test_more_frames_than_it_has_places_for():
    loaded = build()
    attached_to(loaded)
    with pytest.raises(UsageError, match="clips of up to 4 frames .* these have 5: .*frames=5"):
        loaded.model.encode_video(tiny.clips_of(5))


@torch.no_grad()
def test_a_draw_is_for_a_patch_in_all_frames_or_for_a_frame():
    there = torch.ones(3, 2, dtype=torch.bool)
    torch.manual_seed(0)
    with batch_rows.of_frames(2):
        whole = stan._kept(0.25, there, 400, torch.zeros(1))
        assert whole.shape == (3, 400)
        assert sorted(set(whole.flatten().tolist())) == pytest.approx([0.0, 4 / 3])
        assert (whole > 0).float().mean() == pytest.approx(0.75, abs=0.04)
        torch.manual_seed(0)
        with batch_rows.rows(1, 3):  # the clips of a chunk have theirs
            assert torch.equal(stan._kept(0.25, there[1:], 400, torch.zeros(1)), whole[1:])
    loaded = build()
    attached_to(loaded, drop=0.999)
    clips, model = tiny.clips_of(4, 4), loaded.model
    shares = [layer.drop for layer in model.visual.stan.layers]
    assert shares == [0.0, 0.999]
    model.train()
    torch.manual_seed(0)
    dropped = model.encode_video(clips)
    last = model.visual.stan.layers[1]  # without what its attention adds
    for linear in (last.time.attention.out_proj, last.space.attn.out_proj):
        linear.weight.zero_()
        linear.bias.zero_()
    torch.testing.assert_close(model.eval().encode_video(clips), dropped)


# ---------------------------------------------------------------- what is trained


def test_parameters_at_the_published_widths():
    """Four layers beside ViT-B/16, with the released code's 64 places of time."""
    with torch.device("meta"):
        model = open_clip.CLIP(**open_clip.get_model_config("ViT-B-16"))
    attached = stan.attach(model, frames=64, towers="none")
    assert sum(p.numel() for p in attached.parameters()) == 40_218_624
    assert all(name.startswith("visual.stan.") for name in attached.trained)


@pytest.mark.parametrize("towers", ["both", "image", "text", "none"])
def test_the_towers_own_weights_learn_at_a_rate_of_their_own(towers):
    loaded = build()
    plain = dict(build().model.named_parameters())
    attached = attached_to(loaded, towers=towers, rate=0.3)
    own = {name for name in attached.trained if name in plain}
    chosen = {"both": {"visual", "text"}, "image": {"visual"}, "text": {"text"}, "none": set()}
    kinds = {"visual" if name.startswith("visual.") else "text" for name in own}
    assert kinds == chosen[towers]
    assert "logit_scale" not in own
    assert attached.towers() == {"image"} | ({"text"} & kinds)
    trained = {name for name, p in loaded.model.named_parameters() if p.requires_grad}
    assert trained == set(attached.trained)
    names = {parameter: name for name, parameter in attached.trained.items()}
    for module in (adamw, spd, ftp):
        seen = set()
        for group in module.optimizer(attached, 1e-3).param_groups:
            of_group = {names[parameter] for parameter in group["params"]}
            assert group["rate"] == (0.3 if of_group <= own else 1.0)
            assert of_group <= own or not of_group & own
            seen |= of_group
        assert seen == set(attached.trained)


@pytest.mark.parametrize(
    ("name", "vision", "message"),
    [
        ("pooled", {"pool_type": "avg"}, "a VisionTransformer, is another: use .*mv-adapter"),
        ("attention", {"attentional_pool": True, "attn_pooler_heads": 2}, "reads all patches"),
        ("patches", {"patch_dropout": 0.5}, "reads all patches"),
        ("few", {}, "depth is 4, and the image tower has 3 blocks: give method.depth=3 or less"),
    ],
)
def test_what_it_does_not_fit(name, vision, message):
    loaded = build(**vision)
    with pytest.raises(UsageError, match=message):
        stan.attach(loaded.model)


def test_another_kind_of_image_tower():
    model = open_clip.create_model("ViT-B-16-SigLIP", device="meta", pretrained_text=False)
    with pytest.raises(UsageError, match="this model, a VisionTransformer, is another"):
        stan.attach(model)

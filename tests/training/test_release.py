"""The recipe imagenet-vit-b-16-release against the released code's training step, written anew."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from radapter import models
from radapter import recipe as recipes
from radapter.training import loop, train

WARMUP = 2


@pytest.fixture
def recipe(tiny_folder, shapes):
    data = f"{{source: folder, root: {shapes}, templates: ['a photo of a {{}}.', 'a {{}}']}}"
    return recipes.load(
        recipes.shipped()["imagenet-vit-b-16-release"],
        [
            f"model={tiny_folder}",
            f"data={data}",
            "optimisation.batch_size=8",
            "optimisation.epochs=3",
            f"optimisation.warmup_steps={WARMUP}",
            "optimisation.lr=5e-3",  # so that a few steps are more than rounding
            "optimisation.final_lr=1e-3",
            "optimisation.clip_norm=0.05",
            "method.average.momentum=0.9",
            "precision=fp32",
            "device=cpu",
            "workers=0",
        ],
    )


class Release:
    """Two towers of frozen blocks with x + s DropPath(W x) after each sublayer, AdamW, averages."""

    def __init__(self, model):
        self.model = copy.deepcopy(model).train()
        self.s, self.w, self.length = {}, {}, 0
        for tower in ("visual.transformer", "transformer"):
            for number, block in enumerate(self.model.get_submodule(tower).resblocks):
                names = [f"{tower}.resblocks.{number}.{x}" for x in ("attn.out_proj", "mlp.c_proj")]
                width = block.attn.embed_dim
                for name in names:
                    self.s[name] = torch.full((), 0.1, requires_grad=True)
                    self.w[name] = torch.zeros(width, width, requires_grad=True)
                block.forward = partial(self.block, block, names)
        self.parameters = [*self.s.values(), *self.w.values()]
        self.moments = [[torch.zeros_like(p), torch.zeros_like(p)] for p in self.parameters]
        self.mean = [p.detach().clone() for p in self.parameters]

    def adapter(self, name, z):
        positions = self.length or z.shape[1]
        draw = torch.ones(1, z.shape[1], 1)  # what comes after the end of a text changes nothing
        draw[:, :positions] = torch.empty(1, positions, 1).bernoulli_(0.8) / 0.8
        return z + draw * (z @ self.w[name].T) * self.s[name]

    def block(self, block, names, x, attn_mask=None):
        y = block.ln_1(x)
        y = block.attn(y, y, y, need_weights=False, attn_mask=attn_mask)[0]
        x = x + self.adapter(names[0], y)
        return x + self.adapter(names[1], block.mlp(block.ln_2(x)))

    def step(self, number, steps, images, tokens, text_of, groups):
        self.length = 0
        v = F.normalize(self.model.encode_image(images), dim=-1)
        self.length = int((tokens != 0).sum(1).max())
        t = F.normalize(self.model.encode_text(tokens), dim=-1)[text_of]
        same = (groups[:, None] == groups[None]).float()
        logits = self.model.logit_scale.exp().detach() * (v @ t.T + 0.05 * (1 - same))
        positives = same.sum(1, keepdim=True)
        target = 0.98 * same / positives + 0.02 * (1 - same) / (len(same) - positives)
        loss = sum(-(target * one.log_softmax(1)).sum(1).mean() for one in (logits, logits.T)) / 2
        gradients = torch.autograd.grad(loss, self.parameters)
        norm = torch.stack([g.norm() for g in gradients]).norm()
        rate = 5e-3 * (number + 1) / WARMUP
        if number >= WARMUP:
            turn = torch.tensor((number - WARMUP) / (steps - WARMUP) * torch.pi)
            rate = 0.5 * (1 + turn.cos()) * 5e-3 + 1e-3
        with torch.no_grad():
            for p, g, moments, mean in zip(
                self.parameters, gradients, self.moments, self.mean, strict=True
            ):
                g = g * (0.05 / (norm + 1e-6)).clamp(max=1)
                first, second = moments
                first.lerp_(g, 0.1)
                second.lerp_(g * g, 0.001)
                corrected = first / (1 - 0.9 ** (number + 1))
                p -= rate * corrected / ((second / (1 - 0.999 ** (number + 1))).sqrt() + 1e-8)
                mean.mul_(0.9).add_(0.1 * p)
        return loss.item()


def test_every_step_is_the_releases(recipe, tiny_folder, tmp_path, monkeypatch):
    release, seen, images = Release(models.load(tiny_folder).model), [], []
    step = loop.optimizer_step

    def both(parts, batch):
        if not seen:
            hook = lambda module, inputs: images.append(inputs[0].detach().clone())  # noqa: E731
            parts.base.model.visual.register_forward_pre_hook(hook)
        state = torch.get_rng_state()
        loss = step(parts, batch)
        torch.set_rng_state(state)
        rest = batch["tokens"], batch["text_of"], batch["groups"]
        theirs = release.step(len(seen), parts.order().steps, images.pop(), *rest)
        assert loss == pytest.approx(theirs, rel=1e-4)
        ours = parts.attached
        for name, s in release.s.items():
            torch.testing.assert_close(
                ours.modules[name].scale.detach(), s.detach(), rtol=1e-3, atol=0
            )
            w = ours.modules[name].weight
            assert (w - release.w[name]).norm() < 2e-3 * w.norm() + 1e-9
        keys = [*(f"{n}.scale" for n in release.s), *(f"{n}.weight" for n in release.w)]
        means = dict(zip(keys, release.mean, strict=True))
        assert means.keys() == ours.mean.keys()
        for name, mean in means.items():
            assert (ours.mean[name] - mean).norm() < 2e-3 * mean.norm() + 1e-9
        seen.append(loss)
        return loss

    monkeypatch.setattr(loop, "optimizer_step", both)
    train(recipe, tmp_path)
    assert len(seen) == 9


def test_the_papers_recipe_and_the_releases_differ_in_what_their_headers_say():
    paper, release = (
        recipes.load(recipes.shipped()[name])
        for name in ("imagenet-vit-b-16", "imagenet-vit-b-16-release")
    )
    paper, release = paper.model_dump(), release.model_dump()
    differ = {
        (section, key): (paper[section][key], value)
        for section in ("method", "data", "objective", "optimisation")
        for key, value in release[section].items()
        if value != paper[section][key]
    }
    assert set(differ) == {
        ("method", "drop_unit"),
        ("method", "scale"),
        ("method", "learn_scale"),
        ("method", "average"),
        ("data", "hold_out"),
        ("optimisation", "add_final_lr"),
    }
    assert {key for key in paper if paper[key] != release[key]} == {
        "name", "description", "method", "data", "optimisation", "precision",
    }  # fmt: skip

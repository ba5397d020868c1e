"""The families in docs/models.md, row by row, on every architecture of open_clip in small."""

import copy
import re
import socket
from pathlib import Path

import architectures
import numpy as np
import onnxruntime
import open_clip
import pytest
import tiny
import torch
from open_clip.transformer import VisionTransformer

from radapter import bundle, models, registry
from radapter.errors import UsageError
from radapter.export.towers import export_towers
from radapter.losses import multi_positive
from radapter.methods import full, gru, stan
from radapter.methods.blocks import residual_blocks, tower_of
from radapter.models.text import text_tower
from radapter.registry import METHODS, AdapterAverage
from radapter.training.step import training_mode

TABLE = Path(__file__).parents[2] / "docs" / "models.md"
ARCHITECTURES = open_clip.list_models()  # here, since other tests add their own to the list
COLUMNS = ("family", "names", "tried", "image", "tokenizer")


def rows():
    text = TABLE.read_text(encoding="utf-8")
    lines = text[text.index("| Family") :].partition("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(COLUMNS, row, strict=True)) for row in cells[2:]]


def quoted(cell):
    return re.findall(r"`([^`]+)`", cell)


def row_of(name):
    fitting = [
        (len(start), number)
        for number, row in enumerate(rows())
        for start in quoted(row["names"])
        if name.startswith(start)
    ]
    return rows()[max(fitting)[1]] if fitting else None


TRIED = [name for row in rows() for name in quoted(row["tried"])]


@pytest.fixture
def small(tmp_path, monkeypatch):
    """No connection is made: neither timm nor open_clip nor transformers looks anything up."""

    def refuse(*_):
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return architectures.Small(tmp_path, monkeypatch)


def inputs(loaded, seed=1):
    height, width = models.image_size(loaded.model)
    pictures = torch.randn(3, 3, height, width, generator=torch.Generator().manual_seed(seed))
    return pictures, loaded.tokenizer(architectures.TEXTS)


def features(model, pictures, tokens):
    found = (model.encode_image(pictures), models.encode_text(model, tokens))
    return [torch.nn.functional.normalize(f, dim=-1) for f in found]


def gradients(model, attached, pictures, tokens):
    images, texts = features(model, pictures, tokens)
    positives = torch.eye(len(images), dtype=torch.bool)
    multi_positive(images, texts, positives, logit_scale=model.logit_scale.exp()).backward()
    attached.check_gradients()


def towers_of(name):
    """(what can be adapted, the class that is refused)"""
    row = row_of(name)
    if row["image"].startswith("adapted"):
        return "both", None
    return "text", row["image"].removeprefix("refused: ").split(",")[0]


def test_every_architecture_is_in_the_table_and_attached_or_refused_as_it_says(small):
    """Both methods, the adapters in what a forward pass of their tower runs and nowhere else."""
    rows_met = set()
    for name in ARCHITECTURES:
        assert row_of(name), name
        rows_met.add(row_of(name)["family"])
        towers, refused = towers_of(name)
        loaded = small.load(name)
        tokenizer = (
            "on a hub"
            if "hf_tokenizer_name" in loaded.config["model_cfg"]["text_cfg"]
            else "open_clip's own"
        )
        assert row_of(name)["tokenizer"] == tokenizer, name
        if refused:
            for method in ("r-adapter", "lora"):
                with pytest.raises(UsageError, match=f"{method}.*image.*{refused}.*towers=text"):
                    registry.load(METHODS, method).attach(loaded.model)
        blocks = residual_blocks(loaded.model, towers, "lora")
        of_towers = [tower_of(loaded.model, block.name) for block in blocks]
        assert of_towers == (["image"] * 2 if not refused else []) + ["text"] * 2, name
    assert rows_met == {row["family"] for row in rows()}


@pytest.mark.parametrize("method", ["r-adapter", "lora", "full"])
@pytest.mark.parametrize("name", TRIED)
def test_a_step_and_a_merge(small, name, method):
    loaded = small.load(name)
    towers = "both" if method == "full" else towers_of(name)[0]
    batch = inputs(loaded)
    base = copy.deepcopy(loaded.model)
    settings = {} if method == "full" else {"rank": 2}
    if method == "r-adapter":
        settings["average"] = AdapterAverage(momentum=0.0)
    attached = registry.load(METHODS, method).attach(loaded.model, towers=towers, **settings)
    training_mode(loaded.model)
    gradients(loaded.model, attached, *batch)
    with torch.no_grad():
        for parameter in attached.parameters():
            parameter.sub_(0.3 * parameter.grad / parameter.grad.norm().clamp(min=1e-12))
            # After one step an adapter is small: a change that merging cannot hide is wanted.
            parameter.add_(0.1 * torch.randn_like(parameter) * (method != "full"))
    for _ in range(3):
        attached.update_average()
    stored, state = attached.stored(), base.state_dict()
    at_zero = registry.load(METHODS, method).merge(state, stored, 0.0)
    assert all(at_zero[n].numpy().tobytes() == state[n].numpy().tobytes() for n in state)
    if method == "full":
        return
    merged = copy.deepcopy(base)
    merged.load_state_dict(registry.load(METHODS, method).merge(state, stored, 0.7))
    with torch.no_grad(), attached.at(0.7) as scaled:
        found = features(scaled, *batch)
        expected = features(merged, *batch)
        plain = features(base, *batch)
    for tower, ours, theirs, before in zip(("image", "text"), found, expected, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        if towers in ("both", tower):
            assert (theirs - before).abs().max() > 1e-3, tower


ANY_TOWER = [m for m in tiny.TRAINED if tiny.of_towers(m) and m not in ("stan", "gru")]
SPLIT = ("CoCa with RoBERTa", "RoBERTa, XLM-RoBERTa", "NLLB-CLIP")
"""Families with text towers whose MLPs are several modules of a block"""


def has_class_token(visual):
    trunk = getattr(visual, "trunk", visual)
    own = getattr(visual, "class_embedding", None) is not None
    return own or (getattr(trunk, "cls_token", None) is not None and trunk.num_prefix_tokens == 1)


@pytest.mark.slow
@pytest.mark.parametrize("method", [m for m in ANY_TOWER if not registry.folds(m)])
@pytest.mark.parametrize("name", [quoted(row["tried"])[0] for row in rows()])
def test_what_does_not_fold_is_attached_and_learns(small, name, method):
    loaded, towers = small.load(name), towers_of(name)[0]
    attach = registry.load(METHODS, method).attach
    of_clips = method == "mv-adapter"
    causal = getattr(text_tower(loaded.model), "attn_mask", None) is not None
    if of_clips and towers != "text" and not has_class_token(loaded.model.visual):
        with pytest.raises(UsageError, match="reads the class token of the image tower"):
            attach(small.load(name).model, towers="image")
        return
    if row_of(name)["family"] in SPLIT or (of_clips and not causal):
        refused = "needs a causal text tower" if of_clips else "needs an MLP that is one module"
        with pytest.raises(UsageError, match=refused):
            attach(small.load(name).model, towers=towers)
        if towers == "text":  # nothing of it fits
            return
        towers = "image"
    batch = inputs(loaded)
    with torch.no_grad():
        before = features(loaded.model.eval(), *batch)
    settings = {"norm": "own"} if method == "uniadapter" else {}
    attached = attach(loaded.model, towers=towers, **settings)
    check_it_learns(loaded.model, attached, batch, before, towers)


def check_it_learns(model, attached, batch, before, towers):
    """Gradients reach all that is trained; at 0 features are those of before, at 1 they are not."""
    attached.keep_start()
    training_mode(model)
    with torch.no_grad():
        for parameter in attached.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    gradients(model, attached, *batch)
    for alpha in (0.0, 1.0):
        with torch.no_grad(), attached.at(alpha) as model:
            found = features(model, *batch)
        for tower, ours, theirs in zip(("image", "text"), found, before, strict=True):
            change = (ours - theirs).abs().max()
            moves = alpha > 0 and towers in ("both", tower)
            assert change > 1e-3 if moves else change < 1e-5, tower


CLASS_TOKEN = ("ViT-B-32", "ViT-H-14-worldwide", "coca_roberta-ViT-B-32", "roberta-ViT-B-32",
               "mt5-base-ViT-B-32", "nllb-clip-base")  # fmt: skip
"""Models whose image tower is a ViT of open_clip's own code that is read at its class token"""


@pytest.mark.slow
@pytest.mark.parametrize("name", [quoted(row["tried"])[0] for row in rows()])
def test_stan_is_attached_and_learns_or_is_refused(small, name):
    loaded = small.load(name)
    if name not in CLASS_TOKEN:
        with pytest.raises(UsageError, match="stan needs a ViT of open_clip's own code"):
            stan.attach(loaded.model, depth=2)
        return
    batch = inputs(loaded)
    with torch.no_grad():
        before = features(loaded.model.eval(), *batch)
    attached = stan.attach(loaded.model, depth=2, drop=0.0)
    check_it_learns(loaded.model, attached, batch, before, "both")


@pytest.mark.slow
@pytest.mark.parametrize("name", [quoted(row["tried"])[0] for row in rows()])
def test_a_gru_is_attached_to_every_model_and_learns(small, name):
    loaded = small.load(name)
    batch = inputs(loaded)
    with torch.no_grad():
        before = features(loaded.model.eval(), *batch)
    check_it_learns(loaded.model, gru.attach(loaded.model), batch, before, "both")


@pytest.mark.slow
@pytest.mark.parametrize("method", [m for m in tiny.TRAINED if not tiny.of_towers(m)])
@pytest.mark.parametrize("name", [quoted(row["tried"])[0] for row in rows()])
def test_prompts_fit_vits_that_are_read_at_their_class_token(small, name, method):
    loaded, attach = small.load(name), registry.load(METHODS, method).attach
    visual, settings = loaded.model.visual, {"domains": 2, "classes": 3}
    plain = isinstance(visual, VisionTransformer) and visual.attn_pool is None
    if not (plain and visual.pool_type == "tok" and not visual.output_tokens):
        with pytest.raises(UsageError, match=f"{method} needs a ViT of open_clip's own code"):
            attach(loaded.model, **settings)
        return
    if not hasattr(text_tower(loaded.model), "token_embedding"):
        with pytest.raises(UsageError, match=r"puts its context into.*set method.context=0"):
            attach(small.load(name).model, **settings)
        settings["context"] = 0
    batch = inputs(loaded)
    with torch.no_grad():
        before = features(loaded.model.eval(), *batch)
    attached = attach(loaded.model, **settings)
    for alpha in (0.0, 1.0):
        with torch.no_grad(), attached.at(alpha) as model:
            change = [
                (a - b).abs().max() for a, b in zip(features(model, *batch), before, strict=True)
            ]
        assert change[1] < 1e-5  # no text has a place for the context
        assert change[0] > 1e-3 if alpha else change[0] < 1e-5


@pytest.mark.parametrize("method", ANY_TOWER)
def test_the_decoder_of_coca_is_in_no_tower(small, method):
    attached = registry.load(METHODS, method).attach(small.load("coca_ViT-B-32").model)
    assert {"visual", "text"} <= {name.split(".")[0] for name in attached.trained}
    assert not [name for name in attached.trained if "decoder" in name]
    assert (
        registry.load(METHODS, method)
        .attach(small.load("coca_ViT-B-32").model, towers="text")
        .stored()
    )


def test_a_bias_that_no_objective_has_is_not_trained(small):
    loaded = small.load("ViT-B-16-SigLIP")
    attached = registry.load(METHODS, "full").attach(loaded.model, train_temperature=True)
    assert "logit_bias" in loaded.model.state_dict()
    assert "logit_scale" in attached.stored()
    assert "logit_bias" not in attached.stored()


@pytest.mark.parametrize("method", ["r-adapter", "lora"])
@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-16-SigLIP", "EVA02-B-16", "roberta-ViT-B-32"])
def test_activations_computed_again_give_the_same_gradients(small, name, method):
    found = []
    for again in (False, True):
        loaded = small.load(name)
        torch.manual_seed(0)
        attached = registry.load(METHODS, method).attach(loaded.model)
        with torch.no_grad():
            for parameter in attached.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        if again:
            loaded.model.set_grad_checkpointing(True)
        training_mode(loaded.model)
        gradients(loaded.model, attached, *inputs(loaded))
        found.append([p.grad for p in attached.parameters()])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.slow
@pytest.mark.parametrize("name", [quoted(row["tried"])[0] for row in rows()])
def test_both_towers_are_exported(small, tmp_path, name):
    """A merged model is one of the same architecture, so any weights will do."""
    loaded = small.load(name)
    pictures, tokens = inputs(loaded)
    (tmp_path / "onnx").mkdir()
    export_towers(
        loaded.model,
        tmp_path,
        {"pixel_values": pictures, "input_ids": tokens},
        precision="fp32",
        context_length=loaded.context_length,
        opset=18,
    )
    pictures, tokens = (torch.cat([batch, batch.flip(-1)]) for batch in inputs(loaded, seed=2))
    with torch.no_grad():
        expected = features(loaded.model, pictures, tokens)
    files = (bundle.VISION, pictures), (bundle.TEXT, tokens)
    for (file, batch), theirs in zip(files, expected, strict=True):
        session = onnxruntime.InferenceSession(tmp_path / file)
        (ours,) = session.run(None, {session.get_inputs()[0].name: batch.numpy()})
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        "ViT-B-32",
        "ViT-B-16-SigLIP",
        "EVA02-B-16",
        "roberta-ViT-B-32",
        "coca_ViT-B-32",
        "nllb-clip-base",
        "PE-Core-B-16",
        "ViTamin-B",
        "MobileCLIP2-B",
    ],
)
def test_behind_the_last_blocks_is_what_their_output_does_not_depend_on(small, name):
    loaded = small.load(name)
    model = loaded.model.eval()
    attached = full.attach(model, last_blocks=1)
    model.requires_grad_(True)
    pictures = torch.randn(2, 3, *models.image_size(model))
    tokens = loaded.tokenizer(["a photo of the cat", "the sofa"])
    blocks = residual_blocks(model, "both", "x")
    expected = set()
    for tower, run in (
        ("image", lambda: model.encode_image(pictures)),
        ("text", lambda: models.encode_text(model, tokens)),
    ):
        last = [block for block in blocks if tower_of(model, block.name) == tower][-1]
        seen = []

        def see(module, inputs, output, seen=seen):
            seen.append(output[0] if isinstance(output, tuple) else output)

        handle = last.module.register_forward_hook(see)
        features = run()
        handle.remove()
        named = dict(model.named_parameters())
        after, before = (
            torch.autograd.grad(
                of.square().sum(), named.values(), retain_graph=True, allow_unused=True
            )
            for of in (features, seen[0])
        )
        for key, one, two in zip(named, after, before, strict=True):
            if one is not None and (two is None or key.startswith(f"{last.name}.")):
                expected.add(key)
    assert set(attached.trained) == expected

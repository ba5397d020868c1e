"""A batch in chunks has the gradients of the batch in one piece."""

import functools
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
import torch.nn.functional as F

from radapter import models, registry
from radapter.data import Dataset
from radapter.errors import GateFailed, UsageError
from radapter.losses import multi_positive, retention
from radapter.methods.batch_rows import bernoulli_of_rows, rows
from radapter.models import encode_text, shorten
from radapter.objectives import contrastive
from radapter.objectives import retention as retention_term
from radapter.objectives.terms import Context
from radapter.registry import METHODS
from radapter.training import Interrupted, checkpoints, resume, step, train
from radapter.training.gradients import gradients
from radapter.training.step import load_scaler, scaler_tensors, training_mode

CPU = torch.device("cpu")
CASES = tiny.methods()
PLAIN = [contrastive.term(None)]
TEXTS = ["a cat", "two green dogs on a very red sofa", "sun", "a photo of the sea", "moss", "a"]


def batch_of(loaded, size=11):
    """Pairs that share six texts and four groups, one of them a caption of its own picture."""
    generator = torch.Generator().manual_seed(5)
    return {
        "images": torch.randn(size, 3, 32, 32, generator=generator),
        "tokens": loaded.tokenizer(TEXTS),
        "text_of": torch.arange(size) % len(TEXTS),
        "groups": torch.arange(size) % len(TEXTS) % 4,
        "domains": torch.arange(size) % 2,
        "own": torch.arange(size) == 5,
    }


def moved(method, settings):
    """A model whose adapters are not at their start, in training mode."""
    loaded = tiny.build()
    torch.manual_seed(1)
    attached = registry.load(METHODS, method).attach(loaded.model, **settings)
    attached.keep_start()
    for parameter in attached.parameters():
        if parameter.dim() > 1:
            with torch.no_grad():
                parameter.add_(0.05 * torch.randn_like(parameter))
    training_mode(loaded.model)
    return loaded, attached


def retention_of(loaded, attached):
    captions = [f"{text}, {number}" for text in TEXTS for number in range(3)]
    dataset = Dataset("x", ["a"], lambda i: None, captions=[captions])
    return retention_term.term(Context(loaded.tokenizer, dataset, attached), pool=7, weight=3.0)


def in_one_piece(loaded, attached, batch, smoothing=0.0, retained=None):
    """Loss and gradients as the formula says it, by one backward pass through one graph."""
    torch.manual_seed(9)
    pool = retained.texts() if retained else batch["tokens"][:0]
    tokens = shorten(loaded.model, torch.cat([batch["tokens"], pool]))
    if retained:
        with torch.no_grad(), attached.at(0.0) as before:
            then = before.encode_image(batch["images"], True), before.encode_text(pool, True)
    known = {name: batch[name] for name in ("groups", "domains")}
    with rows(0, len(batch["images"]), known):
        images = F.normalize(loaded.model.encode_image(batch["images"]), dim=-1)
    texts = F.normalize(encode_text(loaded.model, tokens), dim=-1)
    kappa = loaded.model.logit_scale.exp()
    loss = multi_positive(
        images,
        texts[batch["text_of"]],
        contrastive.positives_of(batch, "group"),
        logit_scale=kappa,
        smoothing=smoothing,
        margin=0.05,
    )
    if retained:
        kept = retention(images, texts[-len(pool) :], *then, logit_scale=kappa.detach())
        loss = loss + 3.0 * kept
    found = torch.autograd.grad(loss, list(attached.parameters()), allow_unused=True)
    return loss.item(), found


@pytest.mark.parametrize("retain", [False, True], ids=["", "retain"])
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_chunks_have_the_gradients_of_the_whole_batch(name, settings, retain):
    loaded, attached = moved(name, settings)
    batch, retained = batch_of(loaded), retention_of(loaded, attached) if retain else None
    terms = [contrastive.term(None, smoothing=0.02), *([retained] if retain else [])]
    loss, expected = in_one_piece(loaded, attached, batch, 0.02, retained)
    largest = max(g.abs().max() for g in expected)
    assert largest > 1e-3
    for micro_batch in (None, 1, 2, 3, 4, 5, 8, 10, 11, 100):  # divides 11 and 6, or does not
        for parameter in attached.parameters():
            parameter.grad = None
        torch.manual_seed(9)
        teachers = {"zero-shot": functools.partial(attached.at, 0.0)}
        found = gradients(
            loaded.model, batch, terms, device=CPU, micro_batch=micro_batch, teachers=teachers
        )
        assert found.item() == pytest.approx(loss, rel=1e-5)
        for parameter, gradient in zip(attached.parameters(), expected, strict=True):
            worst = (parameter.grad - gradient).abs().max()
            assert worst < 1e-5 * max(1.0, largest), micro_batch


def test_the_masks_matter_in_what_is_compared():
    """Other draws give other gradients, so the equality above is one of masks too."""
    for unit in ("adapter", "sample", "position"):
        loaded, attached = moved("r-adapter", {"drop": 0.4, "drop_unit": unit})
        batch, found = batch_of(loaded), []
        for seed in (1, 2):
            torch.manual_seed(seed)
            gradients(loaded.model, batch, PLAIN, device=CPU, micro_batch=3)
            found.append(torch.cat([p.grad.flatten() for p in attached.parameters()]))
            for parameter in attached.parameters():
                parameter.grad = None
        assert (found[0] - found[1]).abs().max() > 1e-3


def test_draws_of_rows_are_those_of_the_batch():
    z = torch.zeros(11, 4, 2)
    torch.manual_seed(0)
    whole = bernoulli_of_rows(z, 0.5)
    assert whole.shape == (11, 1, 1)
    for first, last in ((0, 3), (3, 10), (10, 11)):
        torch.manual_seed(0)
        with rows(first, 11):
            assert torch.equal(bernoulli_of_rows(z[first:last], 0.5), whole[first:last])
    torch.manual_seed(0)
    assert torch.equal(bernoulli_of_rows(z, 0.5), whole)


@pytest.mark.parametrize("method", [[], ["method={name: full, train_temperature: true}"]])
def test_a_run_in_chunks_ends_where_the_other_does(tiny_folder, shapes, tmp_path, method):
    from safetensors.torch import load_file

    # A large epsilon: Adam makes steps of full size of gradients that are rounding alone.
    more = ("optimisation.eps=1e-3", *method)
    ends = []
    for number, chunk in enumerate(([], ["optimisation.micro_batch=3"])):
        settings = tiny.recipe(tiny_folder, shapes, *more, *chunk)
        run = train(settings, tmp_path / str(number))
        ends.append(load_file(run.adapter))
        losses = [json.loads(line)["loss"] for line in run.metrics.read_text().splitlines()]
    assert len(losses) == 9
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, rtol=1e-4, atol=1e-6)


def test_a_chunk_is_no_larger_than_the_batch(tiny_folder, shapes):
    with pytest.raises(UsageError, match="micro_batch 9 is larger than batch_size 8"):
        tiny.recipe(tiny_folder, shapes, "optimisation.micro_batch=9")


MEASURED = """
import json, sys
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
import tiny
from radapter.methods import r_adapter
from radapter.objectives import contrastive
from radapter.training import memory
from radapter.training.gradients import gradients
wide = {"image_size": 64, "layers": 4, "width": 64, "head_width": 32, "patch_size": 8}
loaded = tiny.build(vision=wide)
attached = r_adapter.attach(loaded.model)
n = 256
batch = {
    "images": torch.randn(n, 3, 64, 64), "tokens": loaded.tokenizer(["a cat"]),
    "text_of": torch.zeros(n, dtype=torch.long), "groups": torch.arange(n),
    "own": torch.zeros(n, dtype=torch.bool),
}
cpu = torch.device("cpu")
terms = [contrastive.term(None)]
peaks = [memory.peak(cpu)["peak_memory_bytes"]]
for micro_batch in (16, None):  # the smaller first: a peak never falls
    gradients(loaded.model.train(), batch, terms, device=cpu, micro_batch=micro_batch)
    peaks.append(memory.peak(cpu)["peak_memory_bytes"])
print(json.dumps([peak - peaks[0] for peak in peaks]))
"""


@pytest.mark.slow
def test_chunks_take_less_memory():
    command = [sys.executable, "-c", MEASURED, str(Path(tiny.__file__).parent)]
    _, chunked, whole = json.loads(subprocess.check_output(command, text=True))
    assert whole > 200e6
    assert chunked < 0.3 * whole


# ------------------------------------------------------------------ precision


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", tiny.TRAINED)
def test_lower_precision_is_near(name, precision):
    loaded, attached = moved(name, registry.load(METHODS, name).EXAMPLES[0])
    batch = batch_of(loaded)
    loss, expected = in_one_piece(loaded, attached, batch)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0) if precision == "fp16" else None
    torch.manual_seed(9)
    found = gradients(
        loaded.model, batch, PLAIN, device=CPU, precision=step.PRECISIONS[precision],
        micro_batch=4, scaler=scaler,
    )  # fmt: skip
    assert found.item() == pytest.approx(loss, rel=0.05 if precision == "bf16" else 0.01)
    assert found.item() != loss
    scale = scaler.get_scale() if scaler else 1.0
    one = torch.cat([p.grad.flatten() / scale for p in attached.parameters()])
    two = torch.cat([g.flatten() for g in expected])
    assert F.cosine_similarity(one, two, dim=0) > (0.97 if precision == "bf16" else 0.999)
    assert one.norm().item() == pytest.approx(two.norm().item(), rel=0.1)


def fp16(tiny_folder, shapes, *more):
    return tiny.recipe(tiny_folder, shapes, "precision=fp16", *more)


def test_normalisation_and_loss_are_in_fp32(monkeypatch):
    loaded, _ = moved("r-adapter", {})
    seen = []
    real = contrastive.multi_positive

    def watched(images, texts, *args, **settings):
        seen.append((images.dtype, texts.dtype))
        assert (images.detach().norm(dim=1) - 1).abs().max() < 1e-5
        return real(images, texts, *args, **settings)

    monkeypatch.setattr(contrastive, "multi_positive", watched)
    gradients(
        loaded.model,
        batch_of(loaded),
        PLAIN,
        device=CPU,
        precision=torch.float16,
    )
    assert seen == [(torch.float32, torch.float32)]


def test_a_run_in_fp16_learns_and_resumes_to_the_same_end(tiny_folder, shapes, tmp_path):
    settings = fp16(tiny_folder, shapes, "method.average.momentum=0.5")
    losses = []
    whole = train(settings, tmp_path / "whole", on_step=lambda m: losses.append(m["loss"]))
    assert len(losses) == 9
    assert sum(losses[-3:]) < sum(losses[:3])
    with pytest.raises(Interrupted) as caught:
        train(settings, tmp_path / "stopped", should_stop=iter([False] * 3 + [True]).__next__)
    stopped = caught.value.run
    state = checkpoints.load(stopped.checkpoints).scaler
    assert state["scale"].item() == 32768.0  # halved in the first step, which overflowed
    assert state["growth_tracker"].item() == 3
    assert resume(stopped).adapter.read_bytes() == whole.adapter.read_bytes()


def test_a_scaler_goes_on_as_if_never_stopped():
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)
    scaler.scale(torch.ones(()))
    scaler.load_state_dict({**scaler.state_dict(), "_growth_tracker": 2})
    tensors = scaler_tensors(scaler)
    assert all(isinstance(value, torch.Tensor) for value in tensors.values())
    other = torch.amp.GradScaler("cpu", growth_interval=3)
    load_scaler(other, tensors)
    assert other.state_dict() == scaler.state_dict()
    assert scaler_tensors(None) == {}
    load_scaler(None, {})


def test_a_step_whose_gradients_overflow_is_left_out(tiny_folder, shapes, tmp_path, monkeypatch):
    """The scale halves, nothing else moves, and training goes on."""
    real, kept = step.gradients, []

    def overflowing(model, *args, scaler, **settings):
        loss = real(model, *args, scaler=scaler, **settings)
        for parameter in model.parameters():
            if parameter.grad is not None:  # whatever the scale, but in the third step
                parameter.grad.copy_(torch.full_like(parameter, 1e-3))
        if len(kept) == 2:
            model.visual.proj.grad[0, 0] = float("inf")
        return loss

    one_step = step.optimizer_step

    def watched(parts, batch):
        loss = one_step(parts, batch)
        p = next(iter(parts.trained)).detach().clone()
        kept.append((p, parts.scaler.get_scale(), parts.attached.start_share))
        return loss

    monkeypatch.setattr(step, "gradients", overflowing)
    monkeypatch.setattr("radapter.training.loop.optimizer_step", watched)
    method = "method={name: full, average: {momentum: 0.5}}"
    train(fp16(tiny_folder, shapes, method), tmp_path)
    assert len(kept) == 9
    values, scales, shares = zip(*kept, strict=True)
    moved = [not torch.equal(one, two) for one, two in itertools.pairwise(values)]
    assert moved == [True, False, *[True] * 6]
    assert list(scales) == [65536.0] * 2 + [32768.0] * 7
    assert list(shares[:4]) == [0.5, 0.25, 0.25, 0.125]


def test_features_that_overflow_are_said_with_what_to_do(tiny_folder, shapes, tmp_path):
    loaded = models.load(tiny_folder)
    with torch.no_grad():
        loaded.model.visual.proj.mul_(1e6)
    (tmp_path / "large").mkdir()
    models.save(tmp_path / "large", loaded, loaded.model.state_dict())
    with pytest.raises(GateFailed, match=r"became nan.*precision: bf16"):
        train(fp16(tmp_path / "large", shapes), tmp_path / "runs")

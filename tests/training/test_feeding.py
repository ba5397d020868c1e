"""Feeding a device changes no number, and makes no step wait for it more than it has to."""

import contextlib
import warnings

import pytest
import tiny
import torch
from torchvision.transforms import v2

from radapter.data import pairs
from radapter.training import feeding, loop, preparing, step, train
from radapter.training.feeding import Pixels, ahead, moved

CPU = torch.device("cpu")


@pytest.fixture
def recipe(tiny_folder, shapes):
    return lambda *overrides: tiny.recipe(tiny_folder, shapes, *overrides)


# ------------------------------------------------------------------ the same numbers


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        (tiny.MEAN, tiny.STD),
        ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        ((0, 0, 0), (1, 1, 1)),
    ],
)
def test_pixels_are_torchvisions_bit_for_bit(mean, std):
    one_by_one = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])
    every = torch.arange(256, dtype=torch.uint8).expand(3, 256).reshape(1, 3, 16, 16)
    generator = torch.Generator().manual_seed(0)
    random = torch.randint(256, (5, 3, 16, 16), dtype=torch.uint8, generator=generator)
    pictures = torch.cat([every, random])
    found = Pixels(mean, std, CPU)(pictures)
    assert found.dtype == torch.float32
    assert torch.equal(found, torch.stack([one_by_one(picture) for picture in pictures]))
    assert pictures.dtype == torch.uint8


@pytest.mark.parametrize(
    "change",
    [
        ["method.drop_unit=sample", "optimisation.micro_batch=3"],
        ["data.augmentation={flip: 0.5, colour: 0.2, rotate: 10}", "precision=bf16"],
        ["objective.retain={captions: %s}" % __file__, "workers=1"],  # noqa: UP031
    ],
    ids=["in chunks", "augmented", "retained"],
)
def test_a_run_is_that_with_pixels_made_before_the_step(recipe, tmp_path, monkeypatch, change):
    settings = recipe(*change)
    ours = train(settings, tmp_path / "ours")
    real = preparing.training_transform

    def floats(augmentation, cfg):
        end = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(cfg["mean"], cfg["std"])]
        return v2.Compose([real(augmentation, cfg), *end])

    monkeypatch.setattr(preparing, "training_transform", floats)
    monkeypatch.setattr(Pixels, "__call__", lambda self, pictures: pictures)
    before = train(settings, tmp_path / "before")
    assert ours.adapter.read_bytes() == before.adapter.read_bytes()


def test_workers_give_bytes(recipe):
    parts = preparing.prepare(recipe())
    (batch, *_) = pairs.loader(parts.pairs, parts.order(), parts.base.tokenizer, 0)
    assert batch["images"].dtype == torch.uint8
    assert batch["images"].shape == (8, 3, 32, 32)


def test_a_picture_is_the_same_whichever_generator_call_seeds_it(recipe, monkeypatch):
    """`torch.manual_seed` was what seeded it, and seeds CUDA's generators too."""
    parts = preparing.prepare(recipe("data.augmentation={flip: 0.5, colour: 0.2}"))
    monkeypatch.setattr(torch, "manual_seed", lambda seed: pytest.fail("seeds every device"))
    found = parts.pairs[1, 5]
    monkeypatch.undo()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(pairs.item_seed(3, 1, 5))
        torch.randint(2, ())  # the template
        expected = parts.pairs.transform(parts.pairs.dataset.read(5))
    assert torch.equal(found["image"], expected)


# ------------------------------------------------------------------ on a CPU, nothing


def test_on_a_cpu_batches_pass_as_they_are():
    made = [{"images": torch.zeros(2), "groups": torch.ones(2)}, {"groups": torch.empty(0)}]
    drawn = []

    def batches():
        for batch in made:
            drawn.append(batch)
            yield batch

    for number, batch in enumerate(ahead(batches(), CPU)):
        assert batch is made[number]
        assert len(drawn) == number + 1  # none is read before its time
    assert number == 1
    assert moved(made[0]["images"], CPU) is made[0]["images"]


# ------------------------------------------------------------------ one ahead


class Fake:
    """Stands for torch.cuda's streams and events, and notes what is asked of them."""

    def __init__(self, said):
        self.said = said

    def Stream(self, device):
        return self

    def Event(self):
        return self

    def current_stream(self, device):
        return self

    @contextlib.contextmanager
    def stream(self, stream):
        self.said.append("copy")
        yield

    def record(self, stream):
        pass

    def wait_event(self, event):
        self.said.append("wait")


def test_the_next_batch_is_copied_before_one_is_used(monkeypatch):
    said = []
    monkeypatch.setattr(torch, "cuda", Fake(said))
    monkeypatch.setattr(feeding, "moved", lambda tensor, device: tensor.clone())
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: said.append("keep"))
    made = [{"images": torch.full((1,), float(n)), "tokens": n} for n in range(3)]
    made.append({"groups": torch.empty(0), "broken": ["x"]})
    found = []
    for batch in ahead(iter(made), torch.device("cuda", 0)):
        said.append("use")
        found.append(batch)
    once = ["copy", "wait", "keep", "use"]
    assert said == ["copy", *once, *once, *once, "wait", "keep", "use"]
    assert [batch.get("tokens") for batch in found] == [0, 1, 2, None]
    assert found[3]["broken"] == ["x"]
    assert [float(batch["images"]) for batch in found[:3]] == [0.0, 1.0, 2.0]


# ------------------------------------------------------------------ waits


class OnDevice(torch.Tensor):
    """Stands for a tensor on a GPU, and so does all that is made of it; every call that would wait
    for that GPU is noted."""

    waits: list[str] = []  # noqa: RUF012

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", str(function))
        blocking = name in (
            "item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__",
            "nonzero", "masked_select", "equal", "__contains__",
        )  # fmt: skip
        to_host = name == "to" and "cpu" in map(str, args[1:])
        by_mask = name == "__getitem__" and getattr(args[1], "dtype", None) == torch.bool
        if blocking or to_host or by_mask:
            cls.waits.append(name)
        return super().__torch_function__(function, types, args, kwargs or {})


def on_device(tensor, device=None):
    return tensor if isinstance(tensor, OnDevice) else tensor.as_subclass(OnDevice)


@pytest.fixture
def waits(monkeypatch):
    """A step's inputs, loss and norm of gradients are as if on a GPU."""
    norm = torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr("radapter.training.gradients.moved", on_device)
    monkeypatch.setattr(
        torch.nn.utils, "clip_grad_norm_", lambda *args: on_device(norm(*args).detach())
    )
    monkeypatch.setattr(
        torch.amp.GradScaler, "get_scale",
        lambda self: OnDevice.waits.append("scale") or self._get_scale_async().item(),
    )  # fmt: skip
    OnDevice.waits = []
    return OnDevice.waits


@pytest.mark.parametrize(
    ("most", "change"),
    [
        (1, []),
        (1, ["precision=bf16", "optimisation.micro_batch=3", "method.drop_unit=sample"]),
        (1, ["method={name: full, train_temperature: true}", "optimisation.clip_norm=null"]),
        (1, ["method={name: lora, rank: 2}", "objective.retain={captions: %s}" % __file__]),  # noqa: UP031
        (1, ["objective.positives=pair"]),
        (2, ["precision=fp16"]),
    ],
    ids=["r-adapter", "bf16", "full", "lora", "pairs", "fp16"],
)
def test_a_step_waits_for_the_device_at_most_twice(recipe, waits, most, change):
    parts = preparing.prepare(recipe(*change))
    if parts.scaler is not None:  # small enough not to overflow, where more is asked
        parts.scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    step.training_mode(parts.base.model)
    batches = pairs.loader(parts.pairs, parts.order(), parts.base.tokenizer, 0)
    for batch, _ in zip(batches, range(3), strict=False):
        waits.clear()
        loss = step.optimizer_step(parts, batch)
        assert 0 < loss < 10
        assert 1 <= len(waits) <= most, waits


# ------------------------------------------------------------------ what ends


def test_no_worker_outlives_an_error(recipe, tmp_path):
    """An error that is kept keeps the loader; a process that waits for its workers never ends."""
    workers = []

    def wrong(metrics):
        workers.extend(torch.multiprocessing.active_children())
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug") as kept:
        train(recipe("workers=1"), tmp_path, on_step=wrong)
    assert kept.tb is not None
    assert len(workers) == 1
    assert not workers[0].is_alive()


# ------------------------------------------------------------------ on a GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_what_a_gpu_is_given_is_what_was_read(recipe):
    device = torch.device("cuda", torch.cuda.current_device())
    parts = preparing.prepare(recipe("device=cuda", "workers=2"))
    read = pairs.loader(parts.pairs, parts.order(), parts.base.tokenizer, 0)
    fed = pairs.loader(parts.pairs, parts.order(), parts.base.tokenizer, 2, pinned=True)
    for one, two in zip(read, ahead(loop.failures.batches(fed), device), strict=True):
        for name in feeding.ON_DEVICE:
            assert two[name].is_cuda
            assert torch.equal(two[name].cpu(), one[name])
        on_gpu = parts.pixels(two["images"]).cpu()
        on_cpu = Pixels(tiny.MEAN, tiny.STD, CPU)(one["images"])
        torch.testing.assert_close(on_gpu, on_cpu, rtol=0, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_waits_for_a_gpu_once(recipe, precision):
    parts = preparing.prepare(recipe("device=cuda", f"precision={precision}"))
    step.training_mode(parts.base.model)
    batches = pairs.loader(parts.pairs, parts.order(), parts.base.tokenizer, 0, pinned=True)
    for number, batch in enumerate(ahead(batches, parts.device)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn" if number else "default")
            try:
                step.optimizer_step(parts, batch)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        waits = [str(w.message) for w in caught if "synchronizing" in str(w.message)]
        assert len(waits) <= 1, waits

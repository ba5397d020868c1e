"""Measuring runtimes: what is compared takes turns under equal conditions, and nothing is dropped
in silence."""

import builtins
import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_bundle import bundle_copy, exported, make, tiny

from radapter import bundle, models
from radapter.benchmarking import Settings, Subject, bench, measuring, subjects
from radapter.benchmarking.inputs import Batches
from radapter.benchmarking.measuring import Case, figures, measure
from radapter.benchmarking.subjects import open_runtimes
from radapter.errors import BrokenInput, GateFailed, MissingDependency, UsageError
from radapter.runtimes import pytorch
from radapter.runtimes.engines import ENGINES, Engine
from radapter.runtimes.onnx import OnnxRuntime
from radapter.runtimes.pytorch import PyTorchRuntime

pytestmark = pytest.mark.slow  # they export

__all__ = ["bundle_copy", "exported", "tiny"]  # fixtures
QUICK = {"rounds": 2, "seconds": 0.0}
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


@pytest.fixture
def recorded(monkeypatch):
    """(runtime, precision, torch's threads, the session's threads) of every call of a tower."""
    calls = []

    def recording(kind, tower, session):
        real = getattr(kind, tower)

        def encode(self, values):
            options = getattr(self, "_towers", {}).get(session)
            own = options and options.get_session_options().intra_op_num_threads
            calls.append((self.name, self.precision, torch.get_num_threads(), own))
            return real(self, values)

        monkeypatch.setattr(kind, tower, encode)

    for kind in (PyTorchRuntime, OnnxRuntime):
        recording(kind, "encode_image", "vision_model")
        recording(kind, "encode_text", "text_model")
    return calls


def test_a_model_without_a_bundle(tiny_folder, tmp_path, monkeypatch, recorded):
    """All of it: exported for the time, every combination measured, threads as asked."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    settings = Settings(["torch", "onnx"], ["fp32", "int8"], (1, 3), (1, 2), **QUICK)
    progress = []
    before = torch.get_num_threads()
    result = bench(tiny_folder, settings, on_progress=lambda *report: progress.append(report))
    assert not list(tmp_path.iterdir())
    assert torch.get_num_threads() == before
    assert json.loads(json.dumps(result)) == result

    combinations = {
        (case["tower"], case["batch"], case["runtime"], case["precision"], case["threads"])
        for case in result["cases"]
    }
    assert len(result["cases"]) == 24
    assert combinations == {
        (tower, batch, runtime, precision, threads)
        for tower in ("pictures", "texts")
        for batch in (1, 3)
        for runtime, precision in (("torch", "fp32"), ("onnx", "fp32"), ("onnx", "int8"))
        for threads in (1, 2)
    }
    for case in result["cases"]:
        assert case["device"] == "cpu"
        assert case["calls"] == 2
        assert 0 < case["median_ms"] <= case["p95_ms"]
        low, high = case["speedup_range"]
        assert low <= case["speedup"] <= high
        if case["runtime"] == "torch":
            assert low == high == 1
        assert case["worst_cosine"] > (0.99 if case["precision"] == "int8" else 0.999999)
    assert min(c["worst_cosine"] for c in result["cases"] if c["precision"] == "int8") < 0.9999999
    assert result["left_out"] == []
    assert result["text_length"] == 77
    assert result["image_size"] == [32, 32]
    assert result["weights_hash"] == models.load(tiny_folder).weights_hash
    assert result["versions"]["onnxruntime"]
    assert result["machine"]["cores"] >= 1
    assert [(r["runtime"], r["precision"], r["threads"]) for r in result["runtimes"]] == [
        ("torch", "fp32", 1), ("torch", "fp32", 2), ("onnx", "fp32", 1), ("onnx", "fp32", 2),
        ("onnx", "int8", 1), ("onnx", "int8", 2),
    ]  # fmt: skip
    assert result["runtimes"][-1]["provider"] == "CPUExecutionProvider"
    assert progress[-1][:2] == (24 * 3, 24 * 3)

    # Threads: torch's are set before each call, a session's are its own from the start.
    measured = recorded[-24 * 2 :]
    for _, _, of_torch, of_session in measured:
        assert of_session in (None, of_torch)
    assert {call[2] for call in measured} == {1, 2}
    assert {call[3] for call in measured if call[0] == "onnx"} == {1, 2}


def test_the_threads_of_a_session_are_there(exported):
    """onnxruntime starts one less than it is told, for each session; the caller is the other."""
    if not sys.platform.startswith("linux"):
        pytest.skip("counts threads in /proc")

    def count():
        return len(list(Path("/proc/self/task").iterdir()))

    subject = Subject("tiny", None, exported)
    before = count()
    one, _ = open_runtimes(subject, ["onnx"], ["fp32"], [1])
    assert count() == before
    three, _ = open_runtimes(subject, ["onnx"], ["fp32"], [3])
    assert count() == before + 2 * 2
    assert [n for _, _, n in one + three] == [1, 3]


def case_of(name, log, **options):
    def call():
        log.append((name, torch.get_num_threads()))
        return torch.eye(2)

    defaults = {"precision": "fp32", "device": "cpu", "batch": 4, "threads": 1, "reference": False}
    return Case("pictures", name, call=call, **(defaults | options))


def test_cases_take_turns_to_and_fro():
    log = []
    cases = [case_of("a", log, threads=1), case_of("b", log, threads=2), case_of("c", log)]
    cases[2].threads = None  # on a GPU: whatever is set stays
    measure(cases, rounds=2, seconds=0)
    warm_up = [("a", 1)] * 3 + [("b", 2)] * 3 + [("c", 2)] * 3
    first, second = [("c", 2), ("b", 2), ("a", 1)], [("a", 1), ("b", 2), ("c", 2)]
    assert log == warm_up + first + second
    assert [[len(turn) for turn in case.rounds] for case in cases] == [[1, 1]] * 3
    torch.set_num_threads(1)


def test_the_first_of_several_calls_does_not_count(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: clock[0])
    log = []

    def slow_at_first():
        log.append(1)
        clock[0] += 8.0 if len(log) == 1 else 1.0
        return torch.eye(2)

    case = case_of("a", log)
    case.call, case.expected = slow_at_first, 1.0
    assert measuring._turn(case, seconds=2.5) == [1.0, 1.0, 1.0]
    assert len(log) == 4
    case.expected = 3.0  # longer than a turn: the one call that there is counts
    assert measuring._turn(case, seconds=2.5) == [1.0, 1.0, 1.0]
    assert len(log) == 7
    assert measuring._turn(case, seconds=0) == [1.0]


def test_engines_of_half_precision_are_compared_with_pytorch_in_half_precision():
    """A GPU has tensor cores for fp16 and none for fp32, whoever asks it."""
    cases = []
    for name, precision, seconds in (
        ("torch-cuda", "fp32", 1.0), ("torch-cuda", "fp16", 0.1), ("tensorrt", "fp32", 0.5),
        ("tensorrt", "fp16", 0.05), ("tensorrt", "int8", 0.04),
    ):  # fmt: skip
        case = case_of(name, [], precision=precision, device="cuda", threads=None)
        case.reference = name == "torch-cuda"
        case.rounds, case.features = [[seconds]], torch.eye(2)
        cases.append(case)
    found = [figures(case, cases) for case in cases]
    assert [row["speedup"] for row in found] == pytest.approx([1, 10, 2, 2, 2.5])
    assert [row["speedup_over"] for row in found] == ["fp32", "fp32", "fp32", "fp16", "fp16"]
    rest = [figures(case, [cases[0], *cases[2:]])["speedup"] for case in cases[3:]]
    assert rest == pytest.approx([20, 25])


def test_pytorch_on_cuda_is_opened_in_the_precisions_of_the_engines(tiny, monkeypatch):
    opened = []
    monkeypatch.setattr(pytorch, "PyTorchRuntime", lambda loaded, *where: opened.append(where))
    open_runtimes(Subject("a", tiny, None), ["torch-cuda"], ["fp16", "int8"], [1])
    assert opened == [("cuda", "fp32"), ("cuda", "fp16")]
    opened.clear()
    open_runtimes(Subject("a", tiny, None), ["torch", "torch-cuda"], ["fp32", "int8"], [1])
    assert opened == [("cpu", "fp32"), ("cuda", "fp32")]


def test_the_figures_are_those_of_the_times():
    rng = np.random.default_rng(0)
    reference = case_of("torch", [], reference=True)
    engine, other = case_of("onnx", []), case_of("onnx", [], threads=2)
    reference.rounds = [list(rng.uniform(0.2, 0.3, 5)), list(rng.uniform(0.4, 0.6, 3))]
    engine.rounds = [list(rng.uniform(0.1, 0.2, 7)), list(rng.uniform(0.2, 0.4, 4))]
    other.rounds = reference.rounds
    reference.features = torch.tensor([[1.0, 0], [0, 1]])
    engine.features = other.features = torch.tensor([[1.0, 0], [0.6, 0.8]])
    found = figures(engine, [reference, engine, other])
    calls = 1000 * np.concatenate(engine.rounds)
    assert found["calls"] == 11
    assert found["median_ms"] == pytest.approx(np.sort(calls)[5])
    assert found["p95_ms"] == pytest.approx(np.quantile(calls, 0.95))
    assert found["per_second"] == pytest.approx(4 * 11 / (calls.sum() / 1000))
    ratios = [np.median(reference.rounds[i]) / np.median(engine.rounds[i]) for i in (0, 1)]
    assert found["speedup"] == pytest.approx(statistics.mean(ratios))
    assert found["speedup_range"] == pytest.approx(sorted(ratios))
    assert found["worst_cosine"] == pytest.approx(0.8)
    assert found["speedup_over"] == "fp32"
    # PyTorch with another number of threads is nothing to compare with; its features are.
    alone = figures(other, [reference, engine, other])
    assert (alone["speedup"], alone["speedup_range"]) == (None, None)
    assert alone["worst_cosine"] == pytest.approx(0.8)


def test_threads_are_put_back_after_an_error(tiny_folder, monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(PyTorchRuntime, "encode_text", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        bench(tiny_folder, Settings(["torch"], threads=[before + 1], **QUICK))
    assert torch.get_num_threads() == before


@no_gpu
def test_what_is_missing_is_named(exported, tiny_folder, monkeypatch):
    """No GPU, no precision, no weights for PyTorch, no onnxruntime: each with its reason."""
    result = bench(exported, Settings(precisions=["fp32", "int8"], batches=[2], **QUICK))
    assert {(c["runtime"], c["precision"]) for c in result["cases"]} == {("onnx", "fp32")}
    assert all(c["speedup"] is c["worst_cosine"] is None for c in result["cases"])
    reasons = {(x["runtime"], x["precision"]): x["reason"] for x in result["left_out"]}
    assert "no weights for PyTorch" in reasons["torch", "fp32"]
    assert "has no int8, only fp32" in reasons["onnx", "int8"]
    assert 'pip install "radapter[gpu]"' in reasons["onnx-cuda", "fp32"]
    assert "Unknown precision 'int8'" in reasons["onnx-cuda", "int8"]
    assert set(ENGINES) == {name for name, _ in reasons} | {"onnx"}

    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "onnxruntime":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    result = bench(tiny_folder, Settings(batches=[1], **QUICK))
    assert {c["runtime"] for c in result["cases"]} == {"torch"}
    reasons = {x["runtime"]: x["reason"] for x in result["left_out"]}
    assert 'pip install "radapter[cpu]"' in reasons["onnx"]
    assert "no device 'cuda'" in reasons["torch-cuda"]


@no_gpu
def test_nothing_to_measure_is_the_first_reason(exported, tiny_folder):
    with pytest.raises(MissingDependency, match="no device 'cuda'"):
        bench(tiny_folder, Settings(["torch-cuda"]))
    with pytest.raises(MissingDependency, match="no weights for PyTorch"):
        bench(exported, Settings(["torch"]))
    with pytest.raises(UsageError, match="has no fp16, only fp32"):
        bench(exported, Settings(["onnx"], ["fp16"]))


def open_engine(engine, folder, **settings):
    return OnnxRuntime(folder, **settings)


def test_a_new_runtime_is_one_entry(exported, monkeypatch):
    monkeypatch.setitem(ENGINES, "doubled", Engine(__name__))
    result = bench(exported, Settings(["doubled"], batches=[1], **QUICK))
    assert [c["runtime"] for c in result["cases"]] == ["doubled"] * 2


def test_a_damaged_bundle_is_not_measured(bundle_copy):
    path = bundle_copy / bundle.TEXT
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BrokenInput, match="text_model"):
        bench(bundle_copy, Settings(**QUICK))


@pytest.mark.parametrize("alone", [False, True])
def test_texts_have_the_asked_length_and_end(alone, exported, tiny):
    """From the model's tokenizer and from the bundle's: the same ids."""
    manifest = bundle.read_manifest(exported)
    subject = Subject("tiny", None if alone else tiny, exported)
    start, end = 49406, 49407
    for length in (2, 9, 77):
        ids = Batches(subject, manifest, length).tokens(7)
        assert ids.shape == (7, length)
        assert (ids[:, 0] == start).all()
        assert (ids[:, -1] == end).all()
        assert (ids[:, :-1] < end).all()
        assert len(ids[:, 1:].unique(dim=0)) > 1 or length == 2
        other = Subject("tiny", tiny if alone else None, exported)
        assert torch.equal(ids, Batches(other, manifest, length).tokens(7))
    for length in (1, 78):
        with pytest.raises(UsageError, match=f"takes texts of 2 to 77 tokens, not {length}"):
            Batches(subject, manifest, length)


def test_a_model_that_takes_full_texts_only():
    loaded = make(custom=True, no_causal_mask=True)
    assert Batches(Subject("tiny", loaded, None), {}, None).text_length == 77
    with pytest.raises(UsageError, match="takes texts of 77 tokens only, not 9"):
        Batches(Subject("tiny", loaded, None), {}, 9)


def test_an_export_that_is_wrong_is_not_measured(tiny_folder, monkeypatch):
    """As with `radapter export`: such a file is no runtime to leave out, but a gate that failed."""

    def refuse(*_, **__):
        raise GateFailed("it does not agree")

    monkeypatch.setattr(subjects, "export_bundle", refuse)
    with pytest.raises(GateFailed):
        bench(tiny_folder, Settings(["torch", "onnx"], **QUICK))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runtimes": ["onxx"]}, "Unknown runtime 'onxx'. Did you mean 'onnx'?"),
        ({"runtimes": []}, "No runtime"),
        ({"precisions": ["fp8"]}, "Unknown precision 'fp8'"),
        ({"batches": [1, 0]}, "batch must be"),
        ({"threads": []}, "threads must be"),
        ({"rounds": 0}, "Rounds"),
        ({"seconds": float("nan")}, "seconds"),
    ],
)
def test_settings_that_make_no_sense(options, message):
    with pytest.raises(UsageError, match=message.replace("?", r"\?")):
        Settings(**options)

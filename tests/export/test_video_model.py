"""The bundle of a model of clips: a file for clips of so many frames, which agrees with PyTorch."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tiny
import torch
import trees
from PIL import Image
from tiny_bundle import FACTS

from radapter import bundle
from radapter.benchmarking import Settings, bench
from radapter.data.clip_pieces import open_clips
from radapter.data.sources.moving_emoji import MovingEmojiData
from radapter.errors import GateFailed, UsageError
from radapter.evaluation.suite import Suite, SuiteDataset
from radapter.export import Contents, Sample, export_bundle, triton
from radapter.export.bundling import plan
from radapter.export.gate import run_gate
from radapter.inference.features import embed, names_of
from radapter.inference.opening import with_frames
from radapter.registry import METHODS, load
from radapter.runtimes.onnx import OnnxRuntime
from radapter.runtimes.opened import open_bundle
from radapter.runtimes.pytorch import PyTorchRuntime

pytestmark = pytest.mark.slow  # they export

FRAMES = 3
EXAMPLES = Path(__file__).parents[2] / "examples"


def sample():
    """Smooth clips and a picture."""
    noise = np.random.default_rng(1).integers(0, 256, (8, FRAMES, 6, 8, 3), dtype=np.uint8)
    clips = [[Image.fromarray(x).resize((70, 50)) for x in clip] for clip in noise]
    clips[2] = clips[2][:1]
    texts = [captions[0] for captions in moving("train").open().captions]
    return Sample([clip[0] for clip in clips], texts, clips=clips)


def moving(split):
    return MovingEmojiData(
        source="moving-emoji", task="captions", concepts=2, split=split, frames=FRAMES
    )


OF_CLIPS = {
    "mv-adapter": {"rank": 8, "scale": 1.0, "frames": FRAMES, "factors": "random"},
    "stan": {"depth": 2, "frames": FRAMES, "towers": "none", "places": "random"},
    "gru": {"width": 32, "frames": FRAMES},
}


@pytest.fixture(scope="module", params=OF_CLIPS)
def loaded(request):
    loaded = tiny.build(quick_gelu=True)
    torch.manual_seed(1)
    attached = load(METHODS, request.param).attach(loaded.model, **OF_CLIPS[request.param])
    with torch.no_grad():
        for parameter in attached.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    loaded.model.eval().requires_grad_(False)
    return loaded


@pytest.fixture(scope="module")
def exported(loaded, tmp_path_factory):
    """For reading only."""
    folder = tmp_path_factory.mktemp("video") / "bundle"
    contents = Contents(["fp32", "fp16", "int8"], max_batch=6)
    export_bundle(loaded, folder, contents, facts=FACTS, sample=sample())
    return folder


@pytest.fixture(scope="module")
def clips():
    generator = torch.Generator().manual_seed(0)
    found = torch.randn(4, FRAMES, 3, 32, 32, generator=generator)
    found[1, 2:] = found[2, 1:] = torch.nan
    return found


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_it_is_pytorch_for_whole_and_for_short_clips(loaded, exported, clips, precision):
    runtime, reference = OnnxRuntime(exported, precision=precision), PyTorchRuntime(loaded)
    tolerance = {"fp32": 1e-5, "fp16": 5e-3}[precision]
    for some in (clips, clips[:1], clips[:, :2], clips[:, :1]):
        ours, theirs = runtime.encode_video(some), reference.encode_video(some)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)
    backwards = runtime.encode_video(clips[[0, 3]].flip(1))
    assert (backwards - runtime.encode_video(clips[[0, 3]])).abs().max() > 0.01
    pictures = runtime.encode_image(clips[:, 0])
    torch.testing.assert_close(pictures, reference.encode_video(clips[:, :1]), rtol=0, atol=5e-3)
    with pytest.raises(UsageError, match="up to 3 frames"):
        runtime.encode_video(torch.zeros(1, 4, 3, 32, 32))


def test_what_the_bundle_says_of_it(loaded, exported):
    manifest = bundle.verify(exported)
    assert manifest["frames"] == FRAMES
    forms = {bundle.in_precision(bundle.VIDEO, p) for p in ("fp32", "fp16", "int8", bundle.QDQ)}
    assert forms <= {*manifest["models"]}
    assert forms <= {*plan(loaded, contents=Contents(["fp32", "fp16", "int8"]))}
    card = (exported / "README.md").read_text("utf-8")
    assert "`pixel_values_videos` [batch, 3, 3, height, width]" in card
    session = onnxruntime.InferenceSession(exported / bundle.VIDEO)
    assert session.get_inputs()[0].shape == ["batch", FRAMES, 3, 32, 32]
    assert session.get_outputs()[0].name == "video_embeds"


def suite_of_clips():
    described = SuiteDataset(name="clips", role="zero-shot", data=moving("test"))
    suite = Suite(name="mine", tasks=["retrieval", "motion"], datasets=[described])
    return [(suite, suite.open())]


def test_the_gate_compares_clips(loaded, exported, tmp_path):
    allowed = ["int8.cosine=0.9", "int8-qdq.cosine=0.9"]  # of weights at random
    (compared,) = run_gate(loaded, suite_of_clips(), allowed, None, exported)
    said = {verdict["label"]: verdict for verdict in compared["verdicts"]}
    assert {"torch fp16", "onnx", "onnx fp16", "onnx int8"} <= {*said}
    assert any("video_model.onnx" in file for file in said["onnx"]["files"])
    # A file for clips that gives the mean of frames does not pass.
    plain = tiny.build(quick_gelu=True)
    with pytest.raises(GateFailed, match="do not give PyTorch's answers"):
        run_gate(plain, suite_of_clips(), [], None, exported)


def test_features_of_files_of_clips_are_the_models(loaded, exported, tmp_path):
    root = tmp_path / "clips"
    root.mkdir()
    for name, count in (("a.gif", 2), ("b.webp", 9)):
        shown = [trees.draw(7 * k + count) for k in range(count)]
        shown[0].save(root / name, save_all=True, append_images=shown[1:], lossless=True)
    opened, out = open_bundle(exported), tmp_path / "f.safetensors"
    found = with_frames(opened, open_clips(root), None)
    assert found.frames == opened.runtime.frames == FRAMES
    embed(opened, found, out)
    names = names_of(out, [0, 1])
    text = PyTorchRuntime(loaded).encode_text(loaded.tokenizer(["a cat"]))[0]
    command = [sys.executable, EXAMPLES / "search_videos.py", exported, root, "a cat"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    said = {Path(line.split("  ")[1]).name: float(line.split()[0]) for line in lines}
    for number, name in enumerate(names):
        frames = found.read(found.keys.index(name))
        pixels = torch.stack([loaded.preprocess(frame) for frame in frames])[None]
        cosine = float(PyTorchRuntime(loaded).encode_video(pixels)[0] @ text)
        assert said[name] == pytest.approx(cosine, abs=2e-3), number


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_golden_clips_by_the_example(exported, precision):
    golden = json.loads((exported / "golden" / "golden.json").read_text("utf-8"))
    assert golden["clips"] == [[0, 1, 2], [1, 2, 0], [2, 0]]
    command = [sys.executable, EXAMPLES / "check_bundle.py", exported, precision]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "video_embeds" in done.stdout


def test_a_server_gets_it_too(exported, tmp_path):
    places = triton.write_repository(exported, tmp_path / "models", "mine")
    assert [path.name for path in places] == ["mine_vision", "mine_text", "mine_video"]
    config = (places[-1] / "config.pbtxt").read_text()
    assert f"dims: [ {FRAMES}, 3, 32, 32 ]" in config


def test_a_file_of_classes_would_see_single_pictures():
    loaded = tiny.build()
    load(METHODS, "gru").attach(loaded.model)
    with pytest.raises(UsageError, match="and tiny clips: leave it out"):
        Contents(classifier={"names": ["a", "b"]}).check(loaded)


def test_bench_measures_clips_too(exported):
    settings = Settings(["onnx"], ["fp32"], (1, 2), rounds=1, seconds=0.0)
    cases = bench(exported, settings)["cases"]
    assert [case["tower"] for case in cases] == ["pictures"] * 2 + ["texts"] * 2 + ["clips"] * 2

"""What the commands do and print, apart from errors."""

import json
import os
import resource
import shutil
import subprocess
import sys

import pytest
import torch
from PIL import Image

from radapter import merging, models
from radapter.evaluation import alphas, of_run, written
from radapter.recipe import shipped
from radapter.run import Run


@pytest.mark.slow
def test_the_four_commands(cli, recipe_file, tmp_path):
    """In sequence, on the newest run; the last compares the engine with PyTorch."""
    outcome = cli("train", "tiny.yaml", "data.hold_out=0.3")
    assert outcome.code == 0, outcome.err
    assert "Next: radapter merge" in outcome.err
    (run,) = (tmp_path / "runs").iterdir()
    outcome = cli("merge", "--alpha", "0.5")
    assert outcome.out.strip() == f"Merged: runs/{run.name}/merged/alpha-0.50"
    assert cli("merge").out.startswith("Up to date")
    outcome = cli("export")
    assert outcome.code == 0, outcome.err
    assert "worst cosine 0.99999" in outcome.out
    assert cli("export").out.startswith("Up to date")
    outcome = cli("eval", "--runtime", "all", "--json")
    assert outcome.code == 0, outcome.err
    (result,) = json.loads(outcome.out)["results"]
    assert all(verdict["passed"] for verdict in result["parity"])
    assert list(result["models"]) == ["zero-shot", "alpha 0.50", "onnx"]
    saved = json.loads((run / "eval" / "held-out-alpha-0.50.json").read_text())
    assert saved["models"] == result["models"]
    outcome = cli("eval")
    assert "parity with pytorch fp32" in outcome.out
    assert "held-out" in cli("runs").out

    # Another merge makes the bundle stale, until it is exported again.
    assert cli("merge", "--alpha", "0.75").code == 0
    for runtime in ("all", "onnx"):
        outcome = cli("eval", "--runtime", runtime)
        assert outcome.code == 4
        assert "is stale" in outcome.err
    outcome = cli("eval")  # what can be scored is
    assert outcome.code == 0, outcome.err
    assert "the bundle is left out: it was made from another merged model" in outcome.err
    assert "type: radapter export" in outcome.err
    assert "alpha 0.75" in outcome.out
    assert cli("eval", "--runtime", "torch").code == 0
    # Going back to the first merge finds its bundle whole.
    assert cli("merge", "--alpha", "0.5").code == 0
    assert cli("eval").code == 0


@pytest.fixture
def exported(cli, merged):
    assert cli("export").code == 0
    (folder,) = (merged.path / "bundles").iterdir()
    return folder


def rehash(folder):
    """Make the manifest agree with changed files, as a broken exporter would leave it."""
    from radapter.files import file_hash

    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"] = {name: file_hash(folder / name) for name in manifest["files"]}
    path.write_text(json.dumps(manifest))


@pytest.mark.slow
@pytest.mark.parametrize("tower", ["vision", "text"])
def test_the_parity_gate_bites(cli, exported, tower):
    """Exit 3, after the table, for an engine whose weights are not the model's."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    path = exported / "onnx" / f"{tower}_model.onnx"
    model = onnx.load(path)
    largest = max(
        model.graph.initializer, key=lambda t: 0 if "embedding" in t.name else t.ByteSize()
    )
    values = numpy_helper.to_array(largest).copy()
    values += 0.05 * np.random.default_rng(0).standard_normal(values.shape).astype(values.dtype)
    largest.CopyFrom(numpy_helper.from_array(values, largest.name))
    onnx.save(model, path)
    # Damage that the hashes see is exit 4 ...
    outcome = cli("eval", "--runtime", "all")
    assert outcome.code == 4
    assert "does not have the hash" in outcome.err
    # ... and damage that they do not see is what the gate is for.
    rehash(exported)
    outcome = cli("eval", "--runtime", "all")
    assert outcome.code == 3, outcome.out + outcome.err
    assert "FAILED" in outcome.out
    assert "worst cosine" in outcome.out
    assert "Do not deploy it" in outcome.err
    outcome = cli("eval", "--runtime", "all", "--json")
    assert outcome.code == 3
    content = json.loads(outcome.out)
    assert content["ok"] is False
    assert content["error"]["code"] == 3
    assert not content["results"][0]["parity"][0]["passed"]
    # What the message says to type mends it, though the manifest fits the damaged file.
    assert cli("export").out.startswith("Up to date")
    assert f"radapter export --force --run runs/{exported.parents[1].name}" in outcome.out
    assert cli("export", "--force").code == 0
    assert cli("eval", "--runtime", "all").code == 0


@pytest.mark.slow
def test_one_runtime_alone_keeps_the_evidence_of_both(cli, exported):
    run = Run(exported.parents[1])
    assert cli("eval").code == 0
    evidence = (run.evaluations / "held-out-alpha-0.50.json").read_bytes()
    expected = {"torch": ["zero-shot", "alpha 0.50"], "onnx": ["zero-shot", "onnx"]}
    for runtime, models_ in expected.items():
        outcome = cli("eval", "--runtime", runtime)
        assert outcome.code == 0, outcome.err
        assert "parity" not in outcome.out
        saved = json.loads((run.evaluations / f"held-out-alpha-0.50-{runtime}.json").read_text())
        assert list(saved["models"]) == models_
    assert (run.evaluations / "held-out-alpha-0.50.json").read_bytes() == evidence


@pytest.mark.slow
def test_without_data_an_export_is_not_verified_and_says_so(
    cli, recipe_file, tiny_folder, shapes, tmp_path
):
    root = shutil.copytree(shapes, tmp_path / "pictures")
    assert cli("train", "tiny.yaml", f"data.root={root}").code == 0
    shutil.rmtree(root)
    assert cli("merge").code == 0
    outcome = cli("export")  # there is nothing to compare it on
    assert outcome.code == 4
    assert "No such folder" in outcome.err
    assert "--no-verify" in outcome.err
    outcome = cli("export", "--no-verify")
    assert outcome.code == 0, outcome.err
    assert "Not compared with PyTorch" in outcome.err
    (names,) = (json.loads(p.read_text()) for p in tmp_path.glob("runs/*/bundles/*/classes.json"))
    assert names["classes"] == ["blue circle", "green cross", "red square"]


def test_auto_alpha_prints_the_rule_and_saves_the_curve(cli, trained):
    outcome = cli("merge", "--alpha", "auto")
    assert outcome.code == 0, outcome.err
    assert "no more than one standard error" in outcome.out
    choice = json.loads((trained.path / "merged" / "alpha-auto.json").read_text())
    assert len(choice["curve"]) == 11
    assert f"alpha {choice['alpha']:g}" in outcome.out


@pytest.mark.parametrize(
    ("best", "said"),
    [
        (0.3, "alpha 0.3 is better by 1.5 points on the 40 held-out items, which is within one"),
        (0.0, "no alpha does better on the 40 held-out items than the base model"),
    ],
)
def test_auto_alpha_that_leaves_the_training_out_says_so(cli, trained, monkeypatch, best, said):
    """Alpha 0 by the rule is no adapted model, and export says it again."""
    curve = [
        {"alpha": 0.0, "score": 0.9, "behind": 0.015, "standard_error": 0.02},
        {"alpha": 0.3, "score": 0.915 if best else 0.8, "behind": 0.0, "standard_error": 0.0},
    ]
    choice = {"alpha": 0.0, "rule": "r", "metric": "accuracy", "items": 40, "curve": curve}
    monkeypatch.setattr(alphas, "choose_alpha", lambda *args, **settings: choice)
    outcome = cli("merge", "--alpha", "auto")
    assert outcome.code == 0, outcome.err
    assert "warning: alpha 0 is the base model: nothing of the training is in what" in outcome.err
    assert said in outcome.err
    assert "train longer" in outcome.err
    assert said in json.loads(cli("merge", "--alpha", "auto", "--json").out)["warning"]
    outcome = cli("export", "--dry-run")
    assert "Alpha 0 is the base model: nothing of the training is in this bundle." in outcome.err
    assert cli("merge", "--alpha", "0.5").code == 0
    assert "base model" not in cli("export", "--dry-run").err


def test_eval_of_a_folder_of_ones_own(cli, merged, shapes, tmp_path):
    """A last look: the classes of the run are answered among, what it does not know is left out."""
    shutil.copytree(shapes / "red_square", tmp_path / "test" / "red square")
    shutil.copytree(shapes / "red_square", tmp_path / "test" / "zebra")
    outcome = cli("eval", "--data", "test", "--runtime", "torch")
    assert outcome.code == 0, outcome.err
    said = " ".join(outcome.out.split())
    assert "All: classes: 3 of the model; no pictures of blue circle, green cross" in said
    assert "in no class (zebra/" in said
    outcome = cli("eval", "--data", "test", "--runtime", "torch", "--json")
    (result,) = json.loads(outcome.out)["results"]
    facts = result["models"]["alpha 0.50"]["datasets"]["test"]
    assert facts["accuracy"]["chance"] == pytest.approx(1 / 3)
    assert facts["pictures"] == len(list((shapes / "red_square").iterdir()))
    assert result["file"].endswith("data-test-alpha-0.50-torch.json")
    rows = "".join(f"{path}\tA text\n" for path in sorted((tmp_path / "test").glob("*/*"))[:3])
    (tmp_path / "captions.tsv").write_text(f"filepath\ttitle\n{rows}")
    outcome = cli("eval", "--data", "captions.tsv", "--alphas", "0:1:1")
    assert outcome.code == 0, outcome.err
    assert "data-captions.tsv, over alpha" in outcome.out
    assert cli("eval", "--data", "test", "--suite", "emoji-shifts").code == 2
    assert cli("eval", "--data", "absent").code == 4


def test_eval_in_another_precision(cli, merged, tiny_folder, shapes):
    """fp16 and bf16 are told by results and stand beside those of fp32."""
    outcome = cli("eval", "--runtime", "torch", "--precision", "bf16", "--json")
    assert outcome.code == 0, outcome.err
    (result,) = json.loads(outcome.out)["results"]
    assert {m["precision"] for m in result["models"].values()} == {"bf16"}
    assert result["file"].endswith("-torch-bf16.json")
    outcome = cli("eval", "--precision", "bf16")
    assert outcome.code == 2
    assert "--runtime torch" in outcome.err
    model = ("eval", "--model", tiny_folder, "--data", shapes, "--precision", "fp16", "--json")
    (result,) = json.loads(cli(*model).out)["results"]
    (facts,) = result["models"].values()
    assert facts["precision"] == "fp16"
    assert result["file"].endswith("-fp16.json")
    outcome = cli("embed", shapes, "--out", "f.safetensors", "--precision", "bf16", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["facts"]["runtime"] == "pytorch, cpu, bf16"
    assert cli("predict", shapes, "--precision", "bf16").code == 0


def test_eval_where_no_result_can_be_written(cli, merged, tmp_path, monkeypatch):
    """Said before the work; and if the disk fills meanwhile, the numbers are printed first."""
    (folder,) = (tmp_path / "runs").iterdir()
    shutil.rmtree(folder / "eval", ignore_errors=True)
    (folder / "eval").write_text("no folder")
    with monkeypatch.context() as patched:
        patched.setattr(of_run, "evaluate", None)
        outcome = cli("eval", "--runtime", "torch")
    assert outcome.code == 4
    assert "cannot be written" in outcome.err
    (folder / "eval").unlink()

    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(written, "write_atomic", full)
    outcome = cli("eval", "--runtime", "torch")
    assert outcome.code == 4
    assert "class accuracy" in outcome.out
    assert "The results are right, but were not written" in outcome.err
    assert "No space left on device" in outcome.err


def test_relative_paths_start_from_the_data_root(cli, recipe_file, shapes, tmp_path, monkeypatch):
    text = recipe_file.read_text().replace(str(shapes), shapes.name)
    assert shapes.name in text
    recipe_file.write_text(text)
    outcome = cli("train", recipe_file, "--dry-run")
    assert outcome.code == 4
    assert f"No such folder: {shapes.name}." in outcome.err
    assert cli("train", recipe_file, f"data.data_root={shapes.parent}", "--dry-run").code == 0
    monkeypatch.setenv("RADAPTER_DATA", str(shapes.parent))
    assert cli("train", recipe_file, "data.data_root=elsewhere", "--dry-run").code == 0
    outcome = cli("train", recipe_file, "--dry-run", "--data-root", tmp_path / "empty")
    assert outcome.code == 4
    assert str(tmp_path / "empty" / shapes.name) in outcome.err


def test_the_curve_over_alpha(cli, merged, shapes, tmp_path):
    (tmp_path / "shift.yaml").write_text(
        f"""name: shift
tasks: [classification]
datasets:
  - {{name: own, role: in-distribution, data: {{source: folder, root: {shapes}, split: all}}}}
  - {{name: other, role: shifted, data: {{source: folder, root: {shapes}, split: all}}}}
"""
    )
    outcome = cli("eval", "--suite", "shift.yaml", "--alphas", "0:1:0.5", "--json")
    assert outcome.code == 0, outcome.err
    (result,) = json.loads(outcome.out)["results"]
    assert [point["alpha"] for point in result["points"]] == [0.0, 0.5, 1.0]
    assert result["chosen"] == 0.5
    assert json.loads((tmp_path / result["file"]).read_text())["points"] == result["points"]
    with Image.open(tmp_path / result["picture"]) as picture:
        assert picture.width > 500
    # The ends are the base model and the run's adapter at 1: scored one by one they are the same.
    for alpha, name in (("0", "alpha-0.00"), ("1", "alpha-1.00")):
        assert cli("merge", "--alpha", alpha).code == 0
        assert cli("eval", "--suite", "shift.yaml", "--runtime", "torch").code == 0
        alone = json.loads((merged.evaluations / f"shift-{name}-torch.json").read_text())
        point = next(p for p in result["points"] if p["alpha"] == float(alpha))
        assert point["datasets"] == alone["models"][name.replace("-", " ")]["datasets"]

    outcome = cli("eval", "--alphas", "0:1:0.5")  # one role: nothing to draw against
    assert outcome.code == 0
    assert "over alpha" in outcome.out
    assert "Picture: " not in outcome.out


def test_the_curve_needs_no_merged_model(cli, trained):
    outcome = cli("eval", "--alphas", "0:1:1", "--json")
    assert json.loads(outcome.out)["results"][0]["chosen"] is None


@pytest.mark.parametrize("text", ["0.5", "0:1", "0:1:0", "1:0:0.1", "0:1:x", "0:1:1e-9", "0:inf:1"])
def test_alphas_of_another_form_are_refused(cli, trained, text):
    outcome = cli("eval", "--alphas", text)
    assert outcome.code == 2
    assert f"found '{text}'" in outcome.err
    assert cli("eval", "--alphas", "0:1:0.1", "--runtime", "all").code == 2


def test_alpha_beyond_1_warns(cli, trained):
    outcome = cli("merge", "--alpha", "1.5")
    assert outcome.code == 0
    assert "warning: alpha 1.5 is outside of [0, 1]" in outcome.err


def test_dry_runs_touch_nothing(cli, recipe_file, merged, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    outcome = cli("train", "tiny.yaml", "--dry-run")
    assert outcome.code == 0
    assert "9 steps on cpu" in outcome.out
    outcome = cli("train", "tiny.yaml", "--dry-run", "--json")
    plan = json.loads(outcome.out)["plan"]
    assert plan["cut_texts"] == 0
    outcome = cli("train", "tiny.yaml", "--dry-run", "data.text_length=4")
    assert "6 texts are longer than what is trained on: only their start" in outcome.out
    trainable = 2 * 2 * (32**2 + 16**2)  # layers, places, widths of the two towers
    assert plan["trainable"] == trainable
    outcome = cli("export", "--dry-run")
    assert "onnx/vision_model.onnx" in outcome.out
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_export_says_that_there_is_no_data_to_compare_on(cli, merged):
    text = (merged.path / "recipe.yaml").read_text()
    (root,) = (line for line in text.splitlines() if line.strip().startswith("root:"))
    (merged.path / "recipe.yaml").write_text(text.replace(root, "  root: moved-away"))
    outcome = cli("export", "--dry-run")
    assert outcome.code == 4
    assert "moved-away" in outcome.err
    assert "--no-verify" in outcome.err
    assert cli("export", "--dry-run", "--no-verify").code == 0


def test_resume_of_a_finished_run_is_a_no_op(cli, trained):
    before = trained.adapter.stat().st_mtime_ns
    outcome = cli("train", "--resume")
    assert outcome.code == 0
    assert "has finished training already" in outcome.err
    assert trained.adapter.stat().st_mtime_ns == before
    assert cli("train", "--resume", f"runs/{trained.name}").code == 0
    assert cli("train", "--resume", trained.name, "seed=1").code == 2


def test_recipes_list_show_copy(cli, tmp_path):
    outcome = cli("recipes")
    for name in shipped():
        assert name in outcome.out
    # The first line names the schema by a path from where the recipe ships.
    text = shipped()["emoji"].read_text().split("\n", 1)[1]
    assert cli("recipes", "show", "emoji").out == text
    assert cli("recipes", "copy", "emoji").code == 0
    assert (tmp_path / "emoji.yaml").read_text() == text
    assert cli("recipes", "copy", "emoji").code == 2
    assert cli("recipes", "copy", "emojy").code == 2


def test_runs_lists_and_survives_a_damaged_one(cli, trained, tmp_path):
    bad = tmp_path / "runs" / "bad-20200101T000000Z-000000"
    bad.mkdir()
    (bad / "recipe.yaml").write_text("name: [")
    (trained.path / "eval").mkdir()
    for name, content in (("a", "[]"), ("b", '{"models": []}'), ("c", '{"models": {"alpha": 1}}')):
        (trained.path / "eval" / f"{name}.json").write_text(content)
    folder = trained.path / "merged" / "alpha-0.50"
    folder.mkdir(parents=True)
    (folder / "merged.json").write_text("{}")
    (folder.parent / "current").write_text("alpha-0.50")
    rows = {row["name"]: row for row in json.loads(cli("runs", "--json").out)["runs"]}
    assert rows[trained.name]["state"] == "trained"
    assert rows[bad.name]["state"].startswith("damaged")


def test_info_says_what_really_loads(cli):
    facts = json.loads(cli("info", "--json").out)
    assert facts["runtimes"]["torch"] == "loads"
    assert "CPUExecutionProvider" in facts["runtimes"]["onnx"]
    assert "TensorRT" in facts["runtimes"]
    if sys.platform == "linux":
        assert "builds engines" in facts["runtimes"]["TensorRT-RTX"]
    assert "emoji-shifts" in facts["suites"]
    assert "emoji" in facts["recipes"]
    assert facts["versions"]["radapter"]
    assert cli("info").code == 0


def test_info_names_the_library_that_cuda_lacks(cli, monkeypatch):
    import onnxruntime

    from radapter.runtimes import onnx

    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("Failed"), raising=False)
    for missing, said in (("libcurand.so.10: none", "does not load: libcurand"), ("", "loads")):
        monkeypatch.setattr(onnx, "missing_library", lambda *_, missing=missing: missing)
        found = json.loads(cli("info", "--json").out)["runtimes"]["onnx-cuda"]
        assert found.startswith(said)


def test_version(cli):
    import radapter

    outcome = cli("--version")
    assert outcome.code == 0
    assert outcome.out.startswith(f"radapter {radapter.__version__}\ntorch ")


def test_help_is_quick_and_loads_no_torch():
    code = (
        "import sys; sys.argv = ['radapter', '--help']\n"
        "from radapter_cli.main import run\n"
        "try: run()\n"
        "except SystemExit: pass\n"
        "heavy = [m for m in ('torch', 'open_clip', 'onnx', 'pydantic') if m in sys.modules]\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)\n"
    )
    seconds = {code: [], "import typer, rich.console, rich.table": []}
    for of in [*seconds] * 3:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", of], capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Processor time: a busy machine is not our slowness.
        seconds[of].append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
        assert done.returncode == 0, done.stderr
        assert ("Usage" in done.stdout) == (of == code)
    own, least = map(min, seconds.values())  # beside the packages that any such command needs
    assert own < 5 * least


@pytest.mark.parametrize("arguments", [["--help"], ["recipes"], ["recipes", "--json"]])
def test_a_reader_that_goes_away_is_no_error(arguments):
    """As `radapter recipes | true`: the code of any other program, and not a word."""
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run(
        [sys.executable, "-m", "radapter_cli", *arguments],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(write)
    assert process.returncode == 141
    assert process.stderr == ""


def test_warnings_of_libraries_are_not_ours_wherever_radapter_lies(capfd, monkeypatch):
    import warnings

    from radapter_cli import console

    with console.plain_warnings():
        for filename in ("/home/me/radapter/.venv/lib/torch/x.py", merging.__file__):
            warnings.warn_explicit(f"from {filename}", UserWarning, filename, 1)
    assert "torch" not in (printed := capfd.readouterr().err)
    assert "merging/__init__.py" in printed.replace("\n", "")


@pytest.mark.parametrize(
    "command",
    ["train", "merge", "export", "eval", "predict", "embed", "search", "demo", "runs", "compare",
     "info"],
)  # fmt: skip
def test_every_command_has_help(cli, command):
    outcome = cli(command, "--help")
    assert outcome.code == 0
    assert "Usage" in outcome.out


def test_completion_knows_recipes():
    from radapter_cli.eval import complete_suite
    from radapter_cli.train import complete_recipe

    assert "emoji" in complete_recipe("em")
    assert complete_suite("emoji-sh") == ["emoji-shifts"]


def test_merged_model_loads_in_open_clip(cli, merged):
    import open_clip

    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{merged.merged()}")
    assert models.weights_hash(model.state_dict()) == models.load(merged.merged()).weights_hash


@pytest.mark.skipif(sys.platform != "linux", reason="TensorRT-RTX: tested on Linux")
def test_export_with_engines(cli, exported):
    run = Run(exported.parents[1])
    outcome = cli("export", "--trt", "--trt-flavour", "rtx", "--dry-run")
    assert "tensorrt/vision_model.rtx.engine" in outcome.out
    assert not (exported / "tensorrt").exists()
    arguments = ("export", "--trt", "--trt-flavour", "rtx", "--trt-gpu", "sm86")
    outcome = cli(*arguments, "--json")
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert result["built"] == ["tensorrt/text_model.rtx.engine", "tensorrt/vision_model.rtx.engine"]
    assert not result["written"]
    vision = result["manifest"]["engines"][1]
    assert vision["target_gpus"] == ["8.6"]
    assert vision["profile"]["pixel_values"]["max"][0] == run.recipe().export.max_batch
    assert cli(*arguments).out.startswith("Up to date")
    outcome = cli("export", "--trt", "--trt-gpu", "8.6", "--trt-gpu", "8.9", "--trt-flavour", "rtx")
    assert "for compute capability 8.6, 8.9; not run" in outcome.out
    # without --trt, engines stay where the ONNX files are up to date
    assert cli("export").out.startswith("Up to date")
    assert (exported / "tensorrt" / "vision_model.rtx.engine").is_file()
    assert cli("eval", "--runtime", "onnx").code == 0
    if not torch.cuda.is_available():  # built, but nothing here runs them
        outcome = cli("eval", "--runtime", "tensorrt")
        assert outcome.code == 5
        assert "No NVIDIA driver" in outcome.err
        outcome = cli("eval", "--runtime", "all", "--json")
        assert outcome.code == 0, outcome.err
        assert "tensorrt does not run here: No NVIDIA driver" in outcome.err
        assert "onnx: run by CPUExecutionProvider" in outcome.err
        (scored,) = json.loads(outcome.out)["results"]
        assert list(scored["models"]) == ["zero-shot", "alpha 0.50", "onnx"]
        assert [verdict["label"] for verdict in scored["parity"]] == ["onnx"]


def test_engines_that_are_not_there(cli, exported):
    outcome = cli("eval", "--runtime", "tensorrt")
    assert outcome.code == 4
    assert "Type first: radapter export --trt" in outcome.err
    outcome = cli("eval", "--runtime", "onnx-cuda")
    assert outcome.code == 5
    assert "CUDAExecutionProvider" in outcome.err

"""Bad input: one short, exact message, the documented exit code, nothing half-written."""

import errno
import json
import os
import sys
import tarfile

import pytest
import torch

from radapter.run import Run


def leftovers(folder):
    return [p for p in folder.rglob("*") if p.name.endswith((".tmp", ".old"))]


def check(outcome, code, *parts):
    assert outcome.code == code, outcome.err
    for part in parts:
        assert part in outcome.err
    assert "Traceback" not in outcome.err
    assert len(outcome.err.strip().splitlines()) <= 6
    assert outcome.out == ""


def test_missing_recipe(cli):
    check(cli("train", "no-such.yaml"), 2, "Recipe not found: no-such.yaml")
    check(cli("train", "emojy"), 2, "Did you mean 'emoji'?")
    check(cli("train"), 2, "radapter train RECIPE")


def test_empty_recipe(cli, tmp_path):
    (tmp_path / "r.yaml").write_text("")
    check(cli("train", "r.yaml"), 2, "r.yaml: the file is empty")


def test_every_error_of_a_recipe_at_once(cli, recipe_file):
    text = recipe_file.read_text().replace("lr: 1e-2", "lr: fast").replace("seed: 3", "sead: 3")
    recipe_file.write_text(text)
    check(
        cli("train", "tiny.yaml"),
        2,
        "tiny.yaml:11:16: optimisation.lr: input should be a valid number",
        "tiny.yaml:13:1: unknown key 'sead'; did you mean 'seed'?",
    )


def test_duplicate_key(cli, recipe_file):
    recipe_file.write_text(recipe_file.read_text() + "seed: 4\n")
    check(cli("train", "tiny.yaml"), 2, "tiny.yaml:14:1", "duplicate key")


def test_unknown_model_method_and_suite(cli, recipe_file, merged):
    check(
        cli("train", "tiny.yaml", "model=ViT-B-61:openai"),
        2,
        "Unknown model 'ViT-B-61'. Did you mean 'ViT-B-16'?",
    )
    check(cli("train", "tiny.yaml", "model=ViT-B-16:openia"), 2, "Did you mean 'openai'?")
    check(cli("train", "tiny.yaml", "method.name=r-adaptor"), 2, "did you mean 'r-adapter'?")
    check(cli("train", "tiny.yaml", "suites=[emoji-shift]"), 2, "Did you mean 'emoji-shifts'?")
    check(cli("eval", "--suite", "emoji-shift"), 2, "Did you mean 'emoji-shifts'?")
    assert not (recipe_file.parent / "runs").exists() or len(list(runs(recipe_file.parent))) == 1


def test_what_is_misspelt_is_named_before_anything_else(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no run here
    check(cli("eval", "--suite", "emoji-shift"), 2, "Did you mean 'emoji-shifts'?")
    outcome = cli("bench", "--precision", "fp31")
    check(outcome, 2, "'fp31' is not one of")
    assert "Value error" not in outcome.err


def runs(folder):
    return (folder / "runs").iterdir()


def test_alpha_that_is_no_number(cli, trained):
    check(
        cli("merge", "--alpha", "half"),
        2,
        "--alpha takes a finite number, `image=0.4,text=0.7`, `auto` or",
        "found 'half'",
    )
    for text in ("nan", "=0.5", "image=0.4", "image=0.4,text=0.7,image=0.9"):
        check(cli("merge", "--alpha", text), 2, "finite", f"found '{text}'")
    assert not (trained.path / "merged").exists()


def test_unknown_command_and_option(cli):
    outcome = cli("marge")
    assert outcome.code == 2
    assert "merge" in outcome.err
    assert cli("merge", "--alfa", "1").code == 2


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("eval --suite emoji-shift", "Did you mean 'emoji-shifts'?"),
        ("eval --suite retrieval --without flickr", "no data set 'flickr'. Did you mean"),
        ("eval --suite retrieval --protocol coco=clip", "coco has no protocol 'clip'"),
        ("eval --tolerance int8.cos=0.9", "--tolerance takes PRECISION.NAME=VALUE"),
        ("eval --runtime onx", "'onx' is not one of"),
        ("eval --alphas 0:1", "--alphas takes FROM:TO:STEP"),
        ("eval --suite retrieval --model ViT-B-61:openai", "Did you mean 'ViT-B-16'?"),
        ("eval --data nowhere --model ViT-B-16:opnai", "Did you mean 'openai'?"),
        ("merge --alpha nan", "--alpha takes a finite number"),
        ("export --tolerance fp16.cos=1", "--tolerance takes PRECISION.NAME=VALUE"),
        ("export --trt-gpu 8.6", "--trt-... options go with --trt"),
        ("export --trt --trt-gpu eight", "'eight' is not a compute capability"),
        ("bench --runtime onx", "Did you mean 'onnx'?"),
        ("compare nothing --out a.xls", "found 'a.xls'"),
        ("data check emoji-shift", "Did you mean 'emoji-shifts'?"),
        ("recipes copy emojy", "Did you mean 'emoji'?"),
        ("train imagenet-vit-b-16 model=ViT-B-61:openai", "Did you mean 'ViT-B-16'?"),
        ("train imagenet-vit-b-16 suites=[imagenet-shift]", "Did you mean 'imagenet-shifts'?"),
    ],
)
def test_what_is_mistyped_is_said_before_what_is_missing_on_disk(cli, command, message):
    outcome = cli(*command.split())
    assert outcome.code == 2
    assert message in outcome.err


def test_a_corrupt_picture_in_training(cli, tiny_folder, tmp_path):
    import tiny

    root = tiny.draw_shapes(tmp_path / "pictures", each=3)
    (root / "red_square" / "02.png").write_bytes(b"no picture")
    (tmp_path / "r.yaml").write_text(tiny.text(tiny_folder, root))
    check(cli("train", "r.yaml"), 4, "red_square/02.png", "data.broken_images allows 0")
    outcome = cli("train", "r.yaml", "data.broken_images=1")
    assert outcome.code == 0
    assert "skipped: Picture cannot be read" in outcome.err


def test_a_corrupt_picture_in_evaluation(cli, merged, tmp_path):
    import tiny

    root = tiny.draw_shapes(tmp_path / "pictures", each=2)
    (root / "red_square" / "01.png").write_bytes(b"no picture")
    (tmp_path / "mine.yaml").write_text(
        "name: mine\ntasks: [classification]\ndatasets:\n"
        f"  - {{name: a, role: shifted, data: {{source: folder, root: {root}, split: all}}}}\n"
    )
    check(cli("eval", "--suite", "mine.yaml"), 4, "red_square/01.png")
    assert not merged.evaluations.exists()


@pytest.mark.parametrize("damage", ["truncated", "corrupt", "pickle"])
def test_a_damaged_adapter(cli, trained, damage):
    whole = trained.adapter.read_bytes()
    if damage == "truncated":
        trained.adapter.write_bytes(whole[:-5])
    elif damage == "corrupt":
        trained.adapter.write_bytes(b"\xff" * 64 + whole[64:])
    else:
        torch.save({"x": torch.ones(1)}, trained.adapter)
    word = "pickle" if damage == "pickle" else "damaged"
    check(cli("merge"), 4, "adapter.safetensors", word)
    assert not (trained.path / "merged" / "current").exists()


def test_a_pickle_offered_as_a_model(cli, recipe_file, tiny_folder, tmp_path):
    import shutil

    folder = shutil.copytree(tiny_folder, tmp_path / "evil")
    torch.save({"x": torch.ones(1)}, folder / "open_clip_model.safetensors")
    check(cli("train", "tiny.yaml", f"model={folder}"), 4, "is a pickle")


def test_a_shard_that_holds_a_pickle(cli, recipe_file, tmp_path):
    (tmp_path / "x.pkl").write_bytes(b"\x80\x04.")
    with tarfile.open(tmp_path / "s.tar", "w") as shard:
        shard.add(tmp_path / "x.pkl", "0001.pkl")
    text = recipe_file.read_text()
    start, end = text.index("data:"), text.index("objective:")
    data = f"data: {{source: shards, shards: {tmp_path}/s.tar, task: captions}}\n"
    recipe_file.write_text(text[:start] + data + text[end:])
    check(cli("train", "tiny.yaml"), 4, "s.tar holds a pickle (0001.pkl)")
    check(
        cli("train", "tiny.yaml", "data.shards=pipe:touch hacked"),
        2,
        "only local tar files are read",
    )
    assert not (tmp_path / "hacked").exists()


def test_no_run_at_all(cli):
    for command in ("merge", "export", "eval"):
        check(cli(command), 4, "No run in runs/", "radapter train")
    check(cli("train", "--resume"), 4, "No run in runs/")
    check(cli("merge", "--run", "nothing"), 4, "No run at nothing")


def test_a_run_that_was_never_merged(cli, trained):
    for command in ("export", "eval"):
        check(cli(command), 4, "has no merged model", f"radapter merge --run runs/{trained.name}")


def test_a_run_that_was_never_exported(cli, merged):
    outcome = cli("eval", "--runtime", "onnx")
    check(outcome, 4, "has no exported bundle", f"radapter export --run runs/{merged.name}")


def test_an_unfinished_run_is_not_passed_over(cli, merged, tmp_path):
    newer = Run(tmp_path / "runs" / "tiny-20990101T000000Z-ffffff")
    newer.path.mkdir()
    (newer.path / "recipe.yaml").write_bytes((merged.path / "recipe.yaml").read_bytes())
    check(cli("merge"), 4, newer.name, "radapter train --resume")
    check(cli("eval"), 4, newer.name)


def test_trt_says_what_to_install(cli, merged, monkeypatch):
    from radapter.runtimes.trt import flavours

    monkeypatch.setattr(flavours, "find_spec", lambda name: None)
    check(cli("export", "--trt"), 5, 'pip install "radapter[trt-rtx]"')
    check(cli("export", "--trt", "--trt-flavour", "tensorrt"), 5, 'pip install "radapter[trt]"')
    assert not (merged.path / "bundles").exists()


def test_trt_options_go_with_trt(cli, merged):
    check(cli("export", "--trt-gpu", "8.6"), 2, "go with --trt")
    check(cli("export", "--trt", "--trt-flavour", "lite"), 2, "rtx")


@pytest.mark.skipif(sys.platform != "linux", reason="TensorRT-RTX: tested on Linux")
def test_a_gpu_that_trt_does_not_build_for(cli, merged):
    outcome = cli("export", "--trt", "--trt-flavour", "rtx", "--trt-gpu", "9.0")
    check(outcome, 2, "compute capability 9.0", "--trt-flavour tensorrt")
    assert not (merged.path / "bundles").exists()


def test_texts_cut_longer_than_the_model_takes(cli, recipe_file):
    check(cli("train", "tiny.yaml", "data.text_length=78"), 2, "context length", "is 77")


def test_a_suite_cannot_write_outside_of_the_run(cli, merged, shapes, tmp_path):
    one = f"{{name: a, role: shifted, data: {{source: folder, root: {shapes}, split: all}}}}"
    text = f"name: ../../evil\ntasks: [classification]\ndatasets: [{one}, {one}]\n"
    (tmp_path / "mine.yaml").write_text(text)
    check(cli("eval", "--suite", "mine.yaml"), 2, "mine.yaml:1:1: name")
    (tmp_path / "mine.yaml").write_text(text.replace("../../evil", "mine"))
    check(cli("eval", "--suite", "mine.yaml"), 2, "two data sets are called 'a'")
    assert not merged.evaluations.exists()


@pytest.mark.slow
def test_a_precision_that_is_not_known(cli, merged):
    assert cli("export").code == 0
    (path,) = merged.path.glob("bundles/*/manifest.json")
    path.write_text(path.read_text().replace('    "fp32"\n', '    "fp4"\n'))
    check(cli("eval"), 4, "precisions", "Export the bundle again")


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.slow
def test_a_full_disk_names_the_file(cli, merged, monkeypatch):
    monkeypatch.setattr(os, "fsync", full)
    check(cli("export"), 4, "No space left on device: ", "bundles")
    assert not leftovers(merged.path)


def test_numbers_are_printed_where_the_disk_is_full(cli, merged, monkeypatch):
    monkeypatch.setattr(os, "fsync", full)
    outcome = cli("eval")
    assert outcome.code == 4
    assert "held-out-alpha-0.50.json: No space left on device" in outcome.err
    assert "class accuracy" in outcome.out
    assert not leftovers(merged.path)
    assert not [path for path in merged.evaluations.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("number", "text"), [(errno.ENOSPC, "No space left"), (errno.EROFS, "Read-only file system")]
)
def test_a_full_or_read_only_disk(cli, trained, recipe_file, monkeypatch, number, text):
    merged_before = sorted(p.name for p in trained.path.iterdir())

    def fail(*_, **__):
        raise OSError(number, os.strerror(number), "somewhere")

    monkeypatch.setattr(os, "fsync", fail)
    check(cli("merge"), 4, text, "somewhere")
    assert not (trained.path / "merged" / "current").exists()
    check(cli("train", "tiny.yaml"), 4, text)
    assert not leftovers(trained.path.parent)
    # An empty `merged` may stay, and the lock file.
    extra = {p.name for p in trained.path.iterdir()} - set(merged_before)
    assert extra <= {"merged", ".lock"}


def test_a_device_that_is_not_there(cli, recipe_file):
    if torch.cuda.is_available():
        pytest.skip("this machine has the device")
    check(cli("train", "tiny.yaml", "device=cuda"), 5, "torch finds no CUDA device. Add device=cpu")


def test_json_reports_errors_too(cli):
    outcome = cli("merge", "--json")
    assert outcome.code == 4
    content = json.loads(outcome.out)
    assert content["ok"] is False
    assert content["error"]["code"] == 4
    assert "No run" in content["error"]["message"]


def test_a_bug_is_exit_1_and_debug_shows_where(cli, trained, monkeypatch):
    from radapter import merging

    monkeypatch.setattr(merging, "open_trained", lambda run, which: 1 / 0)
    outcome = cli("merge")
    assert outcome.code == 1
    assert "A bug in radapter: ZeroDivisionError" in outcome.err
    assert "Traceback" not in outcome.err
    assert "Traceback" in cli("--debug", "merge").err


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_anywhere(cli, trained, monkeypatch, as_json):
    from radapter import merging

    def interrupt(run, which):
        raise KeyboardInterrupt

    monkeypatch.setattr(merging, "open_trained", interrupt)
    outcome = cli("merge", *(["--json"] if as_json else []))
    assert outcome.code == 130
    if as_json:
        assert json.loads(outcome.out)["error"] == {"code": 130, "message": "Interrupted."}
    else:
        assert outcome.err.strip().endswith("Interrupted.")


def test_a_second_writer_is_refused(cli, trained):
    with trained.lock():
        check(cli("merge"), 4, "is being written by another process")


def test_weights_that_cannot_be_fetched(cli, monkeypatch, shapes):
    def refuse(*_args, **_kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "empty")
    outcome = cli("predict", shapes, "--model", "ViT-B-16:openai")
    assert outcome.code == 4
    assert "timm/vit_base_patch16_clip_224.openai" in " ".join(outcome.err.split())
    assert not outcome.out

"""Every shipped recipe on a miniature of its data: the dry run, then one epoch."""

import json
import shutil

import coop_tree
import imagenet_tree
import pytest
import trees
import video_trees

from radapter import recipe as recipes
from radapter.run import Run
from radapter.training import planning


def imagenet(root, shapes):
    imagenet_tree.fill(root / "imagenet" / "train", "train", [0, 10, 100], each=20)


def coop(root, shapes):
    coop_tree.fill(root, recipes.load(recipes.shipped()["few-shot"]).data.dataset)
    coop_tree.fill(root, recipes.load(recipes.shipped()["base-to-novel"]).data.dataset)


def own_data(root, shapes):
    shutil.copytree(shapes, root / "my-data")


def listed_videos(root, shapes, *lists):
    for name in lists:
        rows = []
        for number in range(6):  # folders of frames
            clip = f"{name}-{number}"
            shutil.copytree(shapes / "red_square", root / "videos" / clip)
            rows.append(f"{clip},clip {number}")
        table = root / f"{name}.csv"
        table.write_text("\n".join(["video,caption", *rows]), encoding="utf-8")


def fitclip(root, shapes):
    listed_videos(root / "fitclip", shapes, "labelled", "unlabelled", "validation")


def m2_raap(root, shapes):
    listed_videos(root / "m2-raap", shapes, "captions", "validation")


def domainnet(root, shapes):
    trees.domains(root)
    for domain in ("clipart", "infograph", "painting", "quickdraw"):
        shutil.copytree(root / "DomainNet" / "sketch", root / "DomainNet" / domain)


def built_in(root, shapes):
    """These pictures come with radapter."""


PENALTIES = ("retention", "l2-sp", "car-ft", "lipsum-ft", "fd-align", "carot")
HEADS = ("clip-adapter", "tip-adapter", "tip-adapter-f", "xmadapter")
NOTHING_TRAINED = ("tip-adapter", "tip-adapter-icons")
TREES = {
    "base-to-novel": coop,
    "coco": lambda root, shapes: trees.coco(root / "coco"),
    "emoji": built_in,
    "emoji-retrieval": built_in,
    "emoji-ucdr": built_in,
    "emoji-video": built_in,
    "gru-moving-emoji": built_in,
    "mv-adapter-moving-emoji": built_in,
    "mv-adapter-msr-vtt": lambda root, shapes: video_trees.msr_vtt(root / "msr-vtt"),
    "m2-raap": m2_raap,
    "stan-moving-emoji": built_in,
    "stan-msr-vtt": lambda root, shapes: video_trees.msr_vtt(root / "msr-vtt"),
    "msr-vtt": lambda root, shapes: video_trees.msr_vtt(root / "msr-vtt"),
    "few-shot": coop,
    "fitclip": fitclip,
    "icons-demo": built_in,
    "fitclip-icons": built_in,
    "icons": built_in,
    "icons-16shot": built_in,
    "icons-base-to-novel": built_in,
    "icons-retrieval": built_in,
    "icons-ucdr": built_in,
    "ucdr-prompts-icons": built_in,
    "ucdr-adapter-icons": built_in,
    "ucdr-prompts-emoji": built_in,
    "ucdr-adapter-emoji": built_in,
    "ucdr-prompts-domainnet": domainnet,
    "ucdr-adapter-domainnet": domainnet,
    "flyp-icons": built_in,
    "flickr30k": lambda root, shapes: trees.flickr30k(root / "flickr30k"),
    "imagenet-16shot": imagenet,
    "imagenet-16shot-tip-adapter-f": imagenet,
    "imagenet-vit-b-16": imagenet,
    "imagenet-vit-b-16-release": imagenet,
    "imagenet-vit-b-16-flyp": imagenet,
    "imagenet-vit-b-32": imagenet,
    "imagenet-vit-b-32-wise-ft": imagenet,
    "imagenet-vit-l-14-336": imagenet,
    "last-blocks-icons": built_in,
    "linear-probe-icons": built_in,
    "lincir-emoji": built_in,
    "lincir-vit-l-14": lambda root, shapes: trees.coco(root / "coco"),
    "mota-emoji": built_in,
    "lp-ft-icons": built_in,
    "regions-icons": built_in,
    "own-data": own_data,
    "pretrain/pictogram-clip": lambda root, shapes: trees.drawings(root / "drawings"),
    "ftp-icons": built_in,
    "spd-icons": built_in,
    "uniadapter-coco": lambda root, shapes: trees.coco(root / "coco"),
    "uniadapter-flickr30k": lambda root, shapes: trees.flickr30k(root / "flickr30k"),
    "uniadapter-coca-coco": lambda root, shapes: trees.coco(root / "coco"),
    "uniadapter-coca-flickr30k": lambda root, shapes: trees.flickr30k(root / "flickr30k"),
    "uniadapter-icons": built_in,
    "multiway-coco": lambda root, shapes: trees.coco(root / "coco"),
    "multiway-flickr30k": lambda root, shapes: trees.flickr30k(root / "flickr30k"),
    "multiway-icons": built_in,
    "wise-ft-icons": built_in,
    **dict.fromkeys([f"{term}-icons" for term in PENALTIES], built_in),
    **dict.fromkeys([f"{head}-icons" for head in HEADS], built_in),
    **dict.fromkeys(HEADS, coop),
}
"""The miniature of each recipe's data under its data root. A new recipe gets a line here."""


def test_every_recipe_has_a_miniature():
    assert set(TREES) == set(recipes.shipped())


FEWER = {
    "pretrain/pictogram-clip": ["data.held_out_families=[ink]"],
    "lp-ft-icons": ["start=null"],
    "emoji-video": ["data.split=test"],
    "regions-icons": ["data.scenes.pictures=40"],
    "gru-moving-emoji": ["data.concepts=4"],
    "mv-adapter-moving-emoji": ["data.concepts=4"],
    "stan-moving-emoji": ["data.concepts=4", "method.depth=2"],
    "stan-msr-vtt": ["method.depth=2"],
    "m2-raap": ["method.depth=2"],
    # Their own 80 templates are in the test of tests/cli/test_data.py.
    **{
        name: ['data.templates=["a {}."]']
        for name in recipes.shipped()
        if name.startswith("imagenet-")
    },
}
"""Not all of the built-in set, for time; no more blocks than the tiny model has; and nothing that
has to be trained first"""
BEFORE = {
    "mota-emoji": "lincir-emoji",
    "ucdr-adapter-icons": "ucdr-prompts-icons",
    "ucdr-adapter-emoji": "ucdr-prompts-emoji",
    "ucdr-adapter-domainnet": "ucdr-prompts-domainnet",
}
"""What has to be"""


@pytest.mark.parametrize("name", recipes.shipped())
def test_a_recipe_passes_the_dry_run_and_trains_for_an_epoch(
    cli, tiny_folder, coca_folder, shapes, tmp_path, name
):
    root = tmp_path / "data"
    TREES[name](root, shapes)
    with_decoder = recipes.load(recipes.shipped()[name]).model.startswith("coca")
    model = coca_folder if with_decoder else tiny_folder
    small = [f"model={model}", "device=cpu", "workers=0", "precision=fp32"]
    small += [*FEWER.get(name, []), "--data-root", root]
    runs, before = tmp_path / "runs", []
    if name in BEFORE:
        assert cli("train", BEFORE[name], "optimisation.epochs=1", *small).code == 0
        before = list(runs.iterdir())
        small.insert(0, f"start={before[0]}")
    outcome = cli("train", name, "--dry-run", "--json", *small)
    assert outcome.code == 0, outcome.err
    plan = json.loads(outcome.out)["plan"]
    trained = name not in NOTHING_TRAINED
    assert plan["pictures"] > 0
    assert (plan["steps"] > 0) == (plan["trainable"] > 0) == trained
    assert (list(runs.iterdir()) if runs.exists() else []) == before
    outcome = cli("train", name, "optimisation.epochs=1", *small)
    assert outcome.code == 0, outcome.err
    (path,) = set(runs.iterdir()) - {*before}
    run = Run(path)
    assert run.trained().is_file()
    if not trained:
        assert run.logged("loss") == []
        return
    last = json.loads(run.metrics.read_text().splitlines()[-1])
    in_a_batch = min(plan["pairs"], run.recipe().in_a_batch()[0])
    assert last["step"] == max(1, plan["pairs"] // in_a_batch)


def test_the_dry_run_says_what_a_step_takes(cli, recipe_file):
    outcome = cli("train", recipe_file, "--dry-run")
    assert outcome.code == 0, outcome.err
    assert "A step takes about 0.0 GiB with its activations, an estimate: weights" in outcome.out
    assert "That fits this machine" in outcome.out


def test_the_dry_run_says_why_there_is_no_estimate(cli, recipe_file, monkeypatch):
    def fail(*_):
        raise RuntimeError("Cannot access data of a fake tensor.\nMore of it.")

    monkeypatch.setattr(planning, "fit", fail)
    outcome = cli("train", recipe_file, "--dry-run")
    assert outcome.code == 0, outcome.err
    assert "could not be estimated: Cannot access data of a fake tensor.\n" in outcome.out
    plan = json.loads(cli("train", recipe_file, "--dry-run", "--json").out)["plan"]
    assert (plan["fit"], plan["no_fit"]) == (None, "Cannot access data of a fake tensor.")


def test_the_dry_run_says_what_does_not_fit_and_what_would(cli, recipe_file):
    fit = json.loads(cli("train", recipe_file, "--dry-run", "--json").out)["plan"]["fit"]
    less = (fit["total"] - fit["memory"]["kept"] / 2) / planning.ROOM / planning.GIB
    gpu = f"gpu={{name: a small one, gigabytes: {less}}}"
    outcome = cli("train", recipe_file, "--dry-run", gpu)
    assert outcome.code == 0, outcome.err
    assert "That is too much for a small one" in outcome.out
    advice = outcome.out.strip().rpartition(" ")[2].removesuffix(".")
    assert advice.startswith("optimisation.micro_batch=")
    again = cli("train", recipe_file, "--dry-run", "--json", gpu, advice)
    assert json.loads(again.out)["plan"]["fit"]["fits"]

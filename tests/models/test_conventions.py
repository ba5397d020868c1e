"""What a bare file of weights is used with, over all architectures of open_clip."""

import json

import open_clip
import pytest
import tiny
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from safetensors.torch import save_file

from radapter import models
from radapter.errors import BrokenInput, UsageError
from radapter.export.card import portable
from radapter.models import conventions
from radapter.models.conventions import PREPROCESSING, Stated, of_file, of_tag

ALL = (*PREPROCESSING, "quick_gelu")
LAION = "laion2b_s34b_b79k"


def open_clips(architecture, tag):
    """As `open_clip.create_model` puts it together."""
    known = open_clip.get_pretrained_cfg(architecture, tag)
    whole = merge_preprocess_dict(PreprocessCfg(), known)
    config = open_clip.get_model_config(architecture)
    quick = known.get("quick_gelu") or config.get("quick_gelu")
    return {key: whole[key] for key in PREPROCESSING} | {"quick_gelu": bool(quick)}


def test_a_file_is_used_as_every_published_one_or_refused():
    taken, refused, own = 0, [], 0
    for architecture in open_clip.list_models():
        tags = open_clip.list_pretrained_tags_by_model(architecture)
        theirs = [open_clips(architecture, tag) for tag in tags]
        name = f"{architecture}:weights.pt"
        if theirs and all(each == theirs[0] for each in theirs):
            assert of_file(architecture, Stated(name)) == theirs[0], architecture
            taken += 1
            own += any(theirs[0][key] != getattr(PreprocessCfg(), key) for key in PREPROCESSING)
        else:
            with pytest.raises(UsageError, match=f"{name},like=TAG"):
                of_file(architecture, Stated(name))
            refused += [architecture] if tags else []
        for tag, expected in zip(tags, theirs, strict=True):
            assert of_tag(architecture, tag) == expected
            assert of_file(architecture, Stated(name, like=tag)) == expected
    assert taken > 100
    assert own > 50  # those that were silently given CLIP's
    known = ["ViT-B-16", "ViT-B-32", "ViT-H-14", "ViT-H-14-quickgelu", "ViT-L-14", "ViT-bigG-14"]
    assert sorted(refused) == known


def test_what_is_stated_goes_before_all():
    name = "ViT-L-14:weights.pt,like=laion2b_s32b_b82k,std=0.1/0.2/0.3,quick_gelu=true"
    found = of_file("ViT-L-14", conventions.read(name))
    assert found["mean"] == (0.5, 0.5, 0.5)
    assert found["std"] == (0.1, 0.2, 0.3)
    assert found["quick_gelu"] is True
    # enough of it makes up for tags that differ
    with pytest.raises(UsageError, match="its mean, std, quick_gelu, and the published weights"):
        of_file("ViT-L-14", Stated("ViT-L-14:weights.pt"))
    found = of_file("ViT-L-14", conventions.read("ViT-L-14:f.pt,mean=0.5,std=0.5,quick_gelu=false"))
    assert found == of_tag("ViT-L-14", "laion2b_s32b_b82k")


def test_a_name_with_quickgelu_states_the_activation():
    like = Stated("ViT-B-32-quickgelu:weights.pt", like=f"ViT-B-32:{LAION}")
    assert of_file("ViT-B-32-quickgelu", like)["quick_gelu"] is True


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ("like=opnai", "names no published weights of ViT-B-32. Known: openai"),
        ("like=ViT-S-16:openai", "names no published weights of ViT-S-16"),
        ("meen=0.5", "unknown key 'meen'. Did you mean 'mean'"),
        ("mean=0.5/0.5", "mean takes one number or three"),
        ("std=half", "std takes one number or three"),
        ("quick_gelu=yes", "quick_gelu takes true or false"),
        ("interpolation=nearest", "interpolation takes bicubic or bilinear"),
    ],
)
def test_what_cannot_be_stated(end, message, tmp_path):
    (tmp_path / "weights.pt").write_bytes(b"")
    with pytest.raises(UsageError, match=message):
        models.load(f"ViT-B-32:{tmp_path / 'weights.pt'},{end}")


@pytest.mark.parametrize("name", ["ViT-B-32:openai", "ViT-B-32:random", "pictogram-clip"])
def test_what_says_it_itself_is_not_told(name):
    with pytest.raises(UsageError, match="only a bare weights file"):
        models.load(f"{name},mean=0.5")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Weights of an architecture that open_clip knows and publishes nothing of."""
    folder = tmp_path_factory.mktemp("architecture")
    config = {"embed_dim": 16, "vision_cfg": tiny.VISION, "text_cfg": tiny.TEXT}
    (folder / "tiny-unpublished.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    save_file(tiny.build().model.state_dict(), folder / "a,b.safetensors")
    return folder / "a,b.safetensors"


def test_a_loaded_file_has_what_was_stated(file):
    with pytest.raises(UsageError, match="no weights of tiny-unpublished are published"):
        models.load(f"tiny-unpublished:{file}")
    like = "like=MobileCLIP-S1:datacompdr,resize_mode=squash"
    loaded = models.load(f"tiny-unpublished:{file},{like}")
    assert loaded.used_with == {
        "mean": [0.0] * 3,
        "std": [1.0] * 3,
        "interpolation": "bilinear",
        "resize_mode": "squash",
        "quick_gelu": False,
    }
    pixels = loaded.preprocess(tiny.Image.new("RGB", (40, 30), (255, 0, 0)))
    assert pixels.amin() == 0
    assert pixels.amax() == 1
    # it is part of what an adapter keeps, so a run does not depend on the name alone
    again = models.load(f"tiny-unpublished:{file}", of_file=loaded.used_with)
    assert again.used_with == loaded.used_with


def test_files_of_adapters_from_before_are_used_as_they_were(file):
    loaded = models.load(f"tiny-unpublished:{file}", of_file=conventions.before("tiny-unpublished"))
    assert loaded.used_with["mean"] == list(PreprocessCfg().mean)
    assert conventions.before("RN50")["quick_gelu"] is False
    assert conventions.before("RN50-quickgelu")["quick_gelu"] is True


def test_a_folder_has_to_say_its_mean(tmp_path):
    folder = tiny.write(tmp_path / "model")
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    del config["preprocess_cfg"]["std"]
    path.write_text(json.dumps(config))
    with pytest.raises(BrokenInput, match="does not say the std of pictures"):
        models.load(folder)


def test_no_path_of_this_machine_is_in_a_bundle():
    name = "ViT-L-14:/home/someone/weights.pt,like=ViT-B-32:openai,mean=0.5/0.4/0.3"
    expected = "ViT-L-14:weights.pt,like=ViT-B-32:openai,mean=0.5/0.4/0.3"
    assert portable({"base_model": name}) == {"base_model": expected}
    assert portable("/home/someone/model") == "model"
    assert portable("a, b=c") == "a, b=c"

"""DomainNet, Sketchy and TU-Berlin in their published layouts and class splits, in miniature."""

import json

import pytest
import trees

from radapter.data import open_data
from radapter.data.sources.domains import DomainsData, _published
from radapter.errors import BrokenInput, RadapterError, UsageError
from radapter.evaluation.suite import load_suite


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("domains")
    trees.domains(folder)
    return folder


def opened(folder, **settings):
    return open_data(DomainsData(source="domains", data_root=str(folder), **settings))


@pytest.mark.parametrize(
    ("dataset", "classes", "names"),
    [
        ("domainnet", "unseen", ["airplane", "bread"]),
        ("domainnet", "validation", ["cookie"]),
        ("domainnet", "seen", ["ant", "zebra"]),
        ("sketchy", "unseen", ["bat", "cow"]),
        ("tu-berlin", "unseen", ["brain", "t shirt"]),
        ("tu-berlin", "validation", ["flying bird", "pipe (for smoking)"]),
        ("tu-berlin", "seen", ["cat"]),
    ],
)
def test_classes_are_split_as_published_in_every_domain(root, dataset, classes, names):
    for domain in ("sketch", "real" if dataset == "domainnet" else "photo"):
        found = opened(root, dataset=dataset, domains=[domain], classes=classes)
        assert [name.replace("-", " ") for name in found.class_names] == names
        assert len(found) == 3 * len(names)
        assert found.read(0).mode == "RGB"


def test_the_published_lists_have_the_published_sizes():
    sizes = {k: {s: len(set(v)) for s, v in own.items()} for k, own in _published().items()}
    assert sizes["domainnet"] == {"validation": 55, "unseen": 45}
    assert sizes["sketchy, eccv-2018"] == {"unseen": 21}
    assert sizes["sketchy, random"] == {"unseen": 25}
    assert sizes["tu-berlin"] == {"validation": 20, "unseen": 30}


def test_a_tenth_of_what_is_seen_of_sketchy_is_for_validation(root):
    parts = [opened(root, dataset="sketchy", domains=["photo"], classes=classes).class_names
             for classes in ("seen", "validation")]  # fmt: skip
    assert [len(names) for names in parts] == [2, 1]
    random = {"dataset": "sketchy", "domains": ["photo"], "protocol": "random"}
    assert opened(root, **random, classes="unseen").protocol["classes"] == (
        "unseen, by the protocol random"
    )


def test_kept_pictures_are_not_trained_on(root):
    settings = {"dataset": "domainnet", "domains": ["real"], "classes": "seen"}
    trained, kept = (opened(root, **settings, part=part) for part in ("trained", "kept"))
    assert not set(trained.keys) & set(kept.keys)
    assert len(kept) == len(set(kept.labels)) == 2
    assert len(trained) == 4


def test_colours_are_inverted_if_that_is_asked_for(root):
    plain, other = (opened(root, dataset="domainnet", domains=["sketch"], inverted=inverted)
                    for inverted in (False, True))  # fmt: skip
    assert [255 - c for c in plain.read(0).getpixel((1, 1))] == list(other.read(0).getpixel((1, 1)))
    assert other.protocol["colours"] == "inverted"


def test_colours_of_some_domains_are_inverted(root):
    domains = ["real", "sketch"]
    plain, other = (opened(root, dataset="domainnet", domains=domains, inverted=inverted)
                    for inverted in (False, ["sketch", "quickdraw"]))  # fmt: skip
    for number, key in enumerate(plain.keys):
        given, found = (d.read(number).getpixel((1, 1)) for d in (plain, other))
        is_sketch = key.startswith("sketch/")
        assert list(found) == [255 - c if is_sketch else c for c in given], key
    last = len(plain) - 1
    assert other.select([last]).read(0).tobytes() == other.read(last).tobytes()
    assert other.protocol["colours"] == "inverted of sketch"
    assert (
        "colours"
        not in opened(root, dataset="domainnet", domains=["real"], inverted=["sketch"]).protocol
    )
    with pytest.raises(UsageError, match="has no domain 'scetch'. Did you mean 'sketch'"):
        opened(root, dataset="domainnet", domains=["real"], inverted=["scetch"])


def test_a_tree_of_ones_own_has_a_split_file(root):
    settings = {"root": "DomainNet", "domains": ["sketch"], "split_file": "split.json"}
    (root / "split.json").write_text(json.dumps({"unseen": ["ant"], "validation": ["bread"]}))
    assert opened(root, **settings, classes="unseen").class_names == ["ant"]
    assert opened(root, **settings, classes="seen").class_names == ["airplane", "cookie", "zebra"]
    (root / "split.json").write_text(json.dumps({"unseen": ["aunt"]}))
    with pytest.raises(
        UsageError, match=r"names a class that .* has not: 'aunt'. Did you mean 'ant'"
    ):
        opened(root, **settings, classes="unseen")
    for wrong in ("[]", '{"seen": ["ant"]}', '{"unseen": [1]}'):
        (root / "split.json").write_text(wrong)
        with pytest.raises(BrokenInput, match="split"):
            opened(root, **settings, classes="unseen")


def test_what_is_missing_is_named(root):
    with pytest.raises(UsageError, match="domainnet has no domain 'scetch'. Did you mean 'sketch'"):
        opened(root, dataset="domainnet", domains=["scetch"])
    with pytest.raises(RadapterError, match="has no domain 'clipart': no folder clipart"):
        opened(root, dataset="domainnet", domains=["clipart"])
    for wrong in ({}, {"root": "a", "classes": "seen"}, {"dataset": "sketchy", "split_file": "x"}):
        with pytest.raises(ValueError, match="dataset"):
            DomainsData(source="domains", domains=["a"], **wrong)


def test_the_suite_opens_what_is_there(root):
    suite = load_suite("ucdr")
    absent = ("clipart", "infograph", "painting", "quickdraw")
    suite = suite.without(
        [f"domainnet-{name}{more}" for name in absent for more in ("", "-generalised")]
    )
    datasets = [
        d.with_data([of.model_copy(update={"data_root": str(root)}) for of in d.all_data()])
        for d in suite.datasets
    ]
    opened = suite.model_copy(update={"datasets": datasets}).open()
    found = {name: tasks["picture-retrieval"] for name, tasks in opened.items()}
    sizes = {name: (d.searched.count(1), d.searched.count(2)) for name, d in found.items()}
    assert sizes == {
        "domainnet-sketch": (6, 6), "domainnet-sketch-generalised": (6, 8),
        "sketchy": (6, 6), "tu-berlin": (6, 6),
    }  # fmt: skip

"""The best answers of retrieval put in order again by a matching head: against a sort of whole
matrices of scores, as the code of BLIP and UniAdapter makes them, and on the suite's miniature."""

import json

import numpy as np
import pytest
import tiny
import torch
import trees
from ranks import in_ranks, results

from radapter import distributed
from radapter.errors import UsageError
from radapter.evaluation import reranking, retrieval
from radapter.evaluation.evaluate import evaluate, protocol
from radapter.evaluation.suite import Suite, load_suite
from radapter.methods import uniadapter
from radapter.models.matching import last_tokens, match_logits, of_pictures, of_texts
from radapter.reporting.retrieval_tables import retrieval_table
from radapter.reporting.suite_tables import dataset_table
from radapter.runtimes.opened import from_loaded

WAYS = ("text_to_image", "image_to_text")


def matching_model(seed=0):
    """A tiny CoCa whose matching head says something."""
    loaded = tiny.build(**tiny.COCA, seed=seed)
    torch.manual_seed(3)
    attached = uniadapter.attach(loaded.model, rank=4, scale=1.0, multimodal=True)
    with torch.no_grad():
        for name, parameter in attached.trained.items():
            size = 2.0 if name == "matching.weight" else 0.2
            parameter.add_(size * torch.randn_like(parameter))
    loaded.model.eval().requires_grad_(False)
    return loaded


@pytest.fixture(scope="module")
def loaded():
    return matching_model()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    trees.distinct_captions(trees.coco(root / "coco"), "A man riding a wave.")
    trees.distinct_captions(trees.flickr30k(root / "flickr30k"))
    return root


def suite_of(root, top=None, **more):
    """The shipped suite on the miniature; `top` of each query are put in order again."""
    suite = load_suite("retrieval")
    datasets = []
    for d in suite.datasets:
        rerank = d.match.rerank.model_copy(update={"top": top or d.match.rerank.top, **more})
        match = d.match.model_copy(update={"rerank": rerank})
        data = d.data.model_copy(update={"data_root": str(root)})
        datasets.append(d.model_copy(update={"match": match, "data": data}))
    return suite.model_copy(update={"datasets": datasets})


# ---------------------------------------------------------------- ranks


def sorted_ranks(similarity, logits, right, top):
    """Of a matrix that has -100 outside of the best, sorted: the place of the first right one."""
    ranks = []
    for row, scores, own in zip(similarity, logits, right, strict=True):
        found = np.full(len(row), -100.0)
        best = np.argsort(-row, kind="stable")[:top]
        found[best] = scores[best]
        order = np.argsort(-found, kind="stable").tolist()
        ranks.append(min(order.index(j) for j in own))
    return np.array(ranks)


@pytest.mark.parametrize("top", [3, 10, 30])
def test_recalls_are_those_of_a_sorted_matrix(top, monkeypatch):
    monkeypatch.setattr(reranking, "SIMILARITIES", 70)  # two queries at a time
    random = np.random.default_rng(1)
    queries, targets = (
        torch.nn.functional.normalize(torch.from_numpy(random.normal(size=(n, 6))), dim=-1)
        for n in (40, 30)
    )
    logits = torch.from_numpy(9 * random.normal(size=(40, 30)))
    right = [
        sorted(random.choice(30, n, replace=False).tolist()) for n in random.integers(1, 4, 40)
    ]
    among = reranking.best(queries, targets, top)
    order = reranking.Order(among, logits.gather(1, among))
    found = reranking.best_ranks(queries, targets, right, order).numpy()
    similarity = (queries @ targets.T).numpy()
    expected = sorted_ranks(similarity, logits.numpy(), right, top)
    inside = [bool(set(own) & set(a)) for own, a in zip(right, among.tolist(), strict=True)]
    assert (found[inside] == expected[inside]).all()
    first = retrieval.best_ranks(queries, targets, right).numpy()
    outside = ~np.array(inside)
    assert (found[outside] == first[outside]).all()  # behind the best, by cosine
    assert outside.any() == (top < 30)
    assert (found != first).any()


def test_copies_and_chosen_rows():
    """Counted copies rank as repeated targets do; a query may be named several times."""
    random = np.random.default_rng(2)
    queries, distinct = (torch.from_numpy(random.normal(size=(n, 5))) for n in (6, 8))
    copies = torch.tensor([1, 3, 1, 2, 1, 1, 4, 1])
    which = [0, 3, 3, 5, 1]
    right = [[1], [6, 6], [0], [3, 2], [7]]
    among = reranking.best(queries, distinct, 8)
    logits = torch.from_numpy(random.normal(size=(6, 8)))
    order = reranking.Order(among, logits.gather(1, among))
    found = reranking.best_ranks(queries, distinct, right, order, copies, which)
    for row, own, rank in zip(which, right, found.tolist(), strict=True):
        score = logits[row]
        best = max(score[own])
        above = sum(int(copies[j]) for j in range(8) if score[j] >= best)
        chosen = max(own, key=lambda j: float(score[j]))
        assert rank == above - own.count(chosen)


def test_every_pair_is_read_once():
    texts, pictures = torch.tensor([[0, 2], [1, 2]]), torch.tensor([[1], [1], [0]])
    pairs = reranking.pairs_of(texts, pictures)
    assert pairs.tolist() == [[0, 0], [0, 2], [1, 0], [1, 1], [1, 2]]


# ---------------------------------------------------------------- logits


def every_logit(loaded, dataset, captions):
    """Of every picture with every text [pictures, texts], the second one, by hand."""
    pixels = torch.stack([loaded.preprocess(dataset.read(i)) for i in range(len(dataset))])
    tokens = loaded.tokenizer(captions)
    with torch.no_grad():
        _, seen = of_pictures(loaded.model, pixels)
        _, read = of_texts(loaded.model, tokens)
        last = last_tokens(loaded.model, tokens)
        rows = [
            match_logits(loaded.model, picture[None].expand(len(last), -1, -1), read, last)[:, 1]
            for picture in seen
        ]
    return torch.stack(rows)


def opened(root, name="flickr30k"):
    return suite_of(root).open()[name]["retrieval"]


def test_logits_of_pairs_are_those_of_the_model(loaded, root, monkeypatch):
    monkeypatch.setattr(reranking, "PICTURES", 3)
    monkeypatch.setattr(reranking, "PAIRS", 4)
    dataset = opened(root)
    captions = [text for own in dataset.captions for text in own]
    expected = every_logit(loaded, dataset, captions)
    pairs = torch.tensor([[i, j] for i in (0, 1, 3) for j in range(i, 20, 2)])
    seen = []
    found = reranking.logits_of(
        from_loaded(loaded),
        dataset,
        captions,
        pairs,
        lambda done, total: seen.append((done, total)),
    )
    torch.testing.assert_close(found, expected[pairs[:, 0], pairs[:, 1]], rtol=1e-4, atol=1e-4)
    assert seen[-1] == (len(pairs), len(pairs))
    assert len(seen) > 5
    assert expected.std() > 0.3


def in_a_rank(root):
    with distributed.joined():
        dataset = opened(root)
        captions = [text for own in dataset.captions for text in own]
        pairs = torch.tensor([[i, j] for i in range(4) for j in range(20)])
        reranking.PICTURES = 1
        return reranking.logits_of(from_loaded(matching_model()), dataset, captions, pairs).tolist()


@pytest.mark.slow
def test_several_ranks_share_the_pairs(root):
    expected = in_a_rank(root)
    for found in results(in_ranks(3, in_a_rank, root)):
        assert found == pytest.approx(expected, abs=1e-4)


# ---------------------------------------------------------------- suites


@pytest.mark.parametrize("similarity", [0.0, 30.0])
def test_a_suite_has_both_orders(loaded, root, similarity):
    """With as many as there are: the order of all logits."""
    found = evaluate(suite_of(root, top=999, similarity=similarity), from_loaded(loaded))
    plain = evaluate(suite_of(root).without_reranking(), from_loaded(loaded))
    for name, own in found.sets.items():
        dataset = opened(root, name)
        captions = [text for texts in dataset.captions for text in texts]
        picture_of = [i for i, texts in enumerate(dataset.captions) for _ in texts]
        logits = every_logit(loaded, dataset, captions).numpy()
        keys = {key.text: feature for key, feature in found.text_features.items()}
        cosines = own.image_features @ torch.stack([keys[text] for text in captions]).T
        scores = logits + similarity * cosines.numpy()
        ways = {
            "image_to_text": (scores, [[j for j, p in enumerate(picture_of) if p == i]
                                       for i in range(len(dataset))]),
            "text_to_image": (scores.T, [[p] for p in picture_of]),
        }  # fmt: skip
        for way, (rows, right) in ways.items():
            ranks = []
            for row, mine in zip(np.round(rows, 4), right, strict=True):
                order = sorted(range(len(row)), key=lambda j, r=row, m=mine: (-r[j], j in m))
                ranks.append(min(order.index(j) for j in mine))
            for k in (1, 5, 10):
                expected = np.mean(np.array(ranks) < k)
                assert own.value(f"{way}_reranked_r{k}") == pytest.approx(expected), (name, way, k)
                assert own.value(f"{way}_r{k}") == plain.sets[name].value(f"{way}_r{k}")
        facts = found.result()["datasets"][name]["reranked"]
        distinct = len(set(captions))
        assert (facts["pairs"], facts["top"]) == (len(dataset) * distinct, 999)
        assert "of each query the 999 best by cosine are put in order" in facts["protocol"]
        (remark,) = [r for r in own.facts["remarks"] if r.startswith("re-ranked")]
        assert f"It read {len(dataset) * distinct:,} pairs" in remark
        assert "reranked" not in plain.result()["datasets"][name]
    assert any(
        own.value(f"{way}_r1") != own.value(f"{way}_reranked_r1")
        for own in found.sets.values()
        for way in WAYS
    )


def test_the_best_one_alone_stays_the_best(loaded, root):
    found = evaluate(suite_of(root, top=1), from_loaded(loaded))
    for own in found.sets.values():
        for metric in (f"{way}{{}}_r{k}" for way in WAYS for k in (1, 5, 10)):
            assert own.value(metric.format("_reranked")) == own.value(metric.format(""))


def test_a_model_without_a_matching_head_is_scored_as_before(root):
    for sizes in ({}, tiny.COCA):
        found = evaluate(suite_of(root), from_loaded(tiny.build(**sizes)))
        for own in found.sets.values():
            assert not [name for name in own.metrics if "reranked" in name]
            assert not [remark for remark in own.facts["remarks"] if "re-ranked" in remark]


def test_the_shipped_suite_has_the_published_numbers():
    suite = load_suite("retrieval")
    assert {d.name: d.match.rerank.top for d in suite.datasets} == {"flickr30k": 128, "coco": 256}
    assert all(d.match.rerank.similarity == 0 for d in suite.datasets)
    other = suite.without_reranking(named=True)
    assert other.file_name == "retrieval-no-rerank"
    assert not any(d.match.rerank for d in other.datasets)
    assert other.without_reranking(named=True).file_name == "retrieval-no-rerank"


def result_of(loaded, root):
    """As `eval` writes it: the model after one without a head."""
    suite = suite_of(root, top=5)
    base = tiny.build(**tiny.COCA)
    models = {
        label: {"kind": kind, "alpha": None} | evaluate(suite, from_loaded(own)).result()
        for label, kind, own in (("zero-shot", "zero-shot", base), ("alpha 1.00", "tuned", loaded))
    }
    known = protocol(suite, base.config["preprocess_cfg"])
    return json.loads(json.dumps({"suite": "s", "models": models, "protocol": known}))


def test_tables_show_it_under_the_model_that_has_it(loaded, root):
    result = result_of(loaded, root)
    lines = tiny.printed([retrieval_table(result, "t")], width=120)
    own = [n for n, line in enumerate(lines) if line.strip().startswith("re-ranked ")]
    assert len(own) == 2 * 3  # sets, and ways with the sum
    assert all("alpha 1.00" in lines[n - 1] for n in own)
    text = " ".join(" ".join(lines).split())
    assert "alpha 1.00, coco: re-ranked: of each query the 5 best by cosine" in text
    wide = tiny.printed([dataset_table(result, "t")], width=160)
    (title,) = [n for n, line in enumerate(wide) if "caption to picture, re-ranked R@1" in line]
    assert wide[title + 1].count("±") == 1
    assert wide[title - 1].count("±") == 2


# ---------------------------------------------------------------- what cannot be


def test_what_cannot_be_put_in_order_is_said(tmp_path):
    def described(match):
        data = {"source": "emoji-video", "split": "test"}
        datasets = [{"name": "d", "role": "seen", "data": data, "match": match}]
        return Suite.model_validate({"name": "s", "tasks": ["retrieval"], "datasets": datasets})

    with pytest.raises(ValueError, match="rerank is of pictures: leave it out"):
        described({"by": "mug", "rerank": {"top": 5}})
    with pytest.raises(UsageError, match="has clips, and `match.rerank` is of pictures"):
        described({"rerank": {"top": 5}}).open()

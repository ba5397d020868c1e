"""Published scores of tuned models: what is written of them, and where they stand in a table."""

import pytest
from tiny import printed

from radapter.evaluation.suite import load_suite, shipped_suites
from radapter.reporting.comparison import ComparedModel, Comparison, Number
from radapter.reporting.comparison_tables import to_json
from radapter.reporting.published_rows import published_tables
from radapter.reporting.table import GROUP

SUITE = load_suite("imagenet-shifts")
TPGM = {  # "Average" in its README, of ImageNet and the four shifts
    "full fine-tuning": 63.58, "zero-shot": 60.26, "WiSE-FT, alpha 0.4": 68.55,
    "WiSE-FT, alpha 0.5": 68.97, "WiSE-FT, alpha 0.6": 68.73, "WiSE-FT, alpha 0.7": 68.16,
    "TPGM": 69.27,
}  # fmt: skip
FIRST = dict.fromkeys(("run", "data", "alpha", "trained_parameters", "stored_bytes", "steps",
                       "seconds", "peak_memory_bytes", "memory_of"))  # fmt: skip


def model(base="ViT-B-32:openai", protocol="wise-ft", templates="openai", alpha=0.5):
    """A model scored on the suite, with 12.34 % on ImageNet."""
    facts = FIRST | {"method": "r-adapter", "base_model": base, "base_hash": "f" * 64}
    row = ComparedModel(facts | {"run": "mine", "alpha": alpha})
    row.numbers = {(SUITE.name, "in-distribution", "accuracy"): Number(0.1234, (0.1, 0.2))}
    row.by_set = {(SUITE.name, "imagenet", "accuracy"): Number(0.1234, (0.1, 0.2))}
    choices = {"shifted": {"objectnet": {"objectnet": protocol}}}
    row.settings = {SUITE.name: {"protocol": {"templates": templates}, "choices": choices}}
    return row


def rows_under(table):
    """By the title of a group, its rows."""
    found, title = {}, None
    for cells, style in table.rows:
        if style == GROUP:
            title = cells[0]
        found.setdefault(title, []).append(cells)
    return found


def test_the_means_of_a_source_are_those_that_it_prints():
    """A slip of the pen would show in them."""
    (rows,) = (own for own in SUITE.published_rows if "TPGM" in own.rows)
    means = {method: sum(row.values()) / len(row) for method, row in rows.rows.items()}
    assert means == pytest.approx(TPGM, abs=0.0051)


def test_every_source_says_where_it_is_and_by_what_protocol():
    for name in shipped_suites():
        for rows in load_suite(name).published_rows:
            assert "commit " in rows.source
            assert rows.protocol
            for row in rows.rows.values():
                assert all(0 < score < 100 for score in row.values())


@pytest.mark.parametrize("base", ["ViT-B-32:openai", "ViT-B-32-quickgelu:openai"])
def test_own_rows_stand_beside_those_of_their_base_and_protocol(base):
    (table,) = published_tables(Comparison([model(base)]))
    under = rows_under(table)
    own = under["ViT-B-32:openai, by this suite's protocol"]
    assert [cells[0].strip() for cells in own[1:]] == [
        "#1 r-adapter", "[a] full fine-tuning, the best of 72 models",
        "[a] uniform soup of 72 models", "[a] greedy soup",
    ]  # fmt: skip
    assert own[1][1:4] == ("0.5", "12.34", "-")
    assert own[4][2] == "81.03"
    apart = under["ViT-B-16:openai, by another protocol: not comparable"]
    assert any("Lipsum-FT" in cells[0] for cells in apart)
    text = "\n".join(printed([table]))
    assert "[b] README of PotatoTian/TPGM" in text
    assert "Another protocol: other sizes of pictures" in text


@pytest.mark.parametrize("changes", [{"protocol": "clip-benchmark"}, {"templates": ["a {}"]}])
def test_own_rows_of_another_protocol_stand_apart(changes):
    (table,) = published_tables(Comparison([model(**changes)]))
    under = rows_under(table)
    (_, own) = under["this comparison's, scored in another way: not comparable"]
    assert own[0] == "  #1 r-adapter"
    beside = under["ViT-B-32:openai, by this suite's protocol"]
    assert not any("#1" in cells[0] for cells in beside)


def test_partial_sets_stand_apart_too():
    row = model()
    row.partial = {(SUITE.name, "shifted")}
    (table,) = published_tables(Comparison([row]))
    assert "this comparison's, scored in another way: not comparable" in rows_under(table)


@pytest.mark.parametrize("suite", ["mine", "few-shot"])
def test_suites_without_published_rows_of_what_was_scored_have_no_table(suite):
    row = model()
    row.numbers = {(suite, "in-distribution", "accuracy"): Number(0.1, None)}
    row.by_set = {(suite, "icons", "accuracy"): Number(0.1, None)}
    assert list(published_tables(Comparison([row]))) == []
    assert to_json(Comparison([row]))["published"] == []
    published = to_json(Comparison([model()]))["published"]
    assert {own["suite"] for own in published} == {SUITE.name}
    assert len(published) == len(SUITE.published_rows)

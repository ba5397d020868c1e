"""Rules that drop pairs: how they are written, and the limits that a sample gives."""

import numpy as np
import pytest

from radapter.data.pair_rules import like, measured, parsed, reasons
from radapter.errors import UsageError


@pytest.mark.parametrize("text", ["words<4", "score<30%", "letters>120", "pictures>2.5%"])
def test_a_rule_is_what_was_written(text):
    assert parsed(f" {text} ").text == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("words=4", "expected a measure"),
        ("word<4", "unknown measure 'word'. Did you mean 'words'?"),
        ("score<100%", "a share is from 0 to below 100 %"),
    ],
)
def test_what_is_no_rule_is_said(text, said):
    with pytest.raises(UsageError, match=said.replace("?", r"\?")):
        parsed(text)


def test_a_share_drops_no_more_than_that_of_the_sample():
    values = np.random.default_rng(0).permutation(np.arange(200) / 7)
    for share in (0.0, 0.1, 0.305, 0.999):
        for sign in "<>":
            rule = parsed(f"score{sign}{100 * share:g}%")
            gone = rule.drops(values, rule.limit(values))
            assert gone.sum() == int(200 * share + 1e-9)
            beyond, kept = values[gone], values[~gone]
            if len(beyond):
                assert beyond.max() < kept.min() if sign == "<" else beyond.min() > kept.max()
    ties = np.array([1.0, 1.0, 1.0, 2.0])
    rule = parsed("score<50%")
    assert not rule.drops(ties, rule.limit(ties)).any()  # 75 % would go, or none


def test_measures_and_the_first_reason():
    captions = [["A dog", "a  DOG"], ["a dog"], ["a long walk to the sea"]]
    measures = measured(captions) | {"score": np.array([0.1, 0.2, np.nan, 0.4])}
    assert measures["words"].tolist() == [2, 2, 2, 6]
    assert measures["letters"].tolist() == [5, 6, 5, 22]
    assert measures["pictures"].tolist() == [2, 2, 2, 1]
    assert like(" A \t Dog") == "a dog"
    rules = [parsed("score<0.2"), parsed("pictures>1")]
    found = reasons(rules, [rule.value for rule in rules], measures)
    assert found == ["score<0.2", "pictures>1", "pictures>1", None]

"""What was left out, for people and for JSON."""

from radapter.data.left_out import lines_of, merged, summary_of


def test_nothing_left_out_is_silent():
    assert lines_of({}) == []
    assert summary_of({"hidden": []}) == {}


def test_a_line_for_each_reason_with_the_first_names():
    left_out = {"hidden": ["._a.jpg"], "ending": [f"{i}.heic" for i in range(1200)] + ["b.mov"]}
    assert lines_of(left_out) == [
        "left out: 1,201 with endings that are not read: 1,200 .heic, 1 .mov "
        "(0.heic, 1.heic, 2.heic, ...)",
        "left out: 1 hidden (._a.jpg)",
    ]
    assert summary_of(left_out)["ending"] == {
        "count": 1201,
        "first": ["0.heic", "1.heic", "2.heic"],
        "endings": {".heic": 1200, ".mov": 1},
    }


def test_parts_are_merged_and_each_name_counts_once():
    both = merged({"broken": ["a", "b"]}, {"broken": ["b", "c"], "hidden": []})
    assert both == {"broken": ["a", "b", "c"]}
    assert sum(map(len, both.values())) == 3

"""The script that compares short pre-trainings, on a few discs."""

import json

import pytest
import trees
import typer


@pytest.fixture
def discs(tmp_path):
    """Those by one designer are by the one whom the recipe holds out."""
    root = trees.drawings(tmp_path / "discs")
    text = (root / "drawings.json").read_text().replace('"family": "ink"', '"family": "heroicons"')
    (root / "drawings.json").write_text(text)
    return root


@pytest.mark.slow
def test_a_variant_is_trained_once_and_scored_in_both_forms(pretraining, discs, tmp_path, capsys):
    pretraining.main(discs, variant=["4 x 192"], out=tmp_path / "results")
    row = capsys.readouterr().out.splitlines()[-1]
    assert row.startswith("| 4 x 192 |")
    (path,) = (tmp_path / "results").iterdir()
    result = json.loads(path.read_text())
    for form in ("drawn", "plain"):
        assert result[form]["pictures"] == 4
        assert 0 <= result[form]["text_to_image_r1"]["value"] <= 1
    path.write_text(json.dumps(result | {"seconds": 7 * result["steps"]}))
    pretraining.main(discs, variant=["4 x 192"], out=tmp_path / "results")
    assert capsys.readouterr().out.splitlines()[-1].endswith("| 7.00 |")


def test_a_variant_that_is_none_is_refused(pretraining, discs, tmp_path):
    with pytest.raises(typer.BadParameter, match="no variant sideways"):
        pretraining.main(discs, variant=["upright", "sideways"], out=tmp_path)

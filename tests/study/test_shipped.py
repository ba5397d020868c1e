"""The studies that ship name what there is."""

import pytest

from radapter.study import schema
from radapter.study.planning import Plan


@pytest.mark.parametrize("name", schema.shipped_studies())
def test_a_study_has_a_plan(name):
    place = schema.locate(name)
    plan = Plan(schema.load(place), str(place))
    assert plan.study.name == name
    assert plan.study.baseline in plan.study.methods

import pytest

from radapter.init import start
from radapter.recipe import parse


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """`begin("my-set")` in an empty folder: the recipe that init writes, and all it made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RADAPTER_DATA", "")

    def call(path: str, **options: str):
        made = start(path, **options)
        return parse(made.text, f"{made.name}.yaml"), made

    return call

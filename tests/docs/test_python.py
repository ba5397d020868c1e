"""The Python that the documentation shows runs."""

import ast
import importlib

import pytest
import torch
from torch.nn.functional import normalize

from radapter import recipe as recipes
from radapter.training import train

from .pages import PAGES, ROOT, blocks

NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
RUN = ("README.md", "docs/getting-started.md", "docs/python.md")


def python_blocks(name):
    return [block for block in blocks(ROOT / name) if block.language == "python"]


@pytest.mark.parametrize("name", NAMES)
def test_what_examples_import_is_there(name):
    for block in python_blocks(name):
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("radapter"):
                module = importlib.import_module(str(node.module))
                for alias in node.names:
                    if not hasattr(module, alias.name):
                        importlib.import_module(f"{node.module}.{alias.name}")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in RUN if name in NAMES])
def test_the_examples_of_a_page_run_one_after_the_other(
    name, own_folder, own_recipe, small, tiny_folder, monkeypatch
):
    load = recipes.load
    monkeypatch.setattr(
        recipes, "load", lambda path, overrides=(): load(path, [*overrides, *small])
    )
    features = normalize(torch.randn(8, 16), dim=1)
    known = {"images": features, "texts": features, "groups": torch.arange(8)}
    if any("runs/my-run" in block.text for block in python_blocks(name)):
        train(recipes.load(own_recipe)).path.rename("runs/my-run")
    for block in python_blocks(name):
        text = block.text.replace("ViT-B-16:openai", str(tiny_folder))
        exec(compile(text, str(block), "exec"), known)

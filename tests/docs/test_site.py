"""`make docs`: the manual is built strictly."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ("docs", "radapter", "radapter_cli", "mkdocs.yml", "CONTRIBUTING.md", "CHANGELOG.md")


def build(root, site):
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(site)],
        cwd=root,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, from the docs as they are."""
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stdout
    return folder


def test_the_site_loads_nothing_from_the_network(site):
    loaded = r'<(?:script|img)[^>]*src="(?:https?:)?//|<link[^>]*rel="stylesheet"[^>]*href="http'
    pages = list(site.rglob("*.html"))
    assert len(pages) > 10
    assert [page.name for page in pages if re.search(loaded, page.read_text())] == []


def test_every_command_is_in_the_reference(site):
    from radapter_cli.main import COMMANDS

    text = (site / "commands.html").read_text()
    assert [name for name in COMMANDS if f'id="radapter-{name}"' not in text] == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda docs: add(docs, "[here](nowhere.md)"), "nowhere.md"),
        (lambda docs: add(docs, "[here](../radapter/nowhere.py)"), "nowhere.py"),
        (lambda docs: add(docs, "[here](models.md#nowhere)"), "#nowhere"),
        (lambda docs: (docs / "new.md").write_text("# New"), "new.md"),
        (lambda docs: (docs / "training.md").unlink(), "training.md"),
        (lambda docs: add(docs, "::: radapter.merging.nowhere"), "radapter.merging.nowhere"),
    ],
    ids=["link", "file", "anchor", "page not in nav", "page in nav", "function"],
)
@pytest.mark.slow
def test_what_is_missing_ends_the_build(tmp_path, change, said):
    for name in SOURCE:
        source = ROOT / name
        if source.is_dir() and name != "docs":
            (tmp_path / name).symlink_to(source)
        else:
            (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    change(tmp_path / "docs")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert said in done.stdout


def add(docs, line):
    with (docs / "gpu.md").open("a") as page:
        page.write(f"\n{line}\n")

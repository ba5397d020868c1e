"""What mkdocs does not do by itself for this manual.

Links to files of the repository outside of docs/ work on the site too: such a file is copied to it.
CONTRIBUTING.md and CHANGELOG.md are pages. The reference of commands is typer's own. That of
recipes, suites and studies is made of their JSON Schema.
"""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path
from typing import Any

import recipe_reference
import typer.cli
from mkdocs.structure.files import File, Files
from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
LINK = re.compile(r"(\]\()([^)\s#:]+)(?=[#)\s])")
MADE = re.compile(
    r"^<!-- (commands|keys of recipes|keys of suites|keys of studies|nothing) -->\n.*$",
    re.MULTILINE,
)
"""A line that only readers of the file see; on the site, what is made stands there"""


def on_files(files: Files, config: Any) -> Files:
    for source, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """The text of a page, its links as the site has them and the commands where they belong."""
    folder, docs = Path(page.file.abs_src_path).parent, Path(config.docs_dir)

    def on_the_site(link: re.Match[str]) -> str:
        target = Path(os.path.normpath(folder / link[2]))
        if target.is_relative_to(docs):
            return link[1] + target.relative_to(docs).as_posix()
        name = target.relative_to(ROOT).as_posix() if target.is_relative_to(ROOT) else ""
        if name in PAGES:
            return link[1] + PAGES[name]
        if not target.is_file():
            return link[0]  # a broken link, as mkdocs says
        copy = f"files/{name}" + ".txt" * (target.suffix == ".md")  # as mkdocs makes pages of .md
        if copy not in files.src_uris:
            files.append(File.generated(config, copy, abs_src_path=str(target)))
        return link[1] + copy

    return MADE.sub(lambda mark: WRITTEN[mark[1]](), LINK.sub(on_the_site, markdown))


@functools.cache
def commands() -> str:
    """Every command with its help, arguments, options and defaults."""
    asked = ["radapter_cli.main", "utils", "docs", "--name", "radapter"]
    text = CliRunner().invoke(typer.cli.app, asked, catch_exceptions=False).output
    root, first, others = text.partition("## `radapter init`")
    options = root[root.index("**Options**:") : root.index("Exit codes")].partition("\n")[2]
    return options + first + re.sub(r"^\$ ", "", others, flags=re.MULTILINE)


WRITTEN = {
    "commands": commands,
    "keys of recipes": recipe_reference.recipe_keys,
    "keys of suites": recipe_reference.suite_keys,
    "keys of studies": recipe_reference.study_keys,
    "nothing": str,
}

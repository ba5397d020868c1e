"""What a soup was made of, in words."""

from __future__ import annotations

from typing import Any


def in_words(about: dict[str, Any]) -> list[str]:
    """A line for the rule, and one for each run with what was decided of it, from soup.json."""
    names = [run["name"] for run in about["runs"]]
    head = f"{about['rule']} soup of {len(names)} runs"
    if ratio := about.get("ratio"):
        head += (
            f", of whose mean change {ratio['mean']:.2f} was kept (from {ratio['smallest']:.2f} to "
            f"{ratio['largest']:.2f} by tensor)"
        )
    tried = about.get("tried")
    if tried is None:
        return [head, *names]
    return [f"{head}, scored at alpha {about['alpha']:g}", *(_tried(step, names) for step in tried)]


def _tried(step: dict[str, Any], names: list[str]) -> str:
    name, alone = names[step["run"]], f"{100 * step['alone']:.2f} % alone"
    if step["best"] is None:
        return f"added     {name}: {alone}, the best"
    word = "added    " if step["added"] else "left out "
    return f"{word} {name}: {alone}, {100 * step['with']:.2f} % with it, " + (
        f"{100 * step['best']:.2f} % without"
    )

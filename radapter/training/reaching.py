"""Whether the loss reaches all that is trained."""

from __future__ import annotations

from collections.abc import Sequence

from radapter.errors import UsageError
from radapter.methods.attached import Attached
from radapter.models.prompts import class_template
from radapter.models.queries import PLACE
from radapter.objectives.terms import Term


def check_reach(attached: Attached, terms: Sequence[Term], templates: Sequence[str]) -> None:
    """Raise UsageError if something in the text tower is trained, and no term reads texts; or if
    that is a context, and no text has a place for it.

    Args:
        templates: of the data's class names.
    """
    if "text" not in attached.towers():
        return
    if not any(t.penalty or t.texts or (t.loss and t.reads_texts) for t in terms):
        raise UsageError(
            "The loss does not reach the text tower, as no term reads texts: `method.towers` has "
            "to be image."
        )
    texts = [*templates, *(text for term in terms for text in term.pool)]
    if class_template(attached.model) and not any(PLACE in text.split() for text in texts):
        raise UsageError(
            f"method.context: no text has a place ({PLACE}) for it. Add the term class-texts to "
            "the objective, or set method.context=0."
        )

"""The sections of a recipe that call what is registered: a method, a head, terms of the loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, create_model

from radapter.registry import HEADS, METHODS, TERMS, Call, Section, arguments, section, summary

if TYPE_CHECKING:
    Method = Call
    Term = Call
    Head = Call
    Objective = Section
else:
    Method, Term = section(METHODS, "attach"), section(TERMS, "term")
    Head = section(HEADS, "head")
    Retain = create_model(
        "Retain",
        __base__=Section,
        __module__=__name__,
        __doc__=summary(TERMS["retention"]),
        **arguments(TERMS["retention"], "term"),
    )
    Objective = create_model(
        "Objective",
        __base__=Section,
        __module__=__name__,
        __doc__="The short form: the term `mpm-nce`, and `retention` beside it as `retain`.",
        name=(Literal["mpm-nce"], Field("mpm-nce", description="The main term.")),
        **arguments(TERMS["mpm-nce"], "term"),
        retain=(
            Retain | None,
            Field(None, description="The settings of the term `retention`. `null`: without it."),
        ),
    )

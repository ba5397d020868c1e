"""From a run to a model: plain and of the original size, or with its adapters attached."""

from radapter.merging.merged import (
    load_merged,
    read_merged,
    tuned,
    tuned_facts,
    tuned_name,
    tuned_title,
    write_merged,
    write_mixture,
    write_weights,
)
from radapter.merging.trained import (
    Alpha,
    Trained,
    load_base,
    merge,
    open_trained,
    read_stored,
    with_adapters,
)

__all__ = [
    "Alpha",
    "Trained",
    "load_base",
    "load_merged",
    "merge",
    "open_trained",
    "read_merged",
    "read_stored",
    "tuned",
    "tuned_facts",
    "tuned_name",
    "tuned_title",
    "with_adapters",
    "write_merged",
    "write_mixture",
    "write_weights",
]

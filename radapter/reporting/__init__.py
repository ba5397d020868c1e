"""Results as tables."""

from radapter.reporting.tables import evaluation_tables

__all__ = ["evaluation_tables"]

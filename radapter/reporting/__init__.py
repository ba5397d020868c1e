"""Results as tables and pictures."""

from radapter.reporting.result_tables import alpha_table, evaluation_tables

__all__ = ["alpha_table", "evaluation_tables"]

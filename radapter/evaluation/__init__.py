"""Suites of data sets, scored on any runtime; two runtimes compared item by item."""

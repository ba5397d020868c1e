"""Objectives: a sum of terms, one file each. To add one: a file, and its line in `registry.TERMS`.

A term is a module with `term(context, *, ...) -> Term`; its keyword arguments are the settings of a
recipe.
"""

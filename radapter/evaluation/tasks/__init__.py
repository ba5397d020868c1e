"""What suites ask of a model: a module a task, listed in `radapter.registry.TASKS`.

A task has METRICS; DATA, the `task` of the data section that it scores on; and the functions of
`classification.py`: `needs`, `asks`, `protocol` and `score`. TRIVIAL, if it has that, names models
of `evaluation.trivial` that stand beside those that are scored. Tables, `compare` and the model
card read METRICS, so these modules import torch where they use it.
"""

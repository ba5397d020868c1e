"""How weights are updated: each module has `optimizer`, listed in `radapter.registry.OPTIMIZERS`.

`optimizer(attached, lr, *, ...)` gives a `torch.optim.Optimizer` over what a method trains, in
groups with a `rate` (see `adamw.by_rate`). Its keyword-only arguments are keys of a recipe's
`optimisation`. All that changes from step to step is in its `state`, as tensors: a checkpoint keeps
that. COPIES is how many of them have a parameter's size.
"""

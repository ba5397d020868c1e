"""Heads: from features of pictures to logits of classes. To add one: a file, and its line in
`registry.HEADS`.

A trained head is a module with `head(start, *, ...) -> nn.Module`, whose keyword arguments are the
settings of a recipe's `head`; `of(state) -> nn.Module`, the module with such tensors;
`at_zero(state)`, those tensors that alpha mixes, as they are at alpha 0, where the head gives the
zero-shot answers; and EXAMPLES. Whatever it reads beside features is in its state dict, and its
`forward` is what torch exports, so that nothing else tells heads apart.

A head with a setting `search` has `search(module, features, labels, settings)` too, which gives the
tensors that do best on held-out pictures, and what to note of it.

A gate, of `registry.GATES`, is a head over the features of several models side by side (`gate.py`).
It is fitted on held-out data, not trained, so it has `fit` in the place of `head`.
"""

"""Ways of adapting a model, one file each. To add one: a file, and its line in `registry.METHODS`.

A method is a module with

    attach(model, *, ...) -> Attached          freeze the model, add what is trained; its keyword
                                               arguments are the settings of a recipe
    merge(base, stored, alpha) -> state dict   a plain model from base weights and stored tensors;
                                               left out where what is trained does not fold
    EXAMPLES                                   settings that the tests of every method go through
    ELSEWHERE                                  settings with which training does not start at the
                                               zero-shot model; left out where there are none
    WITH_DECODER                               settings for models that read pictures and texts
                                               together, tested apart; left out where there are none
"""

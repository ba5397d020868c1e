"""Using a model: open a run, a bundle or a name; classify, embed and search pictures with it."""

from radapter.inference.features import embed
from radapter.inference.opening import open_model, with_frames
from radapter.inference.prediction import predict
from radapter.inference.searching import search
from radapter.runtimes.opened import OpenModel

__all__ = ["OpenModel", "embed", "open_model", "predict", "search", "with_frames"]

"""The training loop, its optimizer and its checkpoints."""

from radapter.training.loop import Interrupted, resume, train
from radapter.training.planning import Fit, plan
from radapter.training.preparing import Plan

__all__ = ["Fit", "Interrupted", "Plan", "plan", "resume", "train"]

"""The training loop, its optimizer and its checkpoints."""

from radapter.training.loop import resume, train
from radapter.training.planning import Fit, plan
from radapter.training.preparing import Plan
from radapter.training.session import Hooks, Interrupted

__all__ = ["Fit", "Hooks", "Interrupted", "Plan", "plan", "resume", "train"]

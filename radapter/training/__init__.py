"""The training loop, its optimizer and its checkpoints."""

from radapter.training.loop import Interrupted, resume, train
from radapter.training.preparing import Plan, plan

__all__ = ["Interrupted", "Plan", "plan", "resume", "train"]

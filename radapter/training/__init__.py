"""The training loop, its optimizer and its checkpoints."""

from radapter.training.loop import Interrupted, Plan, plan, resume, train

__all__ = ["Interrupted", "Plan", "plan", "resume", "train"]

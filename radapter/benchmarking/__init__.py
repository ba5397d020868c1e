"""How fast each runtime encodes, in one process, as times and as ratios to PyTorch.

Everything that is compared is open at once and takes turns, in rounds, so that a busy moment of
the machine falls on all alike; ratios are of the same round. A call takes tensors on the CPU and
gives features on the CPU: copies to a device and back are in its time.
"""

from radapter.benchmarking.benchmark import Settings, bench
from radapter.benchmarking.subjects import Subject

__all__ = ["Settings", "Subject", "bench"]

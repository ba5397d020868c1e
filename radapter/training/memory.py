"""How much memory training takes."""

from __future__ import annotations

import resource
import sys
from typing import Any

import torch


def peak(device: torch.device) -> dict[str, Any]:
    """The most memory used so far, `peak_memory_bytes`, and `memory_of`: `cuda`, what torch has
    allocated on the device; else `process`, this one's resident memory without its loader workers.

    Both are since the process began, so a run after another in one process has the larger of both.
    """
    if device.type == "cuda":
        allocated = torch.cuda.max_memory_allocated(device)
        return {"peak_memory_bytes": allocated, "memory_of": "cuda"}
    unit = 1 if sys.platform == "darwin" else 1024  # Linux counts in kilobytes
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak_memory_bytes": unit * resident, "memory_of": "process"}

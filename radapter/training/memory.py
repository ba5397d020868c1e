"""How much memory training takes."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Any

import torch


def peak(device: torch.device) -> dict[str, Any]:
    """The most memory used so far, `peak_memory_bytes`, and `memory_of`: `cuda`, what torch has
    allocated on the device; else `process`, this one's resident memory without its loader workers.

    Both are since the process began, so a second run in one process reports the larger peak.
    """
    if device.type == "cuda":
        allocated = torch.cuda.max_memory_allocated(device)
        return {"peak_memory_bytes": allocated, "memory_of": "cuda"}
    return {"peak_memory_bytes": _resident(), "memory_of": "process"}


def _resident() -> int:
    if sys.platform == "linux":
        # getrusage's peak begins with that of the process which started this one.
        (line,) = (
            line
            for line in Path("/proc/self/status").read_text().splitlines()
            if line.startswith("VmHWM:")
        )
        return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS counts in bytes

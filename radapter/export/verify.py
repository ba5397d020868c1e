"""Run exported ONNX files and compare them with features computed before, in a process of its own.

    python -P verify.py BUNDLE REFERENCE BATCH [BATCH ...]

It imports neither radapter nor torch, so that what it proves holds where only onnxruntime is
installed. REFERENCE is a safetensors file with tensors `<file>|<case>|input` [n, ...] (`input NAME`
where a file takes several) and `<file>|<case>|output` [n, ..., dim], features of unit norm,
probabilities, or logits of matches. On stdout: one JSON object, for each file the worst cosine and
the largest absolute difference over all its cases and batch sizes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from safetensors.numpy import load_file

TINY = 1e-30  # below it, fp32 keeps no digits
DECIDED = 1.0  # of centred logs: two classes at 88 and 12 %


def check(folder: Path, reference: Path, batches: list[int]) -> dict[str, dict[str, float]]:
    """Check every ONNX file that the reference names, in batches of these sizes.

    Raises:
        ValueError: an output has another shape, is not finite, or has another norm than 1
            (features) or another sum (probabilities).
    """
    tensors = load_file(reference)
    results: dict[str, dict[str, float]] = {}
    for name in sorted({key.split("|")[0] for key in tensors}):
        onnx.checker.check_model(str(folder / name), full_check=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # the same numbers on every machine of a kind
        if "_qdq" in name:  # see runtimes.onnx
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        session = onnxruntime.InferenceSession(
            str(folder / name),
            options,
            providers=["CPUExecutionProvider"],
            # On fp16 files, that optimizer crashes the process (onnxruntime 1.26 to 1.32).
            disabled_optimizers=["NchwcTransformer"] if "_fp16" in name else [],
        )
        results[name] = {"worst_cosine": 1.0, "max_abs_difference": 0.0}
        for case in sorted({key.split("|")[1] for key in tensors if key.startswith(name)}):
            (one, *more) = [taken.name for taken in session.get_inputs()]
            given = f"{name}|{case}|input"
            inputs = {n: tensors[f"{given} {n}" if more else given] for n in (one, *more)}
            expected = tensors[f"{name}|{case}|output"]
            for batch in sorted({min(batch, len(expected)) for batch in batches}):
                where = f"{name}, {case}, batch {batch}"
                some = {n: own[:batch] for n, own in inputs.items()}
                compare(session, some, expected[:batch], results[name], where)
    return results


def cosine(output: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Of every row of features, [n]."""
    ours, theirs = output.astype(np.float64), expected.astype(np.float64)
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return (ours * theirs).sum(axis=1) / norms


def closeness(output: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Of every row of probabilities, [n]: 1 - e^2 / 2, e the error of their centred logs.

    These are the cosines to the classes times the logit scale. The error is the largest of a class,
    relative to the largest log: so the figure is near the cosine of what it was made from, sees a
    scale that is wrong and one class among a thousand, and does not depend on how many there are.
    Where a picture is undecided, logs are near 0 and a relative error says nothing: below
    `DECIDED` it is absolute. So with two classes no probability is off by more than e / 2.
    """
    ours, theirs = (np.log(np.maximum(p.astype(np.float64), TINY)) for p in (output, expected))
    ours, theirs = (logs - logs.mean(axis=1, keepdims=True) for logs in (ours, theirs))
    error, size = (np.abs(x).max(axis=1) for x in (ours - theirs, theirs))
    return 1 - (error / np.maximum(size, DECIDED)) ** 2 / 2


def likeness(output: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Of every row of logits, [n]: 1 - e^2 / 2, e the largest error relative to the largest logit,
    as `closeness` has it for logs."""
    error = np.abs(output.astype(np.float64) - expected).max(axis=1)
    return 1 - (error / np.maximum(np.abs(expected).max(axis=1), DECIDED)) ** 2 / 2


def compare(
    session: onnxruntime.InferenceSession,
    inputs: dict[str, np.ndarray],
    expected: np.ndarray,
    result: dict[str, float],
    where: str,
) -> None:
    """Run one batch and update `result` with its worst figures."""
    (output,) = session.run(None, inputs)
    if output.shape != expected.shape:
        raise ValueError(f"{where}: output of shape {output.shape}, expected {expected.shape}")
    # Features of patches are many of one picture, [n, rows, columns, dim].
    output, expected = (x.reshape(-1, x.shape[-1]) for x in (output, expected))
    name = session.get_outputs()[0].name
    if name == "match_logits":
        cosines = likeness(output, expected)
    else:
        norms = np.linalg.norm(output.astype(np.float64), axis=1)
        probabilities = name == "probabilities"
        ones = output.astype(np.float64).sum(axis=1) if probabilities else norms
        if not (np.abs(ones - 1) < 1e-5).all():  # false for what is not finite, too
            raise ValueError(f"{where}: norms or sums of probabilities are not 1: {ones}")
        cosines = (closeness if probabilities else cosine)(output, expected)
    if not np.isfinite(cosines).all():  # min() would pass over it
        raise ValueError(f"{where}: what PyTorch or onnxruntime gave is not finite")
    result["worst_cosine"] = min(result["worst_cosine"], float(cosines.min()))
    difference = float(np.abs(output - expected).max())
    result["max_abs_difference"] = max(result["max_abs_difference"], difference)


if __name__ == "__main__":
    sizes = [int(size) for size in sys.argv[3:]]
    print(json.dumps(check(Path(sys.argv[1]), Path(sys.argv[2]), sizes)))

"""The further files of an export, those that take bytes or give probabilities, on real pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from radapter import bundle
from radapter.data import Dataset
from radapter.data.clips import frames_of
from radapter.evaluation.parity import tolerance_of
from radapter.evaluation.result import SetResult
from radapter.heads.head import Head
from radapter.models import LoadedModel
from radapter.runtimes.onnx import open_file
from radapter.runtimes.opened import bundle_preprocessing
from radapter.runtimes.pytorch import PyTorchRuntime

BATCH = 32
TIE = 0.01
"""Classes tie if their probabilities differ by no more than this share of the larger one"""


def compare_files(
    folder: Path,
    merged: LoadedModel,
    pictures: Sequence[tuple[str, Dataset]],
    head: Head | None,
    tolerances: Sequence[str] = (),
    reference: PyTorchRuntime | None = None,
) -> list[dict[str, Any]]:
    """Every file from bytes, and every classifier, of a bundle against PyTorch in fp32.

    Args:
        folder: the bundle.
        merged: the model that it was made from.
        pictures: data sets, by name.
        head: of the classifier; None: the classifier is left out.
        tolerances: changes, see `evaluation.parity.tolerance_of`.
        reference: the model in fp32; None: on the CPU.

    Returns:
        For each file: `file`, `precision`, `cosine` (the worst one of features; of probabilities,
        see `verify.closeness`), `worst` (its picture, by name), `failures`, `passed`; of a
        classifier also `difference`, the largest of a probability, and `agreement`, the share of
        pictures with the same likeliest class, or one that ties with it.
    """
    kinds = [bundle.FROM_BYTES, *([bundle.CLASSIFIER] if head is not None else [])]
    files = [
        (kind, bundle.in_precision(kind, facts["precision"]), facts["precision"])
        for kind in kinds
        for name, facts in bundle.read_manifest(folder)["models"].items()
        if name == bundle.in_precision(kind, facts["precision"])
    ]
    if not files:
        return []
    from radapter.export import verify  # it needs onnxruntime

    runtime = reference or PyTorchRuntime(merged)
    names, expected = [], []
    for batch in _batches(pictures):
        names += [name for name, _ in batch]
        pixels = torch.stack([merged.preprocess(picture) for _, picture in batch])
        expected.append(runtime.encode_image(pixels))
    features = torch.cat(expected)
    rows = []
    for kind, file, precision in files:
        got = torch.cat(list(_outputs(folder, file, merged, pictures)))
        tolerance = tolerance_of(precision, tolerances)
        row: dict[str, Any] = {"file": file, "precision": precision}
        wanted = features
        if kind == bundle.CLASSIFIER:
            assert head is not None
            wanted = head.logits(features).softmax(dim=1)
        measure = verify.closeness if kind == bundle.CLASSIFIER else verify.cosine
        cosines = np.nan_to_num(measure(got.numpy(), wanted.numpy()), nan=-2.0)
        worst = int(cosines.argmin())
        row["cosine"], row["worst"] = float(cosines[worst]), names[worst]
        failures = []
        if not row["cosine"] >= tolerance.cosine:
            failures.append(
                f"worst cosine {row['cosine']:.6f} ({row['worst']}), allowed {tolerance.cosine:.6f}"
            )
        if kind == bundle.CLASSIFIER:
            row["difference"] = float((wanted - got).abs().max())
            row["agreement"] = _agreement(wanted, got)
            if not row["agreement"] >= tolerance.agreement:
                failures.append(
                    f"top-1 agreement {row['agreement']:.2%}, allowed {tolerance.agreement:.2%}"
                )
        rows.append(row | {"failures": failures, "passed": not failures})
    return rows


def _agreement(wanted: Tensor, got: Tensor) -> float:
    """Which of classes that are as likely as each other comes first is chance: any of them will
    do (as those do that have the same features)."""
    best = wanted.amax(dim=1)
    answered = wanted.gather(1, got.argmax(dim=1, keepdim=True))[:, 0]
    return float((answered >= best * (1 - TIE)).double().mean())


def _batches(pictures: Sequence[tuple[str, Dataset]]) -> Iterator[list[tuple[str, Image]]]:
    """Pictures with their names, as files hold them, in RGB; of clips the first frames."""
    for name, dataset in pictures:
        for start in range(0, len(dataset), BATCH):
            places = range(start, min(start + BATCH, len(dataset)))
            first = ((dataset.keys[i], frames_of(dataset.read(i))[0]) for i in places)
            yield [(f"{name} {key}", picture.convert("RGB")) for key, picture in first]


def _outputs(
    folder: Path, file: str, merged: LoadedModel, pictures: Sequence[tuple[str, Dataset]]
) -> Iterator[Tensor]:
    """What a file gives for every picture, as it is deployed: bytes one picture at a time, since
    each has its own size, or batches prepared as the bundle states it."""
    session = open_file(folder, file)
    (taken,) = session.get_inputs()
    preprocess = bundle_preprocessing(folder)["preprocess"]
    for batch in _batches(pictures):
        if taken.name == "pixels":
            inputs = [np.asarray(picture)[None] for _, picture in batch]
        else:
            inputs = [torch.stack([preprocess(picture) for _, picture in batch]).numpy()]
        for array in inputs:
            yield torch.from_numpy(session.run(None, {taken.name: array})[0])


def scored_pictures(
    opened: Mapping[str, Mapping[Any, Dataset]], scored: Mapping[str, SetResult]
) -> list[tuple[str, Dataset]]:
    """The pictures of a suite's data sets that were scored, by name, each once: all tasks of a set
    have the same ones, and broken ones are left out."""
    found = []
    for name, result in scored.items():
        dataset, wanted = next(iter(opened[name].values())), set(result.pictures)
        chosen = [i for i, key in enumerate(dataset.keys) if key in wanted]
        found.append((name, dataset.select(chosen)))
    return found

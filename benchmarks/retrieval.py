"""What ranking a retrieval set costs: memory beyond the features, time over the bare product.

    python benchmarks/retrieval.py                     # 5,000 x 25,000, as COCO
    python benchmarks/retrieval.py --pictures 50000    # x 250,000

Features are random. Time is of both ways (captions to pictures, pictures to captions) over that of
all similarities once, in chunks of the same size and in the same process.
"""

from __future__ import annotations

import argparse
import resource
import time

import torch
from torch.nn.functional import normalize

from radapter.evaluation import retrieval


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=5_000)
    parser.add_argument("--captions", type=int, default=5, help="of each picture")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(0)
    pictures, texts = (
        normalize(torch.randn(count, options.dim, generator=generator), dim=1)
        for count in (options.pictures, options.pictures * options.captions)
    )
    task = retrieval.caption_task(
        [[f"{i} {k}" for k in range(options.captions)] for i in range(options.pictures)]
    )
    chunk = max(1, retrieval.SIMILARITIES // len(texts))
    start = time.perf_counter()
    for row in range(0, len(pictures), chunk):
        pictures[row : row + chunk] @ texts.T
    product = time.perf_counter() - start
    before = peak()
    start = time.perf_counter()
    retrieval.best_ranks(texts, pictures, task.pictures_of, which=task.queries)
    retrieval.best_ranks(pictures, texts, task.captions_of, copies=task.copies)
    ranking = time.perf_counter() - start
    print(
        f"{len(pictures):,} x {len(texts):,}, {options.dim} dimensions, {options.threads} threads: "
        f"{peak() - before:.0f} MB beyond the features and one product, "
        f"{ranking / product:.2f} times the bare product ({product:.1f} s)"
    )


def peak() -> float:
    """MB; Linux counts in kB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()

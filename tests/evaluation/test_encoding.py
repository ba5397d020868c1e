"""Reading ahead: the order is kept, two batches are in memory, an error ends it."""

import contextlib
import shutil
import threading
import time

import pytest
import torch
from ranks import in_ranks, results

from radapter import distributed, models
from radapter.errors import BrokenInput
from radapter.evaluation import encoding
from radapter.evaluation.cache import Cache
from radapter.evaluation.encoding import Together, encode_batches
from radapter.evaluation.evaluate import evaluate
from radapter.evaluation.suite import Suite
from radapter.runtimes.opened import with_runtime
from radapter.runtimes.pytorch import PyTorchRuntime


class Mean:
    """A runtime whose feature is the picture's number."""

    def encode_image(self, pixels):
        return pixels.mean(dim=(1, 2, 3))[:, None]


def encode(read, n, **more):
    return encode_batches(
        Mean(), lambda number: torch.full((3, 2, 2), float(number)), read, range(n), **more
    )


def test_the_order_is_kept_when_the_first_is_the_slowest():
    def read(index):
        time.sleep(0.02 * (3 - index % 4))
        if index in (2, 9):
            raise BrokenInput(f"picture {index}")
        return index

    batches = list(encode(read, 10, batch_size=4, workers=4))
    assert [batch.indices for batch in batches] == [[0, 1, 3], [4, 5, 6, 7], [8]]
    assert [batch.features[:, 0].tolist() for batch in batches] == [[0, 1, 3], [4, 5, 6, 7], [8]]
    assert [batch.failed for batch in batches] == [{2: "picture 2"}, {}, {9: "picture 9"}]


def test_a_batch_is_moved_to_the_device_once_for_all_models(tiny_folder, monkeypatch):
    loaded = models.load(tiny_folder)
    runtimes = [PyTorchRuntime(loaded) for _ in range(3)]
    pixels, moves, taken = torch.rand(2, 3, 32, 32), [], []

    def moved(tensor, place):
        moves.append(place)
        return tensor + 1  # another tensor, as on a GPU

    def encode_image(self, pixels):
        taken.append(pixels)
        return torch.zeros(len(pixels), 4)

    monkeypatch.setattr(encoding, "moved", moved)
    monkeypatch.setattr(PyTorchRuntime, "encode_image", encode_image)
    assert Together(runtimes).encode_image(pixels).shape == (2, 12)
    assert moves == [torch.device("cpu")]
    assert len({id(tensor) for tensor in taken}) == 1
    assert torch.equal(taken[0], pixels + 1)


def test_the_next_batch_is_read_meanwhile_and_no_further():
    reading, threads = [], set()

    def read(index):
        reading.append(index)
        threads.add(threading.get_ident())
        return index

    batches = encode(read, 12, batch_size=3, workers=2)
    for number in range(4):
        next(batches)
        for _ in range(200):
            if len(reading) == min(12, 3 * (number + 2)):
                break
            time.sleep(0.01)
        assert sorted(reading) == list(range(min(12, 3 * (number + 2))))
    assert threading.get_ident() not in threads
    assert len(threads) <= 2


def test_what_is_no_broken_picture_is_raised():
    def read(index):
        raise MemoryError("too large")

    with pytest.raises(MemoryError, match="too large"):
        list(encode(read, 3, batch_size=2))


# ------------------------------------------------------------------ several ranks


def shared(n, bad, batch_size):
    own = []

    def read(index):
        own.append(index)
        if index in bad:
            raise BrokenInput(f"picture {index}")
        return index

    with distributed.joined():
        batches = list(encode(read, n, batch_size=batch_size, workers=2))
    return [(b.indices, b.features[:, :1].flatten().tolist(), b.failed) for b in batches], own


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize(("n", "bad"), [(23, (2, 9)), (3, ()), (8, (0, 1, 2)), (3, (0, 1, 2))])
def test_ranks_share_the_pictures_and_have_all_features_in_order(count, n, bad):
    expected, _ = shared(n, bad, 3)
    found = results(in_ranks(count, shared, n, bad, 3))
    for batches, _ in found:
        assert batches == expected
    read = [index for _, own in found for index in own]
    assert sorted(read) == list(range(n))  # each by one rank, none twice


def scored(folder, suite, cache):
    loaded = models.load(folder)
    with distributed.joined():
        runtime, asked = PyTorchRuntime(loaded), []
        for kind in ("image", "text"):
            real = getattr(runtime, f"encode_{kind}")

            def watched(batch, real=real, kind=kind):
                asked.append((kind, len(batch)))
                return real(batch)

            setattr(runtime, f"encode_{kind}", watched)
        found = evaluate(suite, with_runtime(runtime, loaded), batch_size=5, cache=cache)
    own = found.sets["shapes"]
    values = {metric: own.value(metric) for metric in own.metrics}
    return values, own.image_features.numpy(), asked, own.facts["pictures"]


def noted(file, *arguments):
    with open(file, "a") as said, contextlib.redirect_stderr(said):
        return scored(*arguments)


def test_a_suite_scored_by_ranks_is_what_one_process_scores(tiny_folder, shapes, tmp_path):
    root = shutil.copytree(shapes, tmp_path / "damaged")
    (root / "red_square" / "05.png").write_bytes(b"no picture")
    (tmp_path / "pairs.csv").write_text(
        "filepath,title\n"
        + "".join(
            f"{path.relative_to(root)},{path.parent.name} {path.stem}\n"
            for path in sorted(root.rglob("*.png"))
        )
    )
    suite = Suite.model_validate(
        {
            "name": "s",
            "tasks": ["retrieval"],
            "datasets": [
                {
                    "name": "shapes",
                    "role": "in-distribution",
                    "data": {
                        "source": "table",
                        "path": str(tmp_path / "pairs.csv"),
                        "root": str(root),
                        "task": "captions",
                        "broken_images": 1,
                    },
                }
            ],
        }
    )
    alone = scored(tiny_folder, suite, None)
    cache = Cache(tmp_path / "cache", 10**9)
    found = results(in_ranks(2, noted, tmp_path / "said", tiny_folder, suite, cache))
    for values, features, _, pictures in found:
        assert values == alone[0]
        assert pictures == 23
        assert (features == alone[1]).all()
    asked = [call for _, _, own, _ in found for call in own]
    assert sorted(asked) == sorted(alone[2])  # no picture and no text twice
    assert (tmp_path / "said").read_text().count("skipped: ") == 1

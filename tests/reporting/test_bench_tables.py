"""The table of `radapter bench`."""

import pytest
from rich.console import Console

from radapter.reporting.bench_tables import bench_table


def case(runtime, precision, **changes):
    return {
        "tower": "pictures", "runtime": runtime, "precision": precision, "device": "cpu",
        "batch": 1, "threads": 1, "calls": 20, "median_ms": 166.04, "p95_ms": 12345.6,
        "per_second": 6.0227, "speedup": 1.0, "speedup_range": [1.0, 1.0],
        "worst_cosine": 0.99999996, **changes,
    }  # fmt: skip


def result(**changes):
    return {
        "model": "ViT-B-32:random",
        "text_length": 77,
        "rounds": 10,
        "machine": {"cpu": "A processor", "instructions": "AVX512", "cores": 2, "gpu": None,
                    "load_before": 0.1},
        "cases": [
            case("torch", "fp32"),
            case("onnx-tensorrt", "fp16", speedup=123.456),
            case("onnx", "int8", tower="texts", batch=32, speedup=None, worst_cosine=None),
            case("torch-cuda", "fp32", tower="texts", batch=32, threads=None),
        ],
        "left_out": [
            {"runtime": "onnx-cuda", "precision": "fp32", "reason": "No GPU. Use onnx."},
            {"runtime": "onnx-cuda", "precision": "fp16", "reason": "No GPU. Use onnx."},
            {"runtime": "onnx-cuda", "precision": "int8", "reason": "Not on a GPU."},
        ],
        **changes,
    }  # fmt: skip


def printed(content):
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(bench_table(content))
    return console.export_text().splitlines()


def test_it_fits_80_columns_and_says_all():
    lines = [line.rstrip() for line in printed(result())]
    assert max(map(len, lines)) <= 80
    assert "…" not in "\n".join(lines)
    assert lines[0] == "ViT-B-32:random, texts of 77 tokens, on A processor, AVX512, 2 cores"
    rows = [line.split() for line in lines]
    assert ["pictures,", "batch", "1"] in rows
    assert ["torch", "fp32", "1", "166.0", "12346", "6.02", "1.00", "0.9999999"] in rows
    assert ["onnx-tensorrt", "fp16", "1", "166.0", "12346", "6.02", "123.46", "0.9999999"] in rows
    assert ["texts,", "batch", "32"] in rows
    assert ["onnx", "int8", "1", "166.0", "12346", "6.02", "-", "-"] in rows
    assert ["torch-cuda", "fp32", "166.0", "12346", "6.02", "1.00", "0.9999999"] in rows
    assert "left out: onnx-cuda (fp32, fp16): No GPU. Use onnx." in lines
    assert "left out: onnx-cuda (int8): Not on a GPU." in lines


@pytest.mark.parametrize(("load", "busy"), [(None, False), (0.4, False), (0.6, True)])
def test_a_busy_machine_is_said_to_be_one(load, busy):
    content = result()
    content["machine"]["load_before"] = load
    assert ("The machine was busy" in " ".join(printed(content))) is busy

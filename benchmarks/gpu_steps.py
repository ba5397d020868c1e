"""The steps of gpu.py, each in a process of its own:

    python benchmarks/gpu_steps.py STEP DEVICE TINY FOLDER

Rows of the table are appended to FOLDER/rows.jsonl as they are found.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gpu
import torch
import training as steps_of_training

from radapter import models, processors
from radapter import recipe as recipes
from radapter.errors import MissingDependency, ran_out_of_memory
from radapter.precision import exact_fp32

STEP, DEVICE, TINY, OUT = sys.argv[1], sys.argv[2], sys.argv[3] == "1", Path(sys.argv[4])
CUDA = DEVICE.startswith("cuda")
MODEL = "pictogram-clip" if TINY else "ViT-B-16:random"
CORES = processors.at_hand()


# ---------------------------------------------------------------- rows and times


def row(name: str, value: Any, want: str = "", ok: bool | None = None) -> None:
    """What was found, what was wanted, whether it is so (None: a figure)."""
    found = {"step": STEP, "name": name, "value": str(value), "want": want, "ok": ok}
    with open(OUT / "rows.jsonl", "a") as file:
        file.write(json.dumps(found) + "\n")
    print(found, flush=True)


@contextlib.contextmanager
def tried(what: str) -> Iterator[None]:
    """An error is a row, and the next part goes on; what a card has no room for is no error."""
    try:
        yield
    except Exception as error:
        traceback.print_exc()
        first = (str(error).splitlines() or [""])[0]
        if ran_out_of_memory(error) or ran_out_of_memory(error.__cause__ or error):
            row(what, "does not fit")
            return
        row(what, f"{type(error).__name__}: {first[:150]}", "no error", False)


def milliseconds(call: Callable[..., Any], *arguments: Any, number: int, warm: int = 2) -> float:
    """The median of a call's time, from when the device is idle until it is again."""
    found = []
    for i in range(warm + number):
        start = clock()
        call(*arguments)
        found += [1000 * (clock() - start)] if i >= warm else []
    return statistics.median(found)


def clock() -> float:
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter()


def fresh_memory() -> None:
    if CUDA:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def fitting(batch: int) -> int:
    """A batch for 80 GB, by what this card has."""
    if not CUDA:
        return batch
    return gpu.fitting(batch, torch.cuda.get_device_properties(DEVICE).total_memory)


def peak() -> str:
    return f"{torch.cuda.max_memory_allocated() / 1e9:.2f} GB" if CUDA else "not counted"


def apart(one: list[float], two: list[float]) -> float:
    """The largest relative difference; infinite if there are not as many."""
    if len(one) != len(two):
        return float("inf")
    return max(abs(a - b) / abs(b) for a, b in zip(one, two, strict=True))


# ---------------------------------------------------------------- the machine


def machine() -> None:
    row("torch, Python, cores", f"{torch.__version__}, {sys.version.split()[0]}, {CORES}")
    if not CUDA:
        return
    card = torch.cuda.get_device_properties(0)
    row("card", f"{card.name}, {card.total_memory / 2**30:.0f} GiB, sm_{card.major}{card.minor}")
    row("cuDNN, NCCL", f"{torch.backends.cudnn.version()}, {torch.cuda.nccl.version()}")
    query = ["nvidia-smi", "--query-gpu=driver_version,clocks.sm,clocks.mem,power.draw"]
    with contextlib.suppress(OSError):
        said = subprocess.run([*query, "--format=csv,noheader"], capture_output=True, text=True)
        row("driver, clocks, power", said.stdout.strip())
    source = torch.randn(2**28, device=DEVICE)
    ms = milliseconds(torch.empty_like(source).copy_, source, number=10)
    row("copy on the device", f"{2 * source.nbytes / ms / 1e9:.2f} TB/s")
    del source
    for kind, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        x = torch.randn(8192, 8192, device=DEVICE, dtype=dtype)
        with exact_fp32():
            ms = milliseconds(torch.matmul, x, x, number=8)
        row(f"a product of 8192 x 8192 in {kind}", f"{2 * 8192**3 / ms / 1e9:.0f} TFLOP/s")
    batch = torch.zeros(512, 3, 224, 224, dtype=torch.uint8)
    for kind, x in (("pageable", batch), ("pinned", batch.pin_memory())):
        ms = milliseconds(x.to, DEVICE, number=5)
        row(f"512 pictures to the device, {kind}", f"{ms:.1f} ms, {x.nbytes / ms / 1e6:.1f} GB/s")


# ---------------------------------------------------------------- whole runs


def emoji(device: str, *more: str) -> recipes.Recipe:
    small = ["data.split=validation", "optimisation.batch_size=64", "optimisation.epochs=1"]
    workers = "workers=0" if TINY else f"workers={min(8, CORES)}"
    changes = [f"device={device}", "precision=fp32", workers, *(small if TINY else []), *more]
    return recipes.load(recipes.locate("emoji"), changes)


def trained(name: str, device: str, *more: str, **hooks: Any) -> dict[str, Any]:
    """Train the built-in recipe; its losses and where it is, kept for later steps."""
    from radapter.training import train

    seen: list[dict[str, Any]] = []
    start = time.monotonic()
    run = train(emoji(device, *more), OUT / "runs", on_step=seen.append, **hooks)
    facts = {
        "run": str(run.path),
        "losses": [m["loss"] for m in seen],
        "seconds": time.monotonic() - start,
        "rate": statistics.median(m["pairs_per_second"] for m in seen[-20:]),
        "waits": statistics.median(m["data_wait_share"] for m in seen),
    }
    (OUT / f"training-{name}.json").write_text(json.dumps(facts))
    return facts


TIME_FOR_THE_CPU = 540
"""Seconds from the begin of `training`, which ends after a minute more"""


def training_on_the_cpu() -> None:
    trained("cpu", "cpu", *([] if TINY else ["workers=2"]))


def training() -> None:
    from radapter.training import Interrupted, resume

    command = [sys.executable, __file__, "training_on_the_cpu", "cpu", *sys.argv[3:]]
    beside = subprocess.Popen(command, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
    begun = time.monotonic()
    variants = {
        "fp32": ([], 2e-2), "bf16": (["precision=bf16"], 8e-2), "fp16": (["precision=fp16"], 8e-2),
        "fp32 again": ([], 2e-2), "micro_batch": (["optimisation.micro_batch=32"], 2e-2),
        "drop_unit sample": (["method.drop_unit=sample"], None),
        "LoRA": (["method={name: lora}", "precision=bf16"], None),
    }  # fmt: skip
    found: dict[str, dict[str, Any]] = {}
    for name, (more, _) in list(variants.items())[: 2 if TINY else None]:
        with tried(name):
            fresh_memory()
            found[name] = f = trained(name, DEVICE, *more)
            value = f"{f['seconds']:.0f} s, {f['rate']:.0f} pairs/s, {f['waits']:.0%}, {peak()}"
            row(f"{name}: time, rate, waits for data, memory", value)
    with tried("stop and resume"):
        stop = iter([False] * (1 if TINY else 39) + [True] * 10**6)
        try:
            trained("stopped", DEVICE, should_stop=lambda: next(stop))
        except Interrupted as stopped:
            run = resume(stopped.run)
            losses = [line["loss"] for line in run.logged("loss")]
            found["resumed"] = {"run": str(run.path), "losses": losses}
    cpu: list[float] | None = None
    try:
        code: int | str = beside.wait(max(1, TIME_FOR_THE_CPU - (time.monotonic() - begun)))
    except subprocess.TimeoutExpired:
        beside.kill()
        code = "none: it did not end in time"
    if code == 0:
        cpu = json.loads((OUT / "training-cpu.json").read_text())["losses"]
    else:
        row("the run on the CPU: exit code", code, "0", False)
    for name, f in found.items():
        allowed = variants.get(name, ([], 2e-2))[1]
        if allowed is None:
            first, last = f["losses"][0], f["losses"][-1]
            row(f"{name}: loss", f"{first:.3f} to {last:.3f}", "falls", last < first)
            continue
        if cpu is None:
            row(f"{name}: losses", f"{f['losses'][0]:.3f} to {f['losses'][-1]:.3f}")
            continue
        worst = apart(f["losses"], cpu)
        row(f"{name}: losses beside the CPU's", f"{worst:.1e}", f"{allowed:g}", worst <= allowed)


def parity() -> None:
    from radapter import merging
    from radapter.evaluation.evaluate import evaluate
    from radapter.evaluation.parity import compare, tolerance_of
    from radapter.evaluation.suite import load_suite
    from radapter.runtimes.opened import from_loaded

    run = Path(json.loads((OUT / "training-fp32.json").read_text())["run"])
    tuned = merging.open_trained(run)
    loaded = models.load("pictogram-clip")
    loaded.model.load_state_dict(tuned.at(0.5))
    suite = load_suite("emoji-shifts").for_recipe(emoji(DEVICE))
    if TINY:
        suite = suite.without([dataset.name for dataset in suite.datasets[1:]])
    opened, done = suite.open(), {}
    cases = [("cpu", "cpu", "fp32"), ("fp32", DEVICE, "fp32"), ("again", DEVICE, "fp32")]
    cases += [] if TINY else [("fp16", DEVICE, "fp16"), ("bf16", DEVICE, "bf16")]
    for name, device, precision in cases:
        own, start = dataclasses.replace(loaded), time.monotonic()
        done[name] = evaluate(suite, from_loaded(own, name, device, precision), opened=opened)
        pictures = sum(len(own.pictures) for own in done[name].sets.values())
        row(f"{name}: pictures a second", f"{pictures / (time.monotonic() - start):.0f}")
    for name in [name for name in done if name not in ("cpu", "again")]:
        # bf16 keeps fewer digits than fp16: its figures are told and not judged.
        allowed = tolerance_of("int8" if name == "bf16" else name)
        found = compare(done["cpu"], done[name], allowed)
        worst = max((abs(metric["difference"]) for metric in found["metrics"]), default=0)
        value = f"{1 - found['cosine']['worst']:.1e}, {found['agreement']:.3%}, {worst:.4f}"
        what = f"{name} beside the CPU: 1 - worst cosine, agreement, largest difference of a metric"
        verdict = {} if name == "bf16" else {"want": "the gate passes", "ok": found["passed"]}
        row(what, value, **verdict)
    same = all(
        torch.equal(own.image_features, done["again"].sets[name].image_features)
        for name, own in done["fp32"].sets.items()
    )
    row("the same features twice, bit for bit", same, "True", same)


# ---------------------------------------------------------------- steps of training


def step_of(case: dict[str, Any], loaded: Any, content: dict[str, Any]) -> Callable[[], Any]:
    """One optimizer step after the other."""
    from radapter.training.step import optimizer_step

    case = {"device": DEVICE, "precision": "bf16", **case}
    parts = steps_of_training.prepared(loaded, content, case)
    numbers = itertools.count()

    def step() -> None:
        torch.manual_seed(next(numbers))
        with exact_fp32():
            optimizer_step(parts, content)

    return step


def placed(name: str) -> Any:
    loaded = models.load(name)
    loaded.model.to(DEVICE)
    return loaded


def host() -> None:
    batch = 16 if TINY else fitting(512)
    loaded = placed(MODEL)
    content = steps_of_training.content_of(loaded, batch)
    step = step_of({}, loaded, content)
    pageable = content["images"]
    places = {"pageable memory": lambda: pageable}
    if CUDA:
        places |= {"pinned memory": pageable.pin_memory, "the device": lambda: pageable.to(DEVICE)}
    for where, moved in places.items():
        what = f"{MODEL}, bf16, batch {batch}, pictures from {where}"
        with tried(what):
            content["images"] = moved()
            ms = milliseconds(step, number=2 if TINY else 6)
            row(what, f"{ms:.1f} ms")
    for precision, allowed in (("fp32", 1), ("bf16", 1), ("fp16", 2)):  # as optimizer_step says
        with tried(f"waits in {precision}"):
            own = placed(MODEL)
            small = steps_of_training.content_of(own, 16)
            step = step_of({"precision": precision}, own, small)
            step()
            if CUDA:
                places_of = waits(step)
                value = f"{len(places_of)}: {' '.join(places_of)}"
                what = f"waits for the device in a step, {precision}"
                row(what, value, f"{allowed} or fewer", len(places_of) <= allowed)
    if CUDA:
        with tried("profile"):
            profiled(step_of({}, placed(MODEL), steps_of_training.content_of(loaded, batch // 2)))


def waits(step: Callable[[], Any]) -> list[str]:
    """Where, in one step, the CPU waits for the device."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return [
        f"{Path(warning.filename).name}:{warning.lineno}"
        for warning in caught
        if "called a synchronizing" in str(warning.message)
    ]


def profiled(step: Callable[[], Any]) -> None:
    from torch.profiler import ProfilerActivity, profile

    step()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as found:
        start = clock()
        step()
        wall = clock() - start
    events = found.key_averages()
    busy = sum(e.self_device_time_total for e in events if e.device_type.name == "CUDA") / 1e6
    row("share of a step in which kernels run", f"{busy / wall:.0%} of {1000 * wall:.0f} ms")
    by_time = events.table(sort_by="self_device_time_total", row_limit=60)
    (OUT / "profile.txt").write_text(by_time)


def evaluation() -> None:
    from radapter.runtimes.pytorch import PyTorchRuntime

    for name in ("pictogram-clip",) if TINY else ("ViT-B-16:random", "RN50:random"):
        loaded, batch = models.load(name), 8 if TINY else 64
        size = loaded.config["preprocess_cfg"]["size"]
        height, width = (size, size) if isinstance(size, int) else size
        pixels = torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))
        expected = PyTorchRuntime(loaded).encode_image(pixels[:8]).double()
        for precision, allowed in (("fp32", 1e-5), ("fp16", 1e-3), ("bf16", 5e-2)):
            with tried(f"{name} in {precision}"):
                runtime = PyTorchRuntime(loaded, DEVICE, precision)
                ms = milliseconds(runtime.encode_image, pixels, number=2 if TINY else 8)
                row(f"{name}, {precision}: pictures a second", f"{1000 * batch / ms:.0f}")
                features = runtime.encode_image(pixels[:8]).double()
                worst = 1 - float(torch.cosine_similarity(features, expected).min())
                what = f"{name}, {precision}: 1 - worst cosine to the CPU"
                row(what, f"{worst:.1e}", f"{allowed:g}", worst <= allowed)
        if CUDA and name.startswith("RN50"):
            with tried(f"{name} without cuDNN"):
                runtime = PyTorchRuntime(loaded, DEVICE)
                torch.backends.cudnn.enabled = False
                try:
                    ms = milliseconds(runtime.encode_image, pixels, number=8)
                finally:
                    torch.backends.cudnn.enabled = True
                row(f"{name}, fp32 without cuDNN: pictures a second", f"{1000 * batch / ms:.0f}")


def benchmark(command: str, precision: str, batch: int, number: int) -> None:
    """benchmarks/training.py, whose table's lines are rows."""
    words = [sys.executable, steps_of_training.__file__, command, "--model", MODEL, "--device"]
    words += [DEVICE, "--precision", precision, "--batch", str(batch), "--rounds", "1"]
    done = subprocess.run([*words, "--steps", str(number)], stdout=subprocess.PIPE, text=True)
    lines = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("| ")]
    for name, *figures in lines[1:]:
        value = ", ".join(figure.strip() for figure in figures if figure.strip())
        row(f"{MODEL}, {precision}, batch {batch}, {name.strip()}", value)
    row(f"{precision}, batch {batch}: all that fit were measured", done.returncode == 0, "True",
        done.returncode == 0)  # fmt: skip


def methods() -> None:
    sizes = [("bf16", fitting(512)), ("fp32", fitting(256))]
    for precision, batch in [("bf16", 8)] if TINY else sizes:
        benchmark("methods", precision, batch, 1 if TINY else 6)


def levers() -> None:
    sizes = [("bf16", fitting(256)), ("fp32", fitting(256))]
    for precision, batch in [("bf16", 8)] if TINY else sizes:
        benchmark("levers", precision, batch, 1 if TINY else 5)


def compiled() -> None:
    losses = {}
    for on in ("false", "true"):
        with tried(f"compile: {on}"):
            found = trained(f"compile-{on}", DEVICE, f"compile={on}", "optimisation.epochs=1")
            losses[on] = found["losses"]
            row(f"compile: {on}", f"{found['seconds']:.0f} s")
    if len(losses) == 2:
        worst = apart(losses["true"], losses["false"])
        row("losses compiled beside eager", f"{worst:.1e}", "2e-3", worst <= 2e-3)


def loader() -> None:
    import numpy as np
    from PIL import Image

    from radapter.training import train

    root, rng = OUT / "jpegs", np.random.default_rng(0)
    for i in range(64 if TINY else 2048):
        path = root / f"class {i % 8}" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = Image.fromarray(rng.integers(0, 256, (47, 63, 3)).astype(np.uint8))
        noise.resize((500, 375), Image.Resampling.BILINEAR).save(path, quality=90)
    batch, epochs = (16, 1) if TINY else (fitting(512), 4)
    text = (
        f'{{name: jpegs, model: "{MODEL}", method: {{name: r-adapter}}, device: {DEVICE},'
        f' data: {{source: folder, root: "{root}"}}, precision: bf16,'
        f" optimisation: {{batch_size: {batch}, epochs: {epochs}}}}}"
    )
    for workers in [0] if TINY else sorted({min(8, CORES), CORES}):
        with tried(f"{workers} workers"):
            seen: list[dict[str, Any]] = []
            recipe = recipes.parse(text, "jpegs", [f"workers={workers}"])
            train(recipe, OUT / "runs", on_step=seen.append)
            later = seen[2:] or seen
            rate = statistics.median(m["pairs_per_second"] for m in later)
            waiting = statistics.median(m["data_wait_share"] for m in later)
            what = f"{MODEL}, bf16, batch {batch}, {workers} workers of {CORES} cores"
            row(f"{what}: rate, waits for pictures", f"{rate:.0f} pairs/s, {waiting:.0%}")


# ---------------------------------------------------------------- several processes

UNEVEN = ["optimisation.eps=1e-3", "optimisation.batch_size=127", "optimisation.epochs=1"]


def ranks() -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    own = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    command = [sys.executable, __file__, "one_rank", *sys.argv[2:]]
    both = [
        subprocess.Popen(command, env=os.environ | own | {"RANK": str(rank)}) for rank in (0, 1)
    ]
    alone = trained("one-process", DEVICE, *UNEVEN)
    codes = [process.wait() for process in both]
    two = json.loads((OUT / "training-two-ranks.json").read_text())
    worst = apart(two["losses"], alone["losses"])
    good = codes == [0, 0] and worst <= 1e-3
    row("two processes beside one: losses", f"{worst:.1e}, exit codes {codes}", "1e-3", good)


def one_rank() -> None:
    """NCCL refuses two processes on one card, so gloo carries what is on the device."""
    import torch.distributed as dist

    dist.init_process_group(f"cpu:gloo,{torch.device(DEVICE).type}:gloo" if CUDA else "gloo")
    if dist.get_rank() == 0:
        trained("two-ranks", DEVICE, *UNEVEN)
    else:  # it is told of no steps
        from radapter.training import train

        train(emoji(DEVICE, *UNEVEN), OUT / "runs")
    dist.destroy_process_group()


def nccl() -> None:
    import torch.distributed as dist

    from radapter import distributed

    backend = "cpu:gloo,cuda:nccl" if CUDA else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    distributed.world_size = lambda: 2  # so that collectives are called, in a group of one
    x = torch.randn(7, 5, device=DEVICE)
    same = torch.equal(distributed.add_up(x.clone()), x)
    same = same and torch.equal(distributed.gather(x, 0, 7), x)
    row(f"{backend}: features are summed and gathered on the device", same, "True", same)
    parameters = [torch.nn.Parameter(torch.zeros(768, 768, device=DEVICE)) for _ in range(49)]
    for parameter in parameters[:-1]:
        parameter.grad = torch.randn_like(parameter)
    before = [parameter.grad.clone() for parameter in parameters[:-1]]
    distributed.sum_gradients(parameters)
    same = all(torch.equal(p.grad, g) for p, g in zip(parameters, before, strict=False))
    same = same and parameters[-1].grad is None
    row("48 gradients are summed, and one that is not there", same, "True", same)
    ms = milliseconds(distributed.sum_gradients, parameters, number=5)
    row("sum of 48 gradients of 768 x 768", f"{ms:.2f} ms")
    said = distributed.anyone(True) and not distributed.anyone(False)
    row("flags on the CPU beside it", said, "True", said)
    dist.destroy_process_group()


def exits(what: str, wanted: int, *words: str) -> None:
    start = time.monotonic()
    done = subprocess.run([sys.executable, *words])
    value = f"exit code {done.returncode}, {time.monotonic() - start:.0f} s"
    row(what, value, f"exit code {wanted}", done.returncode == wanted)


def radapter(what: str, wanted: int, *words: str) -> None:
    exits(f"radapter {what}", wanted, "-m", "radapter_cli", *words)


def launch() -> None:
    one = ["optimisation.epochs=1", "data.split=validation", f"device={DEVICE}"]
    many = max(2, torch.cuda.device_count() + 1)
    os.chdir(OUT)
    if CUDA:
        torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "1", "-m", "radapter_cli"]
        exits("torchrun, one process", 0, *torchrun, "train", "emoji", *one)
    more = ("train", "emoji", "--devices", str(many), *one)
    if CUDA:
        radapter(f"train --devices {many}, which are not there", 2, *more)


def commands() -> None:
    run = json.loads((OUT / "training-fp32.json").read_text())["run"]
    small = OUT / "small.yaml"
    small.write_text(
        'name: small\ntemplates: ["a picture of {}."]\ntasks: [classification]\ndatasets:\n'
        "- {name: noto, role: in-distribution, data: {source: emoji, styles: [noto], split: test}}"
    )
    on = ("--run", run, "--device", DEVICE)
    radapter("merge --alpha auto", 0, "merge", *on, "--alpha", "auto", "--no-cache")
    radapter("merge --alpha 0.5", 0, "merge", *on, "--alpha", "0.5")
    radapter("export", 0, "export", *on, *(["--no-verify"] if TINY else []))
    suite = ("--suite", str(small)) if TINY else ()
    radapter("eval --runtime all", 0, "eval", *on, "--runtime", "all", "--no-cache", *suite)


def bench() -> None:
    both = ("--runtime", "torch", *(("--runtime", "torch-cuda") if CUDA else ()))
    quick = ("--rounds", "2", "--seconds", "0.1" if TINY else "0.5", "--batch", "1,32")
    radapter("bench, PyTorch on both", 0, "bench", "--model", MODEL, *both, *quick)


# ---------------------------------------------------------------- runtimes and memory


def onnx() -> None:
    import onnxruntime

    from radapter.runtimes.onnx import OnnxRuntime
    from radapter.runtimes.providers import CPU as CPU_PROVIDER
    from radapter.runtimes.providers import CUDA as CUDA_PROVIDER
    from radapter.runtimes.pytorch import PyTorchRuntime

    provider = CUDA_PROVIDER if CUDA else CPU_PROVIDER
    bundles = sorted((OUT / "runs").glob("*/bundles/*"))
    if not bundles or provider not in onnxruntime.get_available_providers():
        has = ", ".join(onnxruntime.get_available_providers())
        row(provider, f"not tried: {len(bundles)} bundles of the step `commands`, {has}")
        return
    folder = bundles[-1]
    merged = folder.parents[1] / "merged"
    loaded = models.load(merged / (merged / "current").read_text().strip())
    size = loaded.config["preprocess_cfg"]["size"]
    height, width = (size, size) if isinstance(size, int) else size
    pixels = torch.randn(64, 3, height, width, generator=torch.Generator().manual_seed(0))
    tokens = loaded.tokenizer([f"a photo of {i} cats" for i in range(64)])
    reference, engine = PyTorchRuntime(loaded), OnnxRuntime(folder, provider)
    for what, ours, theirs in (
        ("pictures", engine.encode_image(pixels), reference.encode_image(pixels)),
        ("texts", engine.encode_text(tokens), reference.encode_text(tokens)),
    ):
        worst = 1 - float(torch.cosine_similarity(ours.double(), theirs.double()).min())
        row(f"{engine.name}, {what}: 1 - worst cosine", f"{worst:.1e}", "1e-5", worst <= 1e-5)
    ms = milliseconds(engine.encode_image, pixels, number=5)
    row(f"{engine.name}: pictures a second", f"{64000 / ms:.0f}, {engine.provenance['nodes']}")


def memory() -> None:
    if not CUDA:
        row("out of memory", "needs a GPU")
        return
    name, batch = ("pictogram-clip", 16) if TINY else ("ViT-L-14-336:random", fitting(512))
    for share, more in ((8, []), (2, ["activation_checkpointing=true"])):
        what = f"{name}, bf16, batch {batch}, micro_batch {batch // share} {' '.join(more)}"
        with tried(what):
            in_parts(what, name, batch, [f"optimisation.micro_batch={batch // share}", *more])
    fresh_memory()
    torch.cuda.set_per_process_memory_fraction(1e9 / torch.cuda.mem_get_info()[1])
    try:
        trained("too-large", DEVICE, "optimisation.batch_size=512", "method={name: full}")
        row("out of memory", "it fitted into 1 GB")
    except MissingDependency as error:
        said = str(error).splitlines()[0]
        row("out of memory in training", said, "names micro_batch", "micro_batch" in said)


def in_parts(what: str, name: str, batch: int, more: list[str]) -> None:
    """A step in micro batches. All that it has on the device goes when this returns."""
    fresh_memory()
    loaded = placed(name)
    step = step_of({"recipe": more}, loaded, steps_of_training.content_of(loaded, batch))
    row(what, f"{milliseconds(step, number=1, warm=1):.0f} ms, {peak()}")


if __name__ == "__main__":
    globals()[STEP]()

"""radapter info: versions, devices, runtimes that really load, models, suites, data."""

from __future__ import annotations

import platform
from typing import Any

import typer

import radapter
from radapter.versions import MACHINE, versions
from radapter_cli import console


def show_version(wanted: bool) -> None:
    if wanted:
        print(f"radapter {radapter.__version__}")
        for package, found in versions(MACHINE).items():
            print(f"{package} {found}")
        raise typer.Exit()


def info(as_json: console.JsonOption = False) -> None:
    """Show what this machine can do: the content of a good bug report."""
    facts = collect()
    if as_json:
        console.print_json(facts)
        return
    for title, content in facts.items():
        console.out.print(f"[bold]{title}[/]")
        for key, value in content.items():
            console.result(f"  {key}: {value}")


def collect() -> dict[str, dict[str, Any]]:
    import torch

    from radapter import recipe
    from radapter.evaluation.suite import load_suite, shipped_suites
    from radapter.models import names
    from radapter.registry import SOURCES, load
    from radapter.run import all_runs

    devices = {"cpu": f"{torch.get_num_threads()} threads"}
    for i in range(torch.cuda.device_count()):
        devices[f"cuda:{i}"] = torch.cuda.get_device_name(i)
    known = names()
    return {
        "versions": {
            "radapter": radapter.__version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            **versions(MACHINE),
        },
        "devices": devices,
        "runtimes": runtimes(),
        "models": {
            "built in": known[0],
            "open_clip": f"{len(known) - 1} weights, such as ViT-B-16:openai (fetched when used)",
        },
        "recipes": {name: recipe.load(path).description for name, path in recipe.shipped().items()},
        "suites": {
            name: f"{len(load_suite(name).datasets)} data sets" for name in shipped_suites()
        },
        "data": {n: said for n in SOURCES if (said := load(SOURCES, n).built_in()) is not None},
        "runs": {"./runs": f"{len(all_runs())}"},
    }


def runtimes() -> dict[str, str]:
    """Each runtime and whether it really loads here."""
    from radapter.errors import MissingDependency
    from radapter.runtimes.onnx import CPU, NAMES, import_onnxruntime, missing_library, preload
    from radapter.runtimes.trt import cuda, flavours

    found = {"torch": "loads"}
    try:
        ort = import_onnxruntime()
        providers = ort.get_available_providers()
        found["onnx"] = f"loads; built with {', '.join(providers)}"
        for provider in [p for p in NAMES if p != CPU and p in providers]:
            preload(ort)
            missing = missing_library(ort, provider)
            found[NAMES[provider]] = f"does not load: {missing}" if missing else "loads"
    except MissingDependency as error:
        found["onnx"] = str(error)
    try:
        present = cuda.gpus()
        gpu = ", ".join(f"{g.name} ({g.compute_capability})" for g in present)
    except MissingDependency as error:
        gpu = ""
        reason = str(error)
    for flavour in flavours.FLAVOURS.values():
        try:
            flavours.choose(flavour.name)
            trt = flavours.load(flavour)
        except MissingDependency as error:
            found[flavour.title] = str(error)
            continue
        builds = flavour == flavours.RTX or bool(gpu)
        found[flavour.title] = (
            f"loads, {trt.__version__}; {'builds engines' if builds else 'needs a GPU to build'}; "
            + (f"runs them on {gpu}" if gpu else f"runs none here: {reason}")
        )
    return found

"""Every name of TensorRT that the code uses exists in 10.16, 11.4 and TensorRT-RTX 1.7.

The lists in `tensorrt_names/` were read from NVIDIA's published Python bindings. Plain TensorRT
cannot be installed where there is no GPU and no access to NVIDIA's own index, so this is what keeps
the code from using what a version has not (`BuilderFlag.FP16` is gone in 11, for one).
"""

import ast
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "radapter"
LISTS = {
    path.stem: json.loads(path.read_text())
    for path in sorted((Path(__file__).parent / "tensorrt_names").glob("*.json"))
}
RTX = "tensorrt-rtx-1.7"

# What the variables of each file hold: the module itself, or objects of these classes.
HOLDS = {
    "export/trt/build.py": {
        "trt": "module",
        "builder": "Builder",
        "network": "INetworkDefinition",
        "parser": "OnnxParser",
        "config": "IBuilderConfig",
        "ranges": "IOptimizationProfile",
        "engine": "IHostMemory",
        "error": "ParserError",
        "layer": "IAttentionInputLayer",
        "layer.attention": "IAttention",
        "config.get_timing_cache()": "ITimingCache",
    },
    "runtimes/trt/flavours.py": {"trt": "module"},
    "runtimes/trt/fitting.py": {"trt": "module"},
    "runtimes/trt/runtime.py": {
        "trt": "module",
        "self._trt": "module",
        "runtime": "Runtime",
        "self._runtime": "Runtime",
        "engine": "ICudaEngine",
        "self._engine": "ICudaEngine",
        "config": "IRuntimeConfig",
        "context": "IExecutionContext",
        "self._context": "IExecutionContext",
        "slot.context": "IExecutionContext",
    },
}
# Plain values that the library's calls give: no attribute of them is the library's.
VALUES = {"strong", "targets", "target", "names", "modes", "types", "validity", "result", "levels",
          "members", "known", "facts", "what", "taken", "given"}  # fmt: skip
# Names that TensorRT-RTX alone has, and the functions, entered for that flavour only, that may use
# them.
RTX_ONLY = {
    "ComputeCapability": {"_targets", "_set_targets", "check_engine"},
    "IBuilderConfig.num_compute_capabilities": {"_set_targets"},
    "IBuilderConfig.set_compute_capability": {"_set_targets"},
    "EngineValidity": {"_check_validity"},
    "EngineValidity.INVALID": {"_check_validity"},
    "Runtime.get_engine_validity": {"_check_validity"},
    "IRuntimeConfig.cuda_graph_strategy": {"_rtx_context"},
    "CudaGraphStrategy": {"_rtx_context"},
    "CudaGraphStrategy.WHOLE_GRAPH_CAPTURE": {"_rtx_context"},
}


def spelled(node: ast.expr) -> str:
    """`self._engine.x` or `config.get_timing_cache().x` as text; empty for another expression."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = spelled(node.value)
        return inner and f"{inner}.{node.attr}"
    if isinstance(node, ast.Call):
        inner = spelled(node.func)
        return inner and f"{inner}()"
    return ""


def used(tree: ast.AST, holds: dict[str, str]) -> dict[tuple[str, str], int]:
    """(Name, function that uses it) -> line; names are `Enum`, `Enum.MEMBER` or `Class.method`."""
    found = {}
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    inside = {id(n): f.name for f in functions for n in ast.walk(f)}  # the innermost is the last
    for node in ast.walk(tree):
        where = inside.get(id(node), "")
        if isinstance(node, ast.Attribute) and not node.attr.startswith("_"):
            owner = spelled(node.value)
            kind = holds.get(owner)
            if kind is not None:
                name = node.attr if kind == "module" else f"{kind}.{node.attr}"
                found[name, where] = node.lineno
            head, _, middle = owner.rpartition(".")
            if holds.get(head) == "module" and not middle.startswith("_"):
                found[f"{middle}.{node.attr}", where] = node.lineno
    return found


def unknown_variables(tree: ast.AST, holds: dict[str, str]) -> list[str]:
    """What is assigned from a call of the library but neither held nor a plain value."""
    unknown = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            owner = spelled(node.value.func).rpartition(".")[0]
            for target in node.targets:
                elements = target.elts if isinstance(target, ast.Tuple) else [target]
                names = [spelled(element) for element in elements]
                if owner in holds:
                    unknown += [n for n in names if n not in holds and n not in VALUES]
    return [n for n in unknown if n != "diagnostics"]


def exists(name: str, names: dict) -> bool:
    owner, dot, member = name.partition(".")
    if not dot:
        return name in names["top"]
    return member in names["enums"].get(owner, ()) or member in names["classes"].get(owner, ())


def wrong(source: str, holds: dict[str, str]) -> list[str]:
    """What a source uses that is not in all lists, or not where it may be; empty if all is well."""
    problems = []
    for (name, function), line in used(ast.parse(source), holds).items():
        if name in RTX_ONLY:
            lists = [RTX]
            if function not in RTX_ONLY[name]:
                problems.append(f"line {line}: {name} is TensorRT-RTX's alone, not for {function}")
        else:
            lists = list(LISTS)
        problems += [
            f"line {line}: {name} is not in {version}"
            for version in lists
            if not exists(name, LISTS[version])
        ]
    return problems


def test_three_versions_are_listed():
    assert list(LISTS) == ["tensorrt-10.16", "tensorrt-11.4", RTX]
    for names in LISTS.values():
        assert len(names["top"]) > 200
        assert "build_serialized_network" in names["classes"]["Builder"]


@pytest.mark.parametrize("file", HOLDS)
def test_every_name_exists_in_every_version(file):
    assert wrong((ROOT / file).read_text(encoding="utf-8"), HOLDS[file]) == []


@pytest.mark.parametrize("file", HOLDS)
def test_every_object_of_the_library_is_watched(file):
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert unknown_variables(tree, HOLDS[file]) == []


def test_no_other_file_uses_the_library():
    for path in sorted(ROOT.rglob("*.py")):
        file = path.relative_to(ROOT).as_posix()
        names = {n.id for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Name)}
        assert "trt" not in names or file in HOLDS, file


def test_the_files_use_many_names():
    """A check that finds nothing to check would pass for ever."""
    counts = {
        file: len(used(ast.parse((ROOT / file).read_text()), holds))
        for file, holds in HOLDS.items()
    }
    assert counts["export/trt/build.py"] >= 30
    assert counts["runtimes/trt/runtime.py"] >= 20


def test_what_code_reaches_by_getattr_is_known():
    """A guarded getattr is for names that some version has not."""
    reached = []
    for file, holds in HOLDS.items():
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            if isinstance(node, ast.Call) and spelled(node.func) in ("getattr", "hasattr"):
                owner = spelled(node.args[0])
                if owner.split(".")[0] in holds:
                    assert len(node.args) == 3 or spelled(node.func) == "hasattr", "no default"
                    reached.append(f"{owner.partition('.')[2]}.{ast.literal_eval(node.args[1])}")
    assert reached == ["NetworkDefinitionCreationFlag.STRONGLY_TYPED"]
    assert any(exists(name, names) for name in reached for names in LISTS.values())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("config.set_flag(trt.BuilderFlag.FP16)", "BuilderFlag.FP16 is not in tensorrt-11.4"),
        ("trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH", "is not in tensorrt-11.4"),
        ("builder.build_engine(network, config)", "Builder.build_engine is not in tensorrt-10.16"),
        ("config.int8_calibrator = None", "IBuilderConfig.int8_calibrator is not in"),
        ("config.num_compute_capabilities = 1", "TensorRT-RTX's alone, not for build"),
        ("trt.init_libnvinfer_plugin(None, '')", "init_libnvinfer_plugin is not in"),
        ("config.get_timing_cache().dump()", "ITimingCache.dump is not in"),
    ],
)
def test_the_check_bites(line, said):
    source = f"def build(trt, builder, network, config):\n    {line}\n"
    problems = wrong(source, HOLDS["export/trt/build.py"])
    assert problems
    assert said in problems[0]


def test_a_new_object_has_to_be_declared():
    tree = ast.parse("inspector = engine.create_engine_inspector()")
    assert unknown_variables(tree, HOLDS["runtimes/trt/runtime.py"]) == ["inspector"]


@pytest.mark.skipif(sys.platform != "linux", reason="TensorRT-RTX: tested on Linux")
def test_the_list_of_what_is_installed_is_true():
    import tensorrt_rtx as trt

    names = LISTS[RTX]
    if trt.__version__.split(".")[:2] != names["version"].split(".")[:2]:
        pytest.skip(f"the list is of {names['version']}, installed is {trt.__version__}")
    assert not [name for name in names["top"] if not hasattr(trt, name)]
    for kind in ("Builder", "IBuilderConfig", "ICudaEngine", "IExecutionContext", "Runtime"):
        assert not [
            name for name in names["classes"][kind] if not hasattr(getattr(trt, kind), name)
        ]

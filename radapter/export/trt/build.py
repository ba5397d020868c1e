"""One TensorRT engine from one ONNX file, with TensorRT 10, TensorRT 11 or TensorRT-RTX.

Networks are strongly typed: the precision is what the ONNX graph says (float16 weights, or Q/DQ
nodes for int8), never a flag of the builder. The vendor's library answers failures with `None`,
`False`, -1 and lines in its log; here they become our errors, with the node and the reason.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import onnx

from radapter import bundle
from radapter.errors import BrokenInput, GateFailed, MissingDependency, UsageError, nearest
from radapter.files import write_atomic
from radapter.runtimes.trt import cuda, flavours
from radapter.runtimes.trt.flavours import RTX, Flavour

Shape = tuple[int, ...]
Profile = Mapping[str, tuple[Shape, Shape, Shape]]
"""Smallest, usual and largest shape of every input whose shape is not fixed"""
Hardware = Literal["none", "ampere-plus", "same-compute-capability"]
# Two operators of onnxruntime's dynamic quantization, and what it puts in their place.
CPU_ONLY = {"DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "DynamicQuantizeMatMul"}
TURING = "7.5"


@dataclass(frozen=True)
class Options:
    """How to build; what a flavour does not have is a UsageError.

    `gpus` (TensorRT-RTX): compute capabilities to build for, such as `8.6`; empty: all but
    Turing, whose kernels NVIDIA advises to keep apart. The others (TensorRT) loosen what an engine
    is bound to, which is the GPU and the version that built it."""

    gpus: tuple[str, ...] = ()
    hardware: Hardware = "none"
    version_compatible: bool = False
    timing_cache: Path | None = None
    """TensorRT's measurements of kernels, read and written: a second build is quicker."""


@dataclass(frozen=True)
class Graph:
    """What has to be known of an ONNX file before it is built."""

    precision: str
    inputs: dict[str, tuple[int | str, ...]]
    """Names and shapes; a dimension with a name is dynamic"""
    cpu_only: frozenset[str]
    """Operators in it that only onnxruntime has, on the CPU"""


def read_graph(path: Path) -> Graph:
    """Precision, inputs and unfit operators of an ONNX file; weights stored apart are not read.

    Raises:
        BrokenInput: it is no ONNX file, or keeps weights outside of its folder.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own, by version
        raise BrokenInput(f"{path} is not an ONNX file: {error}. {bundle.AGAIN}") from None
    tensors = model.graph.initializer
    for file in bundle.weight_files(model):
        if not (path.parent / file).resolve().is_relative_to(path.parent.resolve()):
            raise BrokenInput(
                f"{path} keeps weights outside of its folder: {file!r}. Do not use this bundle."
            )
    operators = {node.op_type for node in model.graph.node}
    half = any(t.data_type == onnx.TensorProto.FLOAT16 and len(t.dims) > 1 for t in tensors)
    weights = {tensor.name for tensor in tensors}
    return Graph(
        "int8" if "QuantizeLinear" in operators else "fp16" if half else "fp32",
        {
            i.name: tuple(d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim)
            for i in model.graph.input
            if i.name not in weights
        },
        frozenset(operators & CPU_ONLY),
    )


def build_engine(
    path: Path, profile: Profile, flavour: Flavour, options: Options | None = None
) -> tuple[Any, dict[str, Any]]:
    """Build one engine. TensorRT-RTX needs no GPU for it; TensorRT builds for the one that is here.

    Args:
        path: an ONNX file.
        profile: shapes of its dynamic inputs.
        flavour: what to build with.
        options: see `Options`.

    Returns:
        The engine, as a buffer of bytes, and its facts: those of `identity`, `precision`,
        `build_seconds`, `bytes`.

    Raises:
        MissingDependency: the flavour, or the GPU that it needs, is not there.
        UsageError: the flavour has no such option or target.
        GateFailed: the graph cannot be built; the message has the node and the reason, the
            error's details every line that the library logged.
    """
    options = options or Options()
    facts = identity(flavour, options)
    trt = flavours.load(flavour)
    graph = read_graph(path)
    start = time.monotonic()
    with flavours.listening(flavour) as log:
        what = f"{flavour.title} {trt.__version__}"
        try:
            builder = trt.Builder(log)
        except TypeError:  # pybind11's word for a null pointer
            raise MissingDependency(
                f"{what} cannot start: {flavours.reason(log.lines)}. "
                "`radapter info` says what loads."
            ) from None
        strong = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        network = builder.create_network(0 if strong is None else 1 << int(strong))
        parser = trt.OnnxParser(network, log)
        if not parser.parse_from_file(str(path)):
            raise GateFailed(f"{what} cannot read {path.name}: {_parser_error(parser)}.")
        _allow_decomposition(trt, network)
        config = builder.create_builder_config()
        # fp32 means fp32: TF32 multiplies with ten bits of mantissa, and torch does not either.
        config.clear_flag(trt.BuilderFlag.TF32)
        _set_targets(trt, config, facts.get("target_gpus", []))
        _set_compatibility(trt, config, options)
        if profile:
            ranges = builder.create_optimization_profile()
            for name, (smallest, usual, largest) in profile.items():
                ranges.set_shape(name, smallest, usual, largest)
            if config.add_optimization_profile(ranges) < 0:
                raise GateFailed(
                    f"{what} refuses the shapes given for {path.name}: "
                    f"{flavours.reason(log.lines)}."
                )
        if flavour != RTX and options.timing_cache:
            _read_timing_cache(config, options.timing_cache)
        engine = builder.build_serialized_network(network, config)
        if engine is None:
            raise GateFailed(
                f"{what} cannot build {path.name} ({graph.precision}): "
                f"{flavours.reason(log.lines)}."
            )
        if flavour != RTX and options.timing_cache:
            write_atomic(options.timing_cache, bytes(config.get_timing_cache().serialize()))
    facts |= {
        "precision": graph.precision,
        "build_seconds": round(time.monotonic() - start, 1),
        "bytes": engine.nbytes,
    }
    return engine, facts


def identity(flavour: Flavour, options: Options) -> dict[str, Any]:
    """What binds an engine that would be built here: `flavour`, `version`, `target_gpus` (or the
    `gpu` that is here), `hardware`, `version_compatible`.

    Raises:
        MissingDependency: the flavour, or the GPU that it needs, is not there.
        UsageError: the flavour has no such option or target.
    """
    trt = flavours.load(flavour)
    targets = _targets(trt, flavour, options)
    return {
        "flavour": flavour.name,
        "version": trt.__version__,
        # Asked of the driver before a builder is made, which needs the GPU.
        **({"target_gpus": targets} if flavour == RTX else {"gpu": vars(cuda.gpu(0))}),
        "hardware": options.hardware,
        "version_compatible": options.version_compatible,
    }


def normal_gpu(text: str) -> str:
    """`sm86`, `86` or `8.6` -> `8.6`.

    Raises:
        UsageError: it is no compute capability.
    """
    digits = re.fullmatch(r"(?:sm_?)?(\d{1,2})\.?(\d)", text.strip().lower())
    if not digits:
        raise UsageError(f"'{text}' is not a compute capability: write it as 8.6 or sm86.")
    return f"{digits[1]}.{digits[2]}"


def _targets(trt: Any, flavour: Flavour, options: Options) -> list[str]:
    """The compute capabilities to build for, oldest first; none for TensorRT, which takes its own.

    Raises:
        UsageError: an option that the flavour does not have, or a GPU that it does not know.
    """
    if options.hardware not in get_args(Hardware):
        raise UsageError(
            "Unknown hardware compatibility "
            f"'{options.hardware}'.{nearest(options.hardware, list(get_args(Hardware)))}"
        )
    if flavour != RTX:
        if options.gpus:
            raise UsageError(
                "TensorRT builds for the GPU that is here: leave out the target GPUs, or build "
                "with TensorRT-RTX (--trt-flavour rtx)."
            )
        return []
    if options.hardware != "none" or options.version_compatible:
        raise UsageError(
            "TensorRT-RTX has neither hardware nor version compatibility: its engines serve every "
            "GPU that they name (--trt-gpu), with the version that built them."
        )
    members = trt.ComputeCapability.__members__
    known = {normal_gpu(name) for name in members if name.startswith("SM")}
    wanted = {normal_gpu(text) for text in options.gpus} or known - {TURING}
    if wanted - known:
        unknown = ", ".join(sorted(wanted - known, key=float))
        raise UsageError(
            f"TensorRT-RTX {trt.__version__} does not build for compute capability {unknown}, "
            f"only for {', '.join(sorted(known, key=float))}. For another GPU use TensorRT on it "
            "(--trt-flavour tensorrt)."
        )
    return sorted(wanted, key=float)


def _set_targets(trt: Any, config: Any, targets: Sequence[str]) -> None:
    if targets:  # TensorRT-RTX only
        config.num_compute_capabilities = len(targets)
        for index, gpu in enumerate(targets):
            target = trt.ComputeCapability.__members__[f"SM{gpu.replace('.', '')}"]
            if not config.set_compute_capability(target, index):
                raise GateFailed(f"TensorRT-RTX does not take compute capability {gpu}.")


def _set_compatibility(trt: Any, config: Any, options: Options) -> None:
    levels = {
        "ampere-plus": trt.HardwareCompatibilityLevel.AMPERE_PLUS,
        "same-compute-capability": trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY,
    }
    if options.hardware in levels:
        config.hardware_compatibility_level = levels[options.hardware]
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)


def _allow_decomposition(trt: Any, network: Any) -> None:
    """ONNX's attention operator (opset 23 and later) has no fused fp32 kernel: it may fall apart
    into matrix products and softmax, as it is in older opsets."""
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type == trt.LayerType.ATTENTION_INPUT:
            layer.__class__ = trt.IAttentionInputLayer  # the library's own way to cast
            layer.attention.decomposable = True


def _read_timing_cache(config: Any, path: Path) -> None:
    """Attach the stored measurements; those of another GPU or version are left aside."""
    stored = path.read_bytes() if path.is_file() else b""
    if not config.set_timing_cache(config.create_timing_cache(stored), False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _parser_error(parser: Any) -> str:
    """The first error of the parser, with its node."""
    if not parser.num_errors:
        return "it gave no reason"
    error = parser.get_error(0)
    node = (
        f"node '{error.node_name()}' ({error.node_operator()}): " if error.node_operator() else ""
    )
    kind = str(error.code()).rpartition(".")[2].lower().replace("_", " ")
    return f"{node}{kind}: {' '.join(error.desc().split())[:400]}"

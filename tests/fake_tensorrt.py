"""A fake of TensorRT's Python module, and of the little of torch.cuda that goes with it.

It is a fake: nothing of it is NVIDIA's but the names. The module, and every object that it hands
out, has the public names of one real version (tests/export/tensorrt_names) and no others: reading,
calling or setting another is an AttributeError. An "engine" is the ONNX file that it would have
been built from; running one reads from the input's address, runs onnxruntime and writes to the
output's.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import functools
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import torch

from radapter import bundle
from radapter.runtimes.trt import cuda, flavours

NAMES = Path(__file__).parent / "export" / "tensorrt_names"
VERSIONS = {"10.16": "tensorrt", "11.4": "tensorrt", "rtx-1.7": "rtx"}
GPU = cuda.Gpu("NVIDIA Fake 4090", "8.9")
LARGEST = 4  # batch
MEMORY = 4096  # bytes of activations
STREAM = 4711  # the handle of the one stream
DTYPES = {"tensor(float)": ("FLOAT", np.float32), "tensor(int64)": ("INT64", np.int64)}


def with_engines(source: Path, folder: Path, flavour: str, **changes) -> Path:
    """A bundle whose engines are made for the fake: they are the ONNX files themselves."""
    shutil.copytree(source, folder)
    (folder / "tensorrt").mkdir(exist_ok=True)
    manifest = bundle.read_manifest(folder)
    facts = {k: v for k, v in manifest.items() if k not in ("schema_version", "files")}
    version = next(v for v, f in VERSIONS.items() if f == flavour)
    facts["engines"] = []
    for onnx, name, low, high in (
        (bundle.TEXT, "input_ids", [1, 2], [LARGEST, 77]),
        (bundle.VISION, "pixel_values", [1, 3, 32, 32], [LARGEST, 3, 32, 32]),
    ):
        file = f"tensorrt/{Path(onnx).stem}.{flavours.FLAVOURS[flavour].suffix}.engine"
        shutil.copy(folder / onnx, folder / file)
        bound = {"target_gpus": ["8.6", "8.9"]} if flavour == "rtx" else {"gpu": vars(GPU)}
        entry = {
            "file": file,
            "flavour": flavour,
            "version": Fake(version).__version__,
            "precision": "fp32",
            **bound,
            "hardware": "none",
            "version_compatible": False,
            "onnx": onnx,
            "onnx_sha256": manifest["files"][onnx],
            "profile": {name: {"min": low, "opt": low, "max": high}},
        }
        facts["engines"].append(entry | changes)
    bundle.write_manifest(folder, facts)
    return folder


class Number(enum.Enum):
    """Members that are numbers if asked, as pybind11's are."""

    def __int__(self) -> int:
        return int(self.value)


class Fake:
    """The module. `failing` names a step that shall fail; `log` counts what was done."""

    def __init__(self, version: str) -> None:
        names = json.loads((NAMES / f"tensorrt-{version}.json").read_text())
        self.__dict__["names"] = names
        self.__dict__["__version__"] = names["version"]
        self.__dict__["failing"] = ""
        self.__dict__["done"] = []
        self.__dict__["recording"] = None
        self.__dict__["enums"] = {
            name: Number(name, members) for name, members in names["enums"].items() if members
        }

    def __getattr__(self, name: str) -> Any:
        if name not in self.names["top"]:
            raise AttributeError(f"the real module has no {name}")
        if name in self.enums:
            return self.enums[name]
        if name == "ILogger":
            return Logger
        if name in ("Runtime", "Builder"):
            if self.failing == name:
                raise TypeError("pybind11::init(): factory function returned nullptr")
            methods = RUNTIME if name == "Runtime" else BUILDER
            return lambda log: Object(self, name, methods, log=log)
        if name == "OnnxParser":
            return lambda network, log: Object(self, name, PARSER, log=log)
        raise NotImplementedError(f"the real module has {name}, the fake has not")


class Logger:
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class Object:
    """An object of a real class: its public names only, with what the fake can do of them."""

    def __init__(self, trt: Fake, kind: str, methods: dict[str, Any], **state: Any) -> None:
        self.__dict__.update(
            _trt=trt, _kind=kind, _methods=methods, _state=SimpleNamespace(**state)
        )
        trt.done.append(f"new {kind}")
        unreal = set(methods) - set(trt.names["classes"][kind])
        unreal -= {name for name in methods if name.startswith("_") or name in RTX_ONLY}
        assert not unreal, f"{kind} really has no {unreal}"

    def __getattr__(self, name: str) -> Any:
        if name not in self._trt.names["classes"][self._kind]:
            raise AttributeError(f"a real {self._kind} has no {name}")
        method = self._methods[name]
        if name in PROPERTIES:
            return method(self._trt, self._state)

        def call(*arguments: Any) -> Any:
            if self._trt.failing == name:
                self._state.log.log(Logger.ERROR, f"the fake's {name} was told to fail")
                return FAILURES.get(name, False)
            return method(self._trt, self._state, *arguments)

        return call

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._trt.names["classes"][self._kind]:
            raise AttributeError(f"a real {self._kind} has no {name} to set")
        self._trt.done.append(f"{self._kind}.{name} = {value}")


RTX_ONLY = {"get_engine_validity", "cuda_graph_strategy", "set_compute_capability"}
PROPERTIES = {"device_memory_size_v2", "num_io_tensors", "num_layers", "num_errors"}
FAILURES = {
    "deserialize_cuda_engine": None,
    "create_execution_context": None,
    "build_serialized_network": None,
    "add_optimization_profile": -1,
}


def deserialize(trt, state, content):
    try:
        session = onnxruntime.InferenceSession(content)
    except Exception as error:
        state.log.log(Logger.ERROR, f"no engine: {error}")
        return None
    return Object(trt, "ICudaEngine", ENGINE, log=state.log, session=session)


def put(session, name):
    """(what it is, the onnxruntime argument) of an input or output."""
    for mode, found in (("INPUT", session.get_inputs()), ("OUTPUT", session.get_outputs())):
        for argument in found:
            if argument.name == name:
                return mode, argument
    raise KeyError(name)


RUNTIME = {
    "deserialize_cuda_engine": deserialize,
    "get_engine_validity": lambda trt, state, content: (
        trt.EngineValidity.INVALID if trt.failing == "validity" else trt.EngineValidity.VALID,
        0,
    ),
}
ENGINE = {
    "num_io_tensors": lambda trt, state: 2,
    "get_tensor_name": lambda trt, state, i: (
        (state.session.get_inputs() + state.session.get_outputs())[i].name
    ),
    "get_tensor_mode": lambda trt, state, name: trt.TensorIOMode[put(state.session, name)[0]],
    "get_tensor_dtype": lambda trt, state, name: trt.DataType[
        DTYPES[put(state.session, name)[1].type][0]
    ],
    "device_memory_size_v2": lambda trt, state: MEMORY,
    "create_runtime_config": lambda trt, state: Object(trt, "IRuntimeConfig", {}),
    "create_execution_context": lambda trt, state, way: Object(
        trt,
        "IExecutionContext",
        CONTEXT,
        log=state.log,
        session=state.session,
        shapes={},
        addresses={},
        way=way,
    ),
}


def set_input_shape(trt, state, name, shape):
    if shape[0] > LARGEST:  # as the profile says that `with_engines` writes
        return False
    state.shapes[name] = tuple(shape)
    return True


def set_tensor_address(trt, state, name, address):
    state.addresses[name] = address
    return True


def set_device_memory(trt, state, address, size):
    assert size >= MEMORY
    assert state.way is trt.ExecutionContextAllocationStrategy.USER_MANAGED
    state.memory = address
    trt.done.append(f"memory {address}")


def tensor_shape(trt, state, name):
    (shape,) = state.shapes.values()
    return (shape[0], put(state.session, name)[1].shape[1])


def memory(address, shape, dtype):
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    buffer = (ctypes.c_char * size).from_address(address)
    return np.frombuffer(buffer, dtype).reshape(shape)


def execute(trt, state, stream):
    assert stream == STREAM, "not on the runtime's own stream"
    if isinstance(state.way, Number):
        assert state.memory, "activations have no memory"
    (source,), (target,) = state.session.get_inputs(), state.session.get_outputs()
    shape = state.shapes[source.name]
    addresses = dict(state.addresses)

    def run():
        # A captured graph is broken by another use of its context: the real one would not say so.
        assert state.shapes[source.name] == shape
        assert state.addresses == addresses
        values = memory(addresses[source.name], shape, DTYPES[source.type][1])
        (output,) = state.session.run(None, {source.name: values})
        memory(addresses[target.name], output.shape, np.float32)[:] = output

    if trt.recording is not None:
        trt.recording.append(run)  # capturing does not run
    else:
        trt.done.append("run")
        run()
    return True


CONTEXT = {
    "set_device_memory": set_device_memory,
    "set_input_shape": set_input_shape,
    "set_tensor_address": set_tensor_address,
    "get_tensor_shape": tensor_shape,
    "execute_async_v3": execute,
}


class Memory(bytes):
    """What the real one gives for an engine: a buffer that knows its size."""

    @property
    def nbytes(self) -> int:
        return len(self)


def parse(trt, state, path):
    trt.done.append(f"parse {Path(path).name}")
    return True


def recorded(name, result=None):
    """A method that does nothing but to be seen."""

    def method(trt, state, *arguments):
        trt.done.append(f"{name}{arguments}")
        return result

    return method


PARSER = {"parse_from_file": parse, "num_errors": lambda trt, state: 0}
NETWORK = {"num_layers": lambda trt, state: 0}
PROFILE = {"set_shape": recorded("set_shape")}
CACHE = {"serialize": lambda trt, state: b"measured"}
CONFIG = {
    "clear_flag": recorded("clear_flag"),
    "set_flag": recorded("set_flag"),
    "add_optimization_profile": recorded("add_optimization_profile", 0),
    "create_timing_cache": lambda trt, state, stored: Object(
        trt, "ITimingCache", CACHE, log=state.log, stored=stored
    ),
    # A cache of another GPU is not taken.
    "set_timing_cache": lambda trt, state, cache, ignore: cache._state.stored != b"of another GPU",
    "get_timing_cache": lambda trt, state: Object(trt, "ITimingCache", CACHE, log=state.log),
    "set_compute_capability": recorded("set_compute_capability", True),
}


def create_network(trt, state, flags):
    trt.done.append(f"network {flags}")
    return Object(trt, "INetworkDefinition", NETWORK, log=state.log)


BUILDER = {
    "create_network": create_network,
    "create_builder_config": lambda trt, state: Object(
        trt, "IBuilderConfig", CONFIG, log=state.log
    ),
    "create_optimization_profile": lambda trt, state: Object(
        trt, "IOptimizationProfile", PROFILE, log=state.log
    ),
    "build_serialized_network": lambda trt, state, network, config: Memory(b"an engine"),
}


def fake_cuda(monkeypatch, trt: Fake) -> None:
    """torch.cuda on the CPU: one stream, and graphs that repeat what was recorded."""

    class Stream:
        cuda_stream = STREAM

        def __init__(self, device):
            pass

        def synchronize(self):
            trt.done.append("synchronize")

    class Graph:
        def replay(self):
            trt.done.append("replay")
            for step in self.steps:
                step()

    @contextlib.contextmanager
    def capture(graph, stream, capture_error_mode):
        assert isinstance(stream, Stream)
        assert capture_error_mode == "thread_local"  # others may go on using CUDA
        trt.__dict__["recording"] = graph.steps = []
        yield
        trt.__dict__["recording"] = None
        trt.done.append("capture")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", contextlib.nullcontext)
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)


def load_fake(monkeypatch, trt: Fake) -> None:
    """Put the fake in the library's place, with a GPU for it."""
    from radapter.runtimes.trt import runtime

    version = next(v for v in VERSIONS if Fake(v).__version__ == trt.__version__)
    log = functools.cache(flavours.logger.__wrapped__)  # the real one keeps its logger
    monkeypatch.setattr(flavours, "logger", log)
    monkeypatch.setattr(flavours, "load", lambda flavour: trt)
    monkeypatch.setattr(flavours, "installed", lambda: [flavours.FLAVOURS[VERSIONS[version]]])
    monkeypatch.setattr(cuda, "gpu", lambda index: GPU)
    monkeypatch.setattr(runtime, "cuda_device", lambda index: torch.device("cpu"))
    fake_cuda(monkeypatch, trt)

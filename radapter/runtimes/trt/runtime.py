"""TensorRT and TensorRT-RTX as a runtime: a bundle's engines, on the GPU that they were built for.

Loading an engine runs code that is in it, unlike everything else in a bundle: only the bytes whose
hash the manifest states are loaded, and that is no protection from whoever made the bundle.

Nothing here has run on a GPU in this project's continuous integration. What is tested there: every
name of the library that is used exists in it, and this code drives a fake made of those names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from radapter import bundle
from radapter.errors import BrokenInput, GateFailed, MissingDependency, UsageError
from radapter.models.frames import each_frame, filled_up, mean_of_frames, without_frames
from radapter.runtimes.engines import Engine
from radapter.runtimes.trt import cuda, flavours
from radapter.runtimes.trt.fitting import check_engine, choose_engines
from radapter.runtimes.trt.flavours import RTX, Flavour

LENGTHS = 8  # tokens
SLOTS = 4  # input shapes that buffers (and a CUDA graph) are kept for


class TensorRTRuntime:
    """The two towers of a bundle as TensorRT engines. Every file of the bundle is checked first.

    Args:
        folder: the bundle, with engines that `radapter export --trt` built.
        device: `cuda`, `cuda:1`, ...
        precision: `fp32`, `fp16` or `int8`; None: the first of them that there is.
        flavour: `tensorrt` or `rtx`; None: one that is installed and has engines here.
        weights_hash: of the merged model that the bundle has to be made from, if that matters.
        graphs: capture a CUDA graph for a shape that comes a second time.

    Raises:
        BrokenInput: the bundle is damaged, stale, or has no such engine; or the engine is for
            another GPU or version. The message has the command that builds it anew.
        MissingDependency: no driver, no such GPU, or TensorRT is not installed.
    """

    name = "tensorrt"
    identity: dict[str, Any] | None = None  # its features are computed each time, never kept

    def __init__(
        self,
        folder: Path | str,
        device: str = "cuda",
        *,
        precision: str | None = None,
        flavour: str | None = None,
        weights_hash: str | None = None,
        graphs: bool = True,
    ) -> None:
        folder = Path(folder)
        manifest = bundle.verify(folder, weights_hash=weights_hash)
        self.device, index = device, torch.device(device).index or 0
        try:
            choose_engines(folder, manifest, flavour, precision)  # that there are some
            # Before anything of TensorRT: without a driver some versions crash the process.
            gpu = cuda.gpu(index)
            entries = choose_engines(folder, manifest, flavour, precision, gpu)
            if not torch.cuda.is_available():
                raise MissingDependency(
                    f"This torch ({torch.__version__}) does not use the {gpu.name} that the driver "
                    "finds: install one that is built with CUDA."
                )
            one = next(iter(entries.values()))  # they are of one flavour and precision
            chosen = flavours.FLAVOURS[one["flavour"]]
            trt = flavours.load(chosen)
            for entry in entries.values():
                check_engine(entry, manifest, trt, gpu)
            self.precision = str(one["precision"])
            self.logit_scale = float(manifest["logit_scale"])
            self.frames: int | None = manifest.get("frames")
            with torch.cuda.device(index):
                self._towers = {
                    tower.name: Tower(trt, chosen, folder, manifest, entry, tower, index, graphs)
                    for tower, entry in entries.items()
                }
        except (KeyError, TypeError, ValueError) as error:
            raise BrokenInput(
                f"{folder / bundle.MANIFEST} is damaged: {error!r}. {bundle.AGAIN}"
            ) from None
        self.provenance: dict[str, Any] = {
            "weights_hash": manifest.get("weights_hash"),
            "provider": f"{chosen.title} {trt.__version__}",
            "device_name": gpu.name,
            "compute_capability": gpu.compute_capability,
            "cuda_graphs": graphs,
            "files": {e["file"]: manifest["files"][e["file"]] for e in entries.values()},
        }

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """Pictures [n, 3, height, width], float -> features [n, dim], float32, unit norm."""
        return self._towers["vision_model"](pixel_values)

    def encode_video(self, clips: Tensor) -> Tensor:
        """Clips [n, frames, 3, height, width], float -> features [n, dim], float32, unit norm; of a
        model of pictures the means of their frames."""
        if self.frames is None:
            return mean_of_frames(self.encode_image, clips)
        return self._towers["video_model"](filled_up(clips, self.frames))

    def encode_frames(self, clips: Tensor) -> Tensor:
        """Clips [n, frames, 3, height, width], float -> features of their frames [n, frames, dim],
        float32, unit norm.

        Raises:
            UsageError: the model is of clips, and its file gives one feature a clip.
        """
        if self.frames is not None:
            raise without_frames(self.name)
        return each_frame(self.encode_image, clips)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Token ids [n, length <= context], int64 -> features [n, dim], float32, unit norm."""
        return self._towers["text_model"](tokens)


def open_engine(
    row: Engine, folder: Path, *, threads: int | None = None, **settings: Any
) -> TensorRTRuntime:
    """See `engines.Engine.open`; threads have no meaning on a GPU."""
    return TensorRTRuntime(folder, row.device, **settings)


@dataclass
class Slot:
    """Buffers for one input shape, and its CUDA graph once there is one."""

    host_input: Tensor
    device_input: Tensor
    device_output: Tensor
    host_output: Tensor
    uses: int = 0
    context: Any = None
    """Of the graph alone: a captured graph breaks if its context is used for another shape"""
    graph: Any = None


class Tower:
    """One engine with its stream and buffers. Calling it takes and gives tensors on the CPU."""

    def __init__(
        self,
        trt: Any,
        flavour: Flavour,
        folder: Path,
        manifest: Mapping[str, Any],
        entry: Mapping[str, Any],
        tower: bundle.Tower,
        index: int,
        graphs: bool,
    ) -> None:
        self._input, self._output, self._file = tower.input, tower.output, entry["file"]
        self._smallest, self._largest = (
            entry["profile"][self._input][end] for end in ("min", "max")
        )
        # The bytes that were hashed are those that are loaded.
        expected = manifest["files"][self._file]
        content = (folder / self._file).read_bytes()
        if hashlib.sha256(content).hexdigest() != expected:
            raise BrokenInput(f"{folder / self._file} changed while it was loaded.")
        self._flavour, self._trt, self._graphs = flavour, trt, graphs
        with flavours.listening(flavour) as log:
            try:
                self._runtime = trt.Runtime(log)  # it has to outlive the engine
            except TypeError:  # pybind11's word for a null pointer
                raise MissingDependency(
                    f"{flavour.title} cannot start: {flavours.reason(log.lines)}. "
                    "`radapter info` says what loads."
                ) from None
            if entry["version_compatible"]:
                self._runtime.engine_host_code_allowed = True  # the lean runtime inside
            if flavour == RTX:
                _check_validity(trt, self._runtime, content, self._file)
            self._engine = self._runtime.deserialize_cuda_engine(content)
            if self._engine is None:
                raise BrokenInput(
                    f"{flavour.title} cannot load {self._file}: {flavours.reason(log.lines)}. "
                    f"Type: radapter export --trt --force --trt-flavour {flavour.name}"
                )
            self._check_tensors()
            self._device = cuda_device(index)
            # For activations of the largest shapes: contexts share it, and take turns on a stream.
            size = 0 if flavour == RTX else int(self._engine.device_memory_size_v2)
            self._memory = torch.empty(size, dtype=torch.uint8, device=self._device)
            self._context = self._new_context()
        self._stream = torch.cuda.Stream(self._device)
        self._slots: dict[tuple[int, ...], Slot] = {}

    def __call__(self, values: Tensor) -> Tensor:
        """Values [n, ...] -> features [n, dim], float32; larger batches than the engine's in parts.

        Raises:
            UsageError: a text is longer, or a picture of another size, than the engine takes.
            GateFailed: the library fails.
        """
        values = values.detach().cpu().to(self._input_type)
        if values.dim() == 2:  # token ids
            values = F.pad(values, (0, self._padding(values.shape[1])))
        fits = all(
            low <= size <= high
            for low, size, high in zip(
                self._smallest[1:], values.shape[1:], self._largest[1:], strict=True
            )
        )
        if not fits:
            raise UsageError(
                f"{self._file} takes inputs of up to {self._largest[1:]}, not "
                f"{list(values.shape[1:])}. Build it for them: radapter export --trt"
            )
        with torch.cuda.device(self._device), flavours.listening(self._flavour):
            parts = [self._run(part) for part in values.split(self._largest[0])]
        return torch.cat(parts).float()

    def _padding(self, length: int) -> int:
        """What a text lacks: to the shortest that the engine takes, and to a multiple of `LENGTHS`,
        so that texts of many lengths do not each need buffers and a graph."""
        shortest, longest = self._smallest[1], self._largest[1]
        wanted = min(-(-length // LENGTHS) * LENGTHS, longest)
        return max(0, max(wanted, shortest) - length)

    def _run(self, values: Tensor) -> Tensor:
        slot = self._slot(tuple(values.shape))
        slot.host_input.copy_(values)
        # Copies and kernels are queued on one stream; only its end is waited for.
        with torch.cuda.stream(self._stream):
            slot.device_input.copy_(slot.host_input, non_blocking=True)
            if slot.graph is None:
                self._bind(self._context, slot)
                self._execute(self._context)
            else:
                slot.graph.replay()
            slot.host_output.copy_(slot.device_output, non_blocking=True)
        self._stream.synchronize()
        output = slot.host_output.clone()
        slot.uses += 1
        if slot.uses == 2 and self._graphs and self._flavour != RTX:  # which makes its own
            self._capture(slot)
        return output

    def _slot(self, shape: tuple[int, ...]) -> Slot:
        """The buffers for that input shape; those that were not used for longest make place."""
        slot = self._slots.pop(shape, None)
        if slot is None:
            if len(self._slots) >= SLOTS:
                self._slots.pop(next(iter(self._slots)))
            if not self._context.set_input_shape(self._input, shape):
                raise self._failed(f"refuses an input of shape {list(shape)}")
            result = tuple(self._context.get_tensor_shape(self._output))
            slot = Slot(
                self._host(shape, self._input_type),
                torch.empty(shape, dtype=self._input_type, device=self._device),
                torch.empty(result, dtype=self._output_type, device=self._device),
                self._host(result, self._output_type),
            )
        self._slots[shape] = slot
        return slot

    def _host(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A buffer that the GPU can copy from and to while the CPU goes on."""
        return torch.empty(tuple(shape), dtype=dtype, pin_memory=self._device.type == "cuda")

    def _bind(self, context: Any, slot: Slot) -> None:
        if not (
            context.set_input_shape(self._input, tuple(slot.device_input.shape))
            and context.set_tensor_address(self._input, slot.device_input.data_ptr())
            and context.set_tensor_address(self._output, slot.device_output.data_ptr())
        ):
            raise self._failed("does not take its buffers")

    def _execute(self, context: Any) -> None:
        if not context.execute_async_v3(self._stream.cuda_stream):
            raise self._failed("fails to run")

    def _capture(self, slot: Slot) -> None:
        """Record what the engine does for this shape, to be replayed without the CPU's part."""
        slot.context = self._new_context()
        self._bind(slot.context, slot)
        with torch.cuda.stream(self._stream):
            self._execute(slot.context)  # once outside: what it prepares must not be recorded
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        # Other threads, that copy pictures ahead, say, may go on using CUDA.
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            self._execute(slot.context)
        slot.graph = graph

    def _new_context(self) -> Any:
        if self._flavour == RTX:
            context = _rtx_context(self._trt, self._engine, self._graphs)
        else:
            mine = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
            context = self._engine.create_execution_context(mine)
        if context is None:
            raise self._failed("gets no memory for its activations")
        if self._flavour != RTX:
            context.set_device_memory(self._memory.data_ptr(), self._memory.numel())
        return context

    def _check_tensors(self) -> None:
        """Names and types of what goes in and comes out are those of the bundle's ONNX files."""
        trt, engine = self._trt, self._engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        modes = {name: engine.get_tensor_mode(name) for name in names}
        if modes != {
            self._input: trt.TensorIOMode.INPUT,
            self._output: trt.TensorIOMode.OUTPUT,
        }:
            raise BrokenInput(f"{self._file} has inputs and outputs {names}. {bundle.AGAIN}")
        types = {
            trt.DataType.FLOAT: torch.float32,
            trt.DataType.HALF: torch.float16,
            trt.DataType.INT32: torch.int32,
            trt.DataType.INT64: torch.int64,
        }
        taken = types.get(engine.get_tensor_dtype(self._input))
        given = types.get(engine.get_tensor_dtype(self._output))
        if taken is None or given is None:
            raise BrokenInput(f"{self._file} has inputs or outputs of an unknown type.")
        self._input_type, self._output_type = taken, given

    def _failed(self, what: str) -> GateFailed:
        lines = flavours.logger(self._flavour).lines
        return GateFailed(f"{self._file} {what}: {flavours.reason(lines)}.")


def _check_validity(trt: Any, runtime: Any, content: bytes, file: str) -> None:
    """TensorRT-RTX's own opinion, from the head of the file, before it is loaded."""
    validity, diagnostics = runtime.get_engine_validity(content)
    if validity == trt.EngineValidity.INVALID:
        raise BrokenInput(
            f"TensorRT-RTX calls {file} invalid on this machine ({diagnostics}). "
            "Type: radapter export --trt --force --trt-flavour rtx"
        )


def _rtx_context(trt: Any, engine: Any, graphs: bool) -> Any:
    """TensorRT-RTX compiles for the shapes it meets and knows best when to capture."""
    config = engine.create_runtime_config()
    if graphs:
        config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    return engine.create_execution_context(config)


def cuda_device(index: int) -> torch.device:
    """The GPU of this number, for torch."""
    return torch.device("cuda", index)

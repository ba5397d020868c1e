"""onnxruntime as a runtime: the exported engine, run from its bundle, on the CPU or by CUDA or
TensorRT. A provider that cannot run the model is an error: there is no fallback."""

from __future__ import annotations

import contextlib
import ctypes
import io
import sys
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from radapter import bundle
from radapter.errors import (
    BrokenInput,
    GateFailed,
    MissingDependency,
    UsageError,
    ran_out_of_memory,
)
from radapter.models.frames import each_frame, filled_up, mean_of_frames, without_frames
from radapter.runtimes.engines import Engine
from radapter.runtimes.providers import (
    CPU,
    NAMES,
    TENSORRT,
    chosen,
    largest_batch,
    may_use_tf32,
)

# What a model spends its time in. Arithmetic on shapes stays on the CPU whatever the provider.
COMPUTE = {"MatMul", "FusedMatMul", "MatMulInteger", "QLinearMatMul", "Gemm", "FusedGemm", "Conv",
           "FusedConv", "Attention", "MultiHeadAttention", "Softmax", "LayerNormalization",
           "SkipLayerNormalization", "Gelu", "BiasGelu", "FastGelu", "QuickGelu"}  # fmt: skip
CPU_LINE, GPU_LINE = 'pip install "radapter[cpu]"', 'pip install "radapter[gpu]"'


def import_onnxruntime() -> Any:
    """The onnxruntime module.

    Raises:
        MissingDependency: it is not installed, or both of its distributions are: they share one
            folder, the later overwrites the earlier, and nothing says which one is left.
    """
    installed = [name for name in ("onnxruntime", "onnxruntime-gpu") if _is_installed(name)]
    if len(installed) == 2:
        raise MissingDependency(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other. "
            "Type first: pip uninstall -y onnxruntime onnxruntime-gpu, "
            f"then {CPU_LINE} or {GPU_LINE}, not both."
        )
    try:
        import onnxruntime

        onnxruntime.InferenceSession  # noqa: B018 - absent from what an uninstall leaves behind
    except (ImportError, AttributeError):
        raise MissingDependency(
            f"onnxruntime is not installed. Type first: {CPU_LINE} "
            f"(or {GPU_LINE} for an NVIDIA device)"
        ) from None
    return onnxruntime


def _is_installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


class OnnxRuntime:
    """The two towers of a bundle. Every file of the bundle is checked first.

    Args:
        folder: the bundle.
        provider: the execution provider that has to serve: `CPUExecutionProvider`,
            `CUDAExecutionProvider` or `TensorrtExecutionProvider`, which builds its engine when it
            is loaded. There is no fallback to another.
        precision: of those that the bundle has. Default: its first.
        threads: for one operator, on the CPU. Default: as many as torch uses.
        weights_hash: of the merged model that the bundle has to be made from, if that matters.
        index: of the GPU, as torch counts them.

    Raises:
        BrokenInput: the bundle is damaged, incomplete or stale.
        UsageError: it has no such precision.
        MissingDependency: onnxruntime or the provider is not there, or would not do the work.
    """

    identity: dict[str, Any] | None = None
    """What an exported engine answers is measured, never remembered"""

    def __init__(
        self,
        folder: Path | str,
        provider: str = CPU,
        *,
        precision: str | None = None,
        threads: int | None = None,
        weights_hash: str | None = None,
        index: int = 0,
    ) -> None:
        ort = import_onnxruntime()
        folder = Path(folder)
        manifest = bundle.verify(folder, weights_hash=weights_hash)
        if provider not in ort.get_available_providers():
            raise MissingDependency(
                f"This onnxruntime has no {provider}, only "
                f"{', '.join(ort.get_available_providers())}. For an NVIDIA device type first: "
                f"pip uninstall -y onnxruntime, then {GPU_LINE}"
            )
        self.name, self._provider = NAMES[provider], provider
        self.device = "cpu" if provider == CPU else "cuda" if index == 0 else f"cuda:{index}"
        if provider != CPU:
            preload(ort)
        options = ort.SessionOptions()
        options.log_severity_level = 4  # errors are raised with a message of ours
        options.intra_op_num_threads = threads or torch.get_num_threads()
        # Idle threads that spin would take the processor from the other tower, and from torch.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        self.precision = precision or manifest["precisions"][0]
        if self.precision == bundle.QDQ:
            # Products are then in fp32 between the Q/DQ nodes, as exact as TensorRT's int32:
            # onnxruntime's own, of signed bytes, overflow on a CPU without VNNI.
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        if bundle.in_precision(bundle.VISION, self.precision) not in manifest["files"]:
            raise UsageError(
                f"Bundle {folder} has no {self.precision}, only "
                f"{', '.join(manifest['precisions'])}. Export it with --precision."
            )
        self._towers: dict[str, Any] = {}
        self.frames: int | None = manifest.get("frames")
        towers = bundle.towers(self.frames)
        files = {t.name: bundle.in_precision(t.file, self.precision) for t in towers}
        for name, further in bundle.FURTHER.items():
            file = bundle.in_precision(further, self.precision)
            if file in manifest["files"] and provider != TENSORRT:
                files[name] = file
        for file in files.values():  # before any session: onnxruntime would open what they name
            bundle.external_data(folder, manifest, file)
        # What few commands use is opened when it is asked for; matching is as large as all others.
        self._further = {name: files[name] for name in bundle.FURTHER if name in files}

        self._open = lambda name: _session(
            ort, folder / name, options, chosen(provider, manifest, name, index)
        )
        try:
            self._towers |= {t.name: self._open(files[t.name]) for t in towers}
            self.logit_scale = float(manifest["logit_scale"])
            self._context_length = int(manifest["context_length"])
            self._pads = manifest["text_length"] == "fixed"
            self._largest = largest_batch(manifest) if provider == TENSORRT else None
        except (KeyError, TypeError, ValueError) as error:
            raise BrokenInput(
                f"{folder / bundle.MANIFEST} is damaged: {error!r}. {bundle.AGAIN}"
            ) from None
        self.provenance: dict[str, Any] = {
            "weights_hash": manifest.get("weights_hash"),
            "onnxruntime": ort.__version__,
            "provider": provider,
            "nodes": {
                tower.removesuffix("_model"): served(session, provider, files[tower])
                for tower, session in self._towers.items()
            },
            "threads": options.intra_op_num_threads,
            "files": {
                name: manifest["files"][name]
                for tower, name in files.items()
                if tower != "matching_model"
            },
            **({"arithmetic": "TF32"} if provider == TENSORRT and may_use_tf32() else {}),
        }

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """Pictures [n, 3, height, width], float -> features [n, dim], float32, unit norm."""
        return self._run(self._towers["vision_model"], pixel_values.detach().cpu().float())

    def encode_video(self, clips: Tensor) -> Tensor:
        """Clips [n, frames, 3, height, width], float -> features [n, dim], float32, unit norm; of a
        model of pictures the means of their frames."""
        if self.frames is None:
            return mean_of_frames(self.encode_image, clips)
        clips = filled_up(clips.detach().cpu().float(), self.frames)
        return self._run(self._towers["video_model"], clips)

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
        tokens = tokens.detach().cpu().long()
        if self._pads:
            tokens = F.pad(tokens, (0, self._context_length - tokens.shape[1]))
        return self._run(self._towers["text_model"], tokens)

    @property
    def makes_patches(self) -> bool:
        """Whether there is a file for `encode_patches`."""
        return "patch_model" in self._further

    def encode_patches(self, pixel_values: Tensor) -> Tensor:
        """Pictures -> features of their patches [n, rows, columns, dim], float32, unit norm.

        Raises:
            UsageError: the bundle has no file for it.
        """
        if not self.makes_patches:
            raise UsageError(
                f"The bundle has no patch model for {self.name} in {self.precision}: export it "
                "with --patches, in fp32 or fp16."
            )
        return self._run(self._opened("patch_model"), pixel_values.detach().cpu().float())

    @property
    def makes_queries(self) -> bool:
        """Whether there is a file for `encode_query`."""
        return "query_model" in self._further

    def encode_query(self, pixel_values: Tensor, tokens: Tensor) -> Tensor:
        """Pictures, and token ids of as many texts in their template -> features of what is looked
        for [n, dim], float32, unit norm."""
        session = self._opened("query_model")
        return self._run(session, pixel_values.detach().cpu().float(), tokens.detach().cpu().long())

    def match(self, pixel_values: Tensor, tokens: Tensor) -> Tensor:
        """Pictures, and token ids of as many texts -> logits [n, 2], float32; the second says that
        the text is of the picture. UsageError: the bundle has no file for it."""
        if "matching_model" not in self._further:
            raise UsageError(f"The bundle has no matching model in {self.precision}.")
        tokens = F.pad(tokens.detach().cpu(), (0, self._context_length - tokens.shape[1])).long()
        session = self._opened("matching_model")
        return self._run(session, pixel_values.detach().cpu().float(), tokens)

    def _opened(self, name: str) -> Any:
        """The session of one of `bundle.FURTHER`, opened at its first use."""
        if name not in self._towers:
            session = self._towers[name] = self._open(self._further[name])
            nodes = served(session, self._provider, self._further[name])
            self.provenance["nodes"][name.removesuffix("_model")] = nodes
        return self._towers[name]

    def _run(self, session: Any, *values: Tensor) -> Tensor:
        """In parts where the provider was made for batches up to a size."""
        names, given = [own.name for own in session.get_inputs()], session.get_outputs()[0].name
        size = self._largest or max(1, len(values[0]))
        found = []
        for parts in zip(*(own.split(size) for own in values), strict=True):
            taken, part = names[0], parts[0]
            inputs = {n: own.contiguous().numpy() for n, own in zip(names, parts, strict=True)}
            try:
                (features,) = session.run([given], inputs)
            except Exception as error:
                if ran_out_of_memory(error):
                    raise
                reason = " ".join(str(error).split())[:300]
                raise GateFailed(
                    f"onnxruntime ({self.name}) fails on {taken} of shape {list(part.shape)}: "
                    f"{reason}"
                ) from error
            found.append(torch.from_numpy(features))
        return torch.cat(found)


def open_engine(engine: Engine, folder: Path, **settings: Any) -> OnnxRuntime:
    """See `engines.Engine.open`."""
    return OnnxRuntime(folder, engine.provider, **settings)


def open_file(folder: Path, file: str) -> Any:
    """An onnxruntime session on the CPU for any ONNX file of a bundle that is verified.

    Raises:
        BrokenInput: the file cannot be loaded, or names weights outside of the bundle.
        MissingDependency: onnxruntime is not there.
    """
    ort = import_onnxruntime()
    bundle.external_data(folder, bundle.read_manifest(folder), file)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    return _session(ort, folder / file, options, [CPU])


def _session(ort: Any, path: Path, options: Any, providers: list[Any]) -> Any:
    """A session that really runs on the first of `providers`: onnxruntime falls back silently."""
    provider = providers[0] if isinstance(providers[0], str) else providers[0][0]
    try:
        session = ort.InferenceSession(
            str(path),
            options,
            providers=providers,
            # On fp16 files, that optimizer crashes the process (onnxruntime 1.26 to 1.32).
            disabled_optimizers=["NchwcTransformer"] if "_fp16" in path.name else [],
            enable_fallback=0,  # it would print, and go on with another provider, while it runs too
        )
    except Exception as error:  # its exceptions have no common base of their own
        if ran_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:300]
        if provider == CPU:
            raise BrokenInput(f"onnxruntime cannot load {path}: {reason}") from None
        library = missing_library(ort, provider) or "its libraries load"
        raise MissingDependency(
            f"onnxruntime cannot load {path} with {provider}: {reason} ({library})"
        ) from None
    found = session.get_providers()[0]
    if found != provider:
        hint = " This provider links TensorRT 10, not 11." if provider == TENSORRT else ""
        library = missing_library(ort, provider)
        raise MissingDependency(
            f"onnxruntime was asked for {provider} but runs {path.name} with {found}: the device "
            f"or its libraries are missing{f' ({library})' if library else ''}.{hint} Type: "
            f"{GPU_LINE}, which brings CUDA's libraries; `radapter info` says what loads."
        )
    return session


def preload(ort: Any) -> None:
    """Load the CUDA libraries that pip or torch brought along. onnxruntime's own message about a
    missing one is hidden: `missing_library` says it better."""
    if hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()


def missing_library(ort: Any, provider: str) -> str:
    """What the system's loader says about a provider's library, such as "libcurand.so.10: cannot
    open shared object file"; empty if it loads."""
    kind = provider.removesuffix("ExecutionProvider").lower()
    windows = sys.platform == "win32"
    name = f"onnxruntime_providers_{kind}.dll" if windows else f"libonnxruntime_providers_{kind}.so"
    try:
        ctypes.CDLL(str(Path(ort.__file__).parent / "capi" / name))
    except OSError as error:
        return " ".join(str(error).split())[:200]
    return ""


def served(session: Any, provider: str, name: str) -> dict[str, int]:
    """How many nodes of the graph each provider runs; empty before onnxruntime 1.24, which does
    not tell.

    Raises:
        MissingDependency: work that `provider` should do is left to the CPU.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return {}
    counts: Counter[str] = Counter()
    fallen: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        for node in part.get_nodes():
            counts[part.ep_name] += 1
            if part.ep_name != provider and node.op_type in COMPUTE:
                fallen[node.op_type] += 1
    if fallen or not counts[provider]:
        which = ", ".join(f"{n} {op}" for op, n in sorted(fallen.items())) or "all of it"
        raise MissingDependency(
            f"onnxruntime was asked for {provider} but runs parts of {name} elsewhere "
            f"({which}). Use the runtime onnx, or another precision."
        )
    return dict(counts)

"""Put a bundle together: ONNX files, verified, and what they need; nothing is left on failure."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL.Image import Image

from radapter import bundle, models
from radapter.classes import distinct
from radapter.errors import UsageError
from radapter.export import card, configs, golden, graphs, matching, patches, queries, weights
from radapter.export.cases import Cases, Inputs, check_agreement, verify
from radapter.export.classes import class_features, classes_hash, with_head
from radapter.export.configs import write_config, write_preprocessor, write_tokenizer
from radapter.export.gate import Gate
from radapter.export.sample import Sample
from radapter.export.towers import ONE_FILE, export_towers
from radapter.files import new_folder
from radapter.heads import head as heads
from radapter.models.frames import most_frames
from radapter.runtimes.onnx import import_onnxruntime
from radapter.versions import BUNDLES, versions

OPSETS = range(18, 26)  # 26 writes an invalid file with the present exporter
OF_PAIRS = {bundle.QUERY: queries, bundle.MATCHING: matching}
"""Files that take a picture and a text together, of models that do so"""
CALIBRATION_BATCH = 8


@dataclass(frozen=True)
class Contents:
    """What a bundle holds, and how it is checked."""

    precisions: Sequence[str] = ("fp32",)
    """Of `fp32`, `fp16` and `int8`; the first is what runs unless another is asked for. int8 is
    written in a form for onnxruntime and, given a sample, one for TensorRT"""
    opset: int = 20
    """Of ONNX, 18 to 25. 20 is what runs everywhere: above 22, an attention operator has no fp32
    kernel in TensorRT"""
    max_batch: int = 32
    """The largest that is verified, and that engines are built for"""
    classifier: Mapping[str, Any] | None = None
    """Classes, as `with_head` takes them, of which a file gives the probabilities"""
    from_bytes: bool = False
    """A file takes pictures as bytes, too; a classifier takes them then"""
    patches: bool = False
    """A file gives the features of patches, in fp32 and fp16"""
    checkpoints: Sequence[str] = ()
    """Of `open_clip` and `transformers`: the weights for these, too"""
    tolerances: Sequence[str] = ()
    """Changes, see `evaluation.parity.tolerance_of`; recorded"""
    device: str = "cpu"
    """Where the texts of classes are encoded. Files are verified on the CPU anyway"""

    @property
    def needs_sample(self) -> bool:
        """Whether something in it is calibrated or verified on training data."""
        return "int8" in self.precisions or self.from_bytes or self.classifier is not None

    def check(self, loaded: models.LoadedModel) -> None:
        """Raise UsageError, before any work, if a model cannot be exported with these contents."""
        if self.opset not in OPSETS:
            raise UsageError(f"The opset must be {OPSETS[0]} to {OPSETS[-1]}, not {self.opset}.")
        given, known = self.precisions, set(bundle.PRECISIONS)
        if not given or not set(given) <= known or len(set(given)) != len(given):
            raise UsageError(
                f"Precisions must be some of {', '.join(bundle.PRECISIONS)}, each once, "
                f"not {', '.join(given) or 'none'}."
            )
        if self.from_bytes:
            graphs.check_preprocessing(loaded.config["preprocess_cfg"])
        size = 4 * vision_parameters(loaded)
        if "fp32" in given and size > ONE_FILE and (self.from_bytes or self.classifier):
            raise UsageError(
                f"One file with the whole image tower in fp32 would take {size / 1e9:.1f} GB, and "
                "ONNX's end at 2 GB: export it by --precision fp16, or without --input uint8 and "
                "--classifier."
            )
        if self.classifier is not None and most_frames(loaded.model):
            raise UsageError(f"A classifier reads pictures, and {loaded.name} clips: leave it out.")
        if self.max_batch < 1:
            raise UsageError(f"The largest batch must be 1 or more, not {self.max_batch}.")
        weights.check_forms(self.checkpoints, loaded)
        if self.patches:
            patches.check(loaded)


def export_bundle(
    loaded: models.LoadedModel,
    folder: Path | str,
    contents: Contents | None = None,
    *,
    facts: Mapping[str, Any],
    classes: Mapping[str, Any] | None = None,
    sample: Sample | None = None,
    pictures: Sequence[Image] | None = None,
    notice: str = "",
    gate: Gate | None = None,
) -> dict[str, Any]:
    """Write a bundle: both towers as ONNX files, verified in a fresh process, and what they need.

    The caller's model is not touched. The same weights, facts, sample and package versions give
    the same bytes, on one kind of device.

    Args:
        loaded: a plain (merged) model.
        folder: where the bundle goes; one that is there already is replaced when all is well.
        contents: what is in it.
        facts: for the manifest: `base_model`, `base_hash`, `recipe`, `recipe_hash`, `method`,
            `alpha`, whatever else tells where the weights come from. Of an absolute path only its
            last part is kept.
        classes: that the bundle answers among, as `heads.zero_shot.weights` takes them; of one
            name the first counts.
        sample: of training data. Without one, int8 for TensorRT is left out.
        pictures: three for the golden files, whose licence lets them be passed on; None: drawn.
        notice: whose they are; it goes along.
        gate: what the bundle has to pass, see `parity_gate`; what it compared goes into the
            manifest. Without one, the manifest says that the bundle is not verified.

    Returns:
        The manifest.

    Raises:
        UsageError: the opset, a precision, the tokenizer or the preprocessing cannot be exported.
        MissingDependency: no onnxruntime to verify with.
        GateFailed: an exported file does not do what the model does.
    """
    contents = contents or Contents()
    contents.check(loaded)
    import_onnxruntime()
    if contents.classifier is not None:
        classifier = with_head(loaded, contents.classifier, contents.device)
        contents = dataclasses.replace(contents, classifier=classifier)
    inputs = Inputs(loaded, contents.max_batch, sample)
    with new_folder(folder) as temporary:
        written = _write_files(loaded, temporary, contents, inputs)
        dynamic = models.text.takes_short_texts(loaded.model)
        shown = golden.write(temporary, loaded, dynamic=dynamic, pictures=pictures, notice=notice)
        cases = {file: own for file, _, own in written}
        floats = {"fp32", "fp16"} & set(contents.precisions)
        for kind, precision in itertools.product(shown, floats):
            cases[bundle.in_precision(kind, precision)] |= shown[kind]
        figures = verify(temporary, cases, inputs.batches)
        for file, precision, _ in written:
            check_agreement(file, precision, figures[file], contents.tolerances)
        weights.write(temporary, loaded, contents.checkpoints, shown)
        if loaded.head is not None:
            heads.write(temporary, loaded.head)
        if classes is not None:
            classes = distinct(classes)
            features = class_features(loaded, classes, contents.device)
            bundle.write_classes(temporary, classes["names"], features.numpy(), loaded.logit_scale)
        facts = {
            **card.portable(facts),
            **_own_facts(loaded, contents, inputs, written, figures),
            "verified": gate is not None,
            "tolerances": list(contents.tolerances),
        }
        manifest = card.finish(temporary, facts)
        if gate is not None:  # on what will be deployed
            manifest = card.finish(temporary, facts | {"parity": gate(temporary)})
        return manifest


def _write_files(
    loaded: models.LoadedModel, folder: Path, contents: Contents, inputs: Inputs
) -> Written:
    """The ONNX files, and what says how they are used."""
    preprocess_cfg, scale = loaded.config["preprocess_cfg"], loaded.logit_scale
    head = contents.classifier["head"] if contents.classifier else None
    written = _write_towers(loaded, folder, inputs, contents)
    if head is not None or contents.from_bytes:
        taken = preprocess_cfg if contents.from_bytes else None
        written += _write_further(folder, written, inputs, head, taken)
    for module in [own for own in OF_PAIRS.values() if own.facts(loaded)]:
        written += module.write(loaded, folder, inputs, contents.precisions, contents.opset)
    if contents.patches:
        written += patches.write(loaded, folder, inputs, [*contents.precisions], contents.opset)
    write_config(folder, loaded.config["model_cfg"], scale)
    write_preprocessor(folder, preprocess_cfg)
    write_tokenizer(
        folder,
        loaded.tokenizer,
        context_length=loaded.context_length,
        dynamic=models.text.takes_short_texts(loaded.model),
    )
    return written


def _own_facts(
    loaded: models.LoadedModel,
    contents: Contents,
    inputs: Inputs,
    written: Written,
    figures: Mapping[str, Any],
) -> dict[str, Any]:
    """What the manifest says of the files themselves."""
    dynamic, texts = models.takes_short_texts(loaded.model), inputs.cases["text_model"]
    facts = {
        "weights_hash": models.weights_hash(
            models.with_head(loaded.model.state_dict(), loaded.head)
        ),
        "precisions": list(contents.precisions),
        "opset": contents.opset,
        "max_batch": contents.max_batch,
        "image_size": list(models.image_size(loaded.model)),
        **({"frames": inputs.frames} if inputs.frames else {}),
        "context_length": loaded.context_length,
        "text_length": "dynamic" if dynamic else "fixed",
        "text_cleaning": configs.text_cleaning(loaded.tokenizer),
        "embed_dim": loaded.config["model_cfg"]["embed_dim"],
        "logit_scale": loaded.logit_scale,
        **{k: v for module in OF_PAIRS.values() for k, v in module.facts(loaded).items()},
        "checkpoints": list(contents.checkpoints),
        "golden": golden.FILE,
        "versions": versions(BUNDLES),
        "models": {
            file: {
                "precision": precision,
                "for": _runtimes(file, precision, contents.from_bytes),
                **figures[file],
            }
            for file, precision, _ in written
        },
        "verification": {
            "runtime": "onnxruntime, CPUExecutionProvider",
            "batches": inputs.batches,
            "text_lengths": sorted({ids.shape[1] for ids, _ in texts.values()}),
            "training_pictures": len(inputs.sample.pictures) if inputs.sample else 0,
        },
    }
    if contents.classifier is not None:
        facts["classifier"] = list(contents.classifier["names"])
        facts["classifier_hash"] = classes_hash(contents.classifier)
    if loaded.head is not None:
        facts["head"] = {k: v for k, v in (loaded.head.facts or {}).items() if k != "classes"}
        classifier = contents.classifier["head"] if contents.classifier else None
        facts["classifier_by_head"] = classifier is not None and classifier.facts is not None
    return facts


def plan(
    loaded: models.LoadedModel,
    classes: Mapping[str, Any] | None = None,
    contents: Contents | None = None,
) -> dict[str, int]:
    """What `export_bundle` would write: bytes by file name, near enough; nothing is written."""
    contents = contents or Contents()
    contents.check(loaded)
    one = getattr(loaded.model, "of", loaded.model)
    members = loaded.config["model_cfg"].get("members", 1)
    tower, vision = models.text.text_tower(one), vision_parameters(loaded)
    text = members * sum(p.numel() for p in tower.parameters())
    if tower is one:  # open_clip's CLIP holds its text tower in itself
        text -= vision
    table = sum(p.numel() for name, p in tower.named_parameters() if "token_embedding" in name)
    table *= members
    files: dict[str, int] = {}
    for precision in _forms(contents.precisions, quantize_static=True):
        width = {"fp32": 4, "fp16": 2}.get(precision, 1)
        sizes = {bundle.VISION: width * vision, bundle.TEXT: width * text}
        sizes |= {bundle.VIDEO: sizes[bundle.VISION]} if most_frames(loaded.model) else {}
        if width == 1:  # what is multiplied is quantized, what is looked up is not
            sizes[bundle.TEXT] += 3 * table
        classifies = contents.classifier is not None
        further = {bundle.FROM_BYTES: contents.from_bytes, bundle.CLASSIFIER: classifies}
        further |= {bundle.PATCHES: contents.patches and width > 1}
        for file, module in OF_PAIRS.items():
            if width > 1 and (numbers := module.size(loaded, vision + text)):
                sizes[file] = width * numbers
        if precision != bundle.QDQ:
            sizes |= {name: sizes[bundle.VISION] for name, wanted in further.items() if wanted}
        files |= {bundle.in_precision(name, precision): size for name, size in sizes.items()}
    small = {"config.json": 10**3, "preprocessor_config.json": 10**3, "tokenizer.json": 17 * 10**5}
    files |= small | {"tokenizer_config.json": 10**3, "special_tokens_map.json": 10**3}
    if classes is not None:
        size = 4 * len(classes["names"]) * loaded.config["model_cfg"]["embed_dim"]
        files |= {bundle.CLASSES: 20 * len(classes["names"]), bundle.CLASS_FEATURES: size}
    files |= weights.plan(loaded, contents.checkpoints) | golden.plan(loaded)
    return files | {bundle.CARD: 6 * 10**3, bundle.MANIFEST: 5 * 10**3}


def vision_parameters(loaded: models.LoadedModel) -> int:
    """Numbers in the image tower, of a mixture in those of all members."""
    one: Any = getattr(loaded.model, "of", loaded.model)
    members: int = loaded.config["model_cfg"].get("members", 1)
    return members * sum(p.numel() for p in one.visual.parameters())


def _forms(precisions: Sequence[str], *, quantize_static: bool) -> list[str]:
    """The precisions, with the second form of int8."""
    return [*precisions, *([bundle.QDQ] if quantize_static and "int8" in precisions else [])]


# ---------------------------------------------------------------- the files

Written = list[tuple[str, str, Cases]]
"""(file, precision, what it is verified on)"""


def _write_towers(
    loaded: models.LoadedModel, folder: Path, inputs: Inputs, contents: Contents
) -> Written:
    """The towers in every precision, and in both forms of int8 if there is a sample."""
    (folder / "onnx").mkdir()
    precisions = contents.precisions
    quantized = "int8" in precisions
    first = {t.input: next(iter(inputs.cases[t.name].values()))[0] for t in inputs.towers}
    for precision in ("fp32", "fp16"):
        if precision in precisions or (quantized and precision == "fp32"):
            export_towers(
                loaded.model,
                folder,
                {name: values[:3] for name, values in first.items()},
                precision=precision,
                context_length=loaded.context_length,
                opset=contents.opset,
            )
    forms = _forms(precisions, quantize_static=inputs.sample is not None)
    if quantized:
        _quantize(folder, inputs, forms)
    if "fp32" not in precisions:  # int8 was made from it
        for tower in inputs.towers:
            for path in (folder / "onnx").glob(f"{tower.name}.onnx*"):
                path.unlink()
    written: Written = []
    for form in forms:
        for tower in inputs.towers:
            cases = inputs.cases[tower.name]
            if form == bundle.QDQ:  # its ranges are those of such pictures and texts
                cases = {"training": cases["training"]}
            elif form == "int8":  # no picture is like noise
                cases = {name: case for name, case in cases.items() if name != "noise"}
            written.append((bundle.in_precision(tower.file, form), form, cases))
    return written


def _quantize(folder: Path, inputs: Inputs, forms: Sequence[str]) -> None:
    from radapter.export import quantization

    for tower in inputs.towers:
        source = folder / tower.file
        weights = sum(path.stat().st_size for path in source.parent.glob(f"{source.name}*"))
        external = weights > ONE_FILE
        quantization.dynamic(source, folder / bundle.in_precision(tower.file, "int8"), external)
        if bundle.QDQ in forms:
            (folder / "tensorrt").mkdir(exist_ok=True)
            samples = inputs.training(tower.input)
            # Batches of one size, which the calibrator wants.
            whole = len(samples) // CALIBRATION_BATCH * CALIBRATION_BATCH or len(samples)
            batches = [batch.numpy() for batch in samples[:whole].split(CALIBRATION_BATCH)]
            file = bundle.in_precision(tower.file, bundle.QDQ)
            quantization.static(source, folder / file, batches, external)


def _write_further(
    folder: Path,
    towers: Written,
    inputs: Inputs,
    head: heads.Head | None,
    preprocessing: Mapping[str, Any] | None,
) -> Written:
    """For every image tower that onnxruntime runs: one from bytes, and a classifier."""
    written: Written = []
    for file, precision, cases in towers:
        if precision == bundle.QDQ or file != bundle.in_precision(bundle.VISION, precision):
            continue
        tower = folder / file
        if preprocessing is not None:
            file, cases = bundle.in_precision(bundle.FROM_BYTES, precision), inputs.pictures
            graphs.from_bytes(tower, folder / file, preprocessing)
            tower = folder / file
            written.append((file, precision, cases))
        if head is not None:
            file = bundle.in_precision(bundle.CLASSIFIER, precision)
            dim = next(iter(cases.values()))[1].shape[1]
            graphs.classifier(tower, folder / file, head.module, dim)
            answers = {
                name: (x, head.logits(features).softmax(dim=1))
                for name, (x, features) in cases.items()
            }
            written.append((file, precision, answers))
    return written


# ---------------------------------------------------------------- facts


def _runtimes(file: str, precision: str, from_bytes: bool) -> list[str]:
    """What runs a file. TensorRT's Resize does not smooth, so pictures as bytes are not for it."""
    if file in [bundle.in_precision(f, precision) for f in bundle.FURTHER.values()]:
        return ["onnxruntime"]
    further = {bundle.in_precision(f, precision) for f in (bundle.FROM_BYTES, bundle.CLASSIFIER)}
    return ["onnxruntime"] if from_bytes and file in further else bundle.RUNTIMES[precision]

"""The model card of a bundle, in the form of the Hugging Face hub."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from radapter import bundle
from radapter.evaluation.scores import headlines, name_of, task_of
from radapter.export import card_numbers, golden, matching, queries
from radapter.heads.head import FILE as HEAD_FILE
from radapter.models import conventions
from radapter.registry import METHODS, load

TASK = "zero-shot-image-classification"
HUB_TASKS = {
    "classification": TASK,
    "top-5": TASK,
    "retrieval": "text-to-image-retrieval",
    "segmentation": "image-segmentation",
}
"""The hub's name of a task; it has none for the others, whose scores stand in the tables alone"""


def finish(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write the model card, then the manifest; the last thing done to a bundle.

    Args:
        folder: the bundle, with everything else in place.
        facts: what the manifest says besides `schema_version` and `files`.

    Returns:
        The manifest.
    """
    text = write(folder, facts)
    (folder / bundle.CARD).write_text(text, encoding="utf-8", newline="\n")
    return bundle.write_manifest(folder, facts)


def portable(value: Any) -> Any:
    """Facts without the paths of this machine: of an absolute path only its last part is kept."""
    if isinstance(value, Mapping):
        return {key: portable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [portable(part) for part in value]
    if not isinstance(value, str):
        return value
    source, *stated = conventions.pieces(value)
    prefix, separator, rest = source.rpartition(":")
    path = Path(rest)
    return ",".join([f"{prefix}{separator}{path.name}" if path.is_absolute() else source, *stated])


def write(folder: Path, facts: Mapping[str, Any]) -> str:
    """The card's text, from the manifest's facts and the files that are there."""
    return (
        f"---\n{_header(facts)}\n---\n\n"
        "# A CLIP model fine-tuned and exported with radapter\n\n"
        f"{card_numbers.table(('', ''), _rows(facts))}\n"
        f"{_use(folder, facts)}{card_numbers.write(facts)}"
        f"{_golden(folder, facts)}{_limits(facts)}"
    )


def _header(facts: Mapping[str, Any]) -> str:
    """YAML as the hub reads it. A licence only if it is known, a base model only if it is there."""
    checkpoints = facts.get("checkpoints", [])
    name = str(facts.get("recipe") or "clip")
    results = [
        EvalResult(
            task_type=task,
            dataset_name=f"{suite['suite']}: {dataset}",
            dataset_type=dataset,
            metric_type=metric,
            metric_name=f"{name_of(metric)}, {label}",
            metric_value=round(scored["value"], 4),
        )
        for suite in facts.get("results", [])
        for label, datasets in suite["models"].items()
        if label != "zero-shot"
        for dataset, scores in datasets.items()
        for metric, scored in scores.items()
        if metric in headlines() and (task := HUB_TASKS.get(task_of(metric) or ""))
    ]
    data = ModelCardData(
        library_name="transformers" if "transformers" in checkpoints else "onnx",
        pipeline_tag=TASK,
        tags=["clip", "onnx", "radapter", *(["open_clip"] if "open_clip" in checkpoints else [])],
        base_model=facts.get("base_model_hub"),
        license=facts.get("license"),
        model_name=name if results else None,
        eval_results=results or None,
    )
    return data.to_yaml().strip()


def _rows(facts: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    def named(key: str, hash_key: str) -> str | None:
        if key not in facts:
            return None
        return facts[key] + (f" (`{facts[hash_key][:16]}`)" if hash_key in facts else "")

    rows = {
        "Base model": named("base_model", "base_hash"),
        "Recipe": named("recipe", "recipe_hash"),
        "Method": facts.get("method"),
        "Adapters": _adapters(facts["adapters"]) if "adapters" in facts else None,
        "Merging rule": facts.get("rule"),
        "Models": _mixture(facts.get("mixture")),
        "Averaged runs": _soup(facts.get("soup")),
        "Head": _head(facts) if "head" in facts else None,
        "Alpha (0 is the base model, 1 the fine-tuned one)": facts.get("alpha"),
        "Weights": f"`{facts['weights_hash'][:16]}`",
        "Precisions, ONNX opset": f"{', '.join(facts['precisions'])}; {facts['opset']}",
        "Pictures": f"{facts['image_size'][0]} x {facts['image_size'][1]} (height x width)",
        "Clips": f"up to {facts['frames']} frames" if "frames" in facts else None,
        "Texts": f"up to {facts['context_length']} tokens"
        + (", any length" if facts["text_length"] == "dynamic" else ", padded to that length"),
        "Features": f"{facts['embed_dim']} dimensions, unit norm",
        "Logit scale": f"{facts['logit_scale']:.4g}",
    }
    return [(name, value) for name, value in rows.items() if value is not None]


def _adapters(method: Mapping[str, Any]) -> str:
    """Those that fold into no weight, with their settings."""
    cost = getattr(load(METHODS, method["name"]), "COST", "")
    return (
        f"{_settings(method)}. They are layers of the ONNX files and fold into no weight: this is "
        f"no plain CLIP model, and open_clip's and transformers' classes cannot hold it{cost}"
    )


def _soup(soup: Mapping[str, Any] | None) -> str | None:
    if soup is None:
        return None
    return f"{', '.join(run['name'] for run in soup['runs'])} ({soup['rule']})"


def _mixture(about: Mapping[str, Any] | None) -> str | None:
    if about is None:
        return None
    return (
        f"{about['models']}, mixed per picture as fitted on {about['fitted_on']}; each picture "
        "goes through all of them"
    )


def _use(folder: Path, facts: Mapping[str, Any]) -> str:
    classes = bundle.read_classes(folder)
    text = (
        "## Use\n\n"
        f"`{bundle.VISION}` takes `pixel_values` [batch, 3, height, width], prepared as "
        "`preprocessor_config.json` says, and gives `image_embeds` [batch, dim].\n"
        f"`{bundle.TEXT}` takes `input_ids` [batch, length], int64, and gives `text_embeds` "
        "[batch, dim].\nBoth outputs have unit norm: their dot product is the cosine.\n\n"
    )
    text += _clips(facts)
    pictures = "`pixel_values`"
    if any("_from_bytes" in file for file in facts["models"]):
        pictures = "`pixels` [batch, height, width, 3], uint8, RGB, of any one size"
        text += (
            f"`{bundle.FROM_BYTES}` takes {pictures}, and resizes, crops and normalizes itself.\n\n"
        )
    text += queries.in_words(facts) + matching.in_words(facts)
    if any("patch_model" in file for file in facts["models"]):
        text += (
            f"`{bundle.PATCHES}` takes `pixel_values` and gives `patch_embeds` [batch, rows, "
            "columns, dim], unit norm, of the same space as texts.\n\n"
        )
    if "classifier" in facts:
        text += (
            f"`{bundle.CLASSIFIER}` takes {pictures} and gives `probabilities` [batch, "
            f"{len(facts['classifier'])}] of the classes in `{bundle.MANIFEST}`, under "
            f"`classifier`{_by(facts)}.\n\n"
        )
    if "mixture" in facts:
        text += (
            f"`{HEAD_FILE}` mixes the answers of the models, {_head(facts)}: the classifier of "
            f"each, and what weighs them. `{bundle.VISION}` gives their features side by side.\n\n"
        )
    elif "head" in facts:
        text += (
            f"`{HEAD_FILE}` is the classifier that was trained with the model, "
            f"{facts['head']['name']}: its weights, with the names of its classes in the "
            "metadata.\n\n"
        )
        if "frames" in facts:
            text += (
                "It reads `video_embeds`. No file has it behind the video tower; a "
                f"`{bundle.CLASSIFIER}` would see single pictures.\n\n"
            )
        if examples := facts["head"].get("examples"):
            size = 4 * facts["embed_dim"]
            text += (
                f"It keeps the features of {examples:,} training pictures, {size:,} bytes each in "
                f"fp32, {examples * size / 1e6:.1f} MB in all: with twice the shots twice as much, "
                f"here and in `{bundle.CLASSIFIER}`.\n\n"
            )
    if "fp16" in facts["precisions"]:
        text += (
            'Open files in fp16 on a CPU with `disabled_optimizers=["NchwcTransformer"]`: without, '
            "onnxruntime 1.26 to 1.32 crashes.\n\n"
        )
    if classes:
        text += (
            f"`{bundle.CLASSES}` names {len(classes[0])} classes, `{bundle.CLASS_FEATURES}` holds "
            "their text features: the class of a picture is the one with the largest dot "
            f"product{' if texts tell classes apart' if 'head' in facts else ''}.\n\n"
        )
    text += _engines(facts.get("engines", []))
    checkpoints = facts.get("checkpoints", [])
    if "open_clip" in checkpoints:
        text += "`open_clip.create_model_and_transforms('local-dir:.../open_clip')` loads it.\n\n"
    if "transformers" in checkpoints:
        text += "transformers' `CLIPModel` and `CLIPProcessor` load this folder.\n\n"
    return text + (
        "`tokenizer.json` agrees with open_clip's tokenizer on ordinary text. It does not where "
        "open_clip repairs text first: curly quotes, ligatures, full-width forms, HTML entities, "
        "mis-decoded text, control characters, and a capital sigma at the end of a word. radapter "
        "repairs texts before it uses the file; other programs do not.\n\n"
    )


def _clips(facts: Mapping[str, Any]) -> str:
    """Of the file for clips; nothing of a model of pictures."""
    if "frames" not in facts:
        return ""
    return (
        f"`{bundle.VIDEO}` takes `pixel_values_videos` [batch, {facts['frames']}, 3, height, "
        "width], the frames of a clip in their order, each prepared as a picture, and gives "
        "`video_embeds` [batch, dim] of unit norm. Of a shorter clip the last frames are NaN. "
        "The mean of `image_embeds` is something else: this file looks at the order.\n\n"
    )


def _head(facts: Mapping[str, Any]) -> str:
    """The trained head and its settings, such as `linear (bias true)`, and what was chosen."""
    head = {key: value for key, value in facts["head"].items() if key not in ("examples", "found")}
    if not (found := facts["head"].get("found")):
        return _settings(head)
    chosen = ", ".join(f"{key} {value:.4g}" for key, value in found.items())
    return f"{_settings(head)}; on held-out data were chosen {chosen}"


def _settings(call: Mapping[str, Any]) -> str:
    """What a recipe calls by its name, with the settings."""
    settings = {key: value for key, value in call.items() if key != "name"}
    said = ", ".join(f"{key} {json.dumps(value)}" for key, value in settings.items())
    return f"{call['name']} ({said})" if said else str(call["name"])


def _by(facts: Mapping[str, Any]) -> str:
    """What tells the classifier's classes apart, where the model has a head of its own."""
    if "head" not in facts:
        return ""
    return ", by the trained head" if facts["classifier_by_head"] else ", by their texts"


def _engines(engines: Sequence[Mapping[str, Any]]) -> str:
    if not engines:
        return ""
    rows = [
        (
            f"`{e['file']}`",
            e["precision"],
            bundle.flavour_title(e),
            bundle.built_for(e),
            "yes" if e.get("compared") else "no, not run",
        )
        for e in engines
    ]
    return (
        "TensorRT engines, each for the version and the GPUs named here only. Loading an engine "
        "runs code that is in it: load none from a source that you do not trust.\n\n"
        + card_numbers.table(
            ("engine", "precision", "built with", "for", "compared with PyTorch"), rows
        )
        + "\n"
    )


def _golden(folder: Path, facts: Mapping[str, Any]) -> str:
    if "golden" not in facts:
        return ""
    files = golden.FILES
    whose = ""
    if (folder / golden.NOTICE).is_file():
        whose = f"The three pictures are other people's work: `{golden.NOTICE}` says whose, and "
        whose += "under which licences.\n\n"
    return (
        "## Test a port of it\n\n"
        f"`{golden.FILE}` says what has to come out, from PyTorch and open_clip, in this order:\n\n"
        "1. Every text in `texts.equal` gives its `ids`, alone in its batch. In `texts.different` "
        "stand texts on which `tokenizer.json` is known not to be open_clip's tokenizer: `ids` are "
        "its own, `open_clip_ids` those that the model was trained with.\n"
        f"2. The pictures, prepared, are `{files['pixel_values']}` to {golden.PIXEL_TOLERANCE:g} "
        "with Pillow's filters; a larger difference is another filter, crop or order of colours.\n"
        f"3. The engine, given that very array, gives `{files['image_embeds']}`, and given the ids "
        f"of `texts.equal` (shorter ones padded with 0) `{files['text_embeds']}`: in fp32 to "
        f"{golden.FEATURE_TOLERANCE:g}, in others with the worst cosine under `tolerance`.\n"
        f"{_golden_clips(facts)}"
        "4. Then all of it together. `.npy` files are float32 arrays without pickles.\n\n"
        f"{whose}"
    )


def _golden_clips(facts: Mapping[str, Any]) -> str:
    """Of the golden clips; nothing of a model of pictures."""
    if "frames" not in facts:
        return ""
    return (
        "   Each list in `clips` says which of the prepared pictures are the frames of a clip; it "
        f"gives a row of `{golden.VIDEO_FILE}`.\n"
    )


def _limits(facts: Mapping[str, Any]) -> str:
    rows = [(d["name"], d["licence"], d.get("where", "")) for d in facts.get("data", [])]
    table = f"{card_numbers.table(('training data', 'licence', 'where'), rows)}\n" if rows else ""
    return (
        "## Limits and licence\n\n"
        "Scores are of the suites named here; other pictures, texts and languages were not "
        "measured. A cosine is no probability, and what the base model gets wrong about people, "
        "places and groups fine-tuning does not put right. "
        "The licence and the limits of use are those of the base model and of the data.\n\n"
        f"{table}"
    ).rstrip() + "\n"

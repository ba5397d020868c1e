"""The model card of a bundle, in the form of the Hugging Face hub."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from radapter import bundle
from radapter.evaluation.scores import headlines, name_of
from radapter.export import golden, towers
from radapter.heads.head import FILE as HEAD_FILE
from radapter.models import conventions

TASK = "zero-shot-image-classification"


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
        f"{_table(('', ''), _rows(facts))}\n"
        f"{_use(folder, facts)}{_results(facts)}{_curves(facts)}{_checked(facts)}{_parity(facts)}"
        f"{_golden(folder, facts)}{_limits(facts)}"
    )


def _header(facts: Mapping[str, Any]) -> str:
    """YAML as the hub reads it. A licence only if it is known, a base model only if it is there."""
    checkpoints = facts.get("checkpoints", [])
    name = str(facts.get("recipe") or "clip")
    results = [
        EvalResult(
            task_type=TASK if metric == "accuracy" else "text-to-image-retrieval",
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
        if metric in headlines()
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


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def _rows(facts: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    def named(key: str, hash_key: str) -> str | None:
        if key not in facts:
            return None
        return facts[key] + (f" (`{facts[hash_key][:16]}`)" if hash_key in facts else "")

    rows = {
        "Base model": named("base_model", "base_hash"),
        "Recipe": named("recipe", "recipe_hash"),
        "Method": facts.get("method"),
        "Adapters": _adapters(facts.get("adapters")),
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


def _adapters(method: Mapping[str, Any] | None) -> str | None:
    """Those that fold into no weight, with their settings."""
    if method is None:
        return None
    return (
        f"{_settings(method)}. They are layers of the ONNX files and fold into no weight: this is "
        "no plain CLIP model, and open_clip's and transformers' classes cannot hold it"
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
    text += towers.of_clips(facts)
    pictures = "`pixel_values`"
    if any("_from_bytes" in file for file in facts["models"]):
        pictures = "`pixels` [batch, height, width, 3], uint8, RGB, of any one size"
        text += (
            f"`{bundle.FROM_BYTES}` takes {pictures}, and resizes, crops and normalizes itself.\n\n"
        )
    if "query" in facts:
        text += (
            f"`{bundle.QUERY}` takes `pixel_values` and `input_ids` of a text in the template "
            f"`{facts['query']['template']}`, with `{facts['query']['place']}` (token "
            f"{facts['query']['token']}) for the picture, and gives `query_embeds` [batch, dim], "
            "unit norm, of the picture that is looked for: compare them with `image_embeds`.\n\n"
        )
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
        + _table(("engine", "precision", "built with", "for", "compared with PyTorch"), rows)
        + "\n"
    )


def _results(facts: Mapping[str, Any]) -> str:
    """What the run measured of these very weights, and of the base model beside them."""
    text = ""
    for suite in facts.get("results", []):
        labels = list(suite["models"])
        rows = []
        for dataset, first in suite["models"][labels[0]].items():
            for metric in sorted(headlines()):
                if metric in first:
                    cells = [_score(suite["models"][label][dataset], metric) for label in labels]
                    note = f" ({first['partial']})" if first.get("partial") else ""
                    what = f"{dataset}{note}", first["role"], name_of(metric)
                    rows.append((*what, *cells))
        text += f"Suite `{suite['suite']}`, in % with 95 % intervals:\n\n"
        text += _table(("data", "role", "metric", *labels), rows) + "\n"
    return f"## Results\n\n{text}" if text else ""


def _score(scores: Mapping[str, Any], metric: str) -> str:
    low, high = scores[metric]["interval"]
    return f"{100 * scores[metric]['value']:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _curves(facts: Mapping[str, Any]) -> str:
    text = ""
    for curve in facts.get("alpha_curves", []):
        columns = [key for key in curve["points"][0] if key != "alpha"]
        rows = [
            (f"{point['alpha']:g}", *(f"{100 * point[key]:.1f}" for key in columns))
            for point in curve["points"]
        ]
        text += f"Over alpha, on {curve['on']}, {name_of(curve['metric'])} in %:\n\n"
        text += _table(("alpha", *columns), rows) + "\n"
    return text


def _checked(facts: Mapping[str, Any]) -> str:
    checks = [
        (
            f"`{file}`",
            ", ".join(check["for"]),
            f"{check['worst_cosine']:.7f}",
            f"{check['max_abs_difference']:.1e}",
        )
        for file, check in facts["models"].items()
    ]
    return (
        "## Checked\n\n"
        "Reloaded in a fresh process and compared with PyTorch on the same inputs, in batches of "
        f"{', '.join(str(n) for n in facts['verification']['batches'])}:\n\n"
        + _table(("file", "for", "worst cosine", "largest difference"), checks)
        + "\n"
    )


def _parity(facts: Mapping[str, Any]) -> str:
    """What the gate compared on data: each engine with PyTorch in fp32."""
    text = ""
    for compared in facts.get("parity", []):
        rows = []
        for row in compared["verdicts"]:
            largest = max(row["metrics"], key=lambda m: abs(m["difference"]), default=None)
            rows.append(
                (
                    row["label"],
                    f"{row['cosine']['worst']:.7f}",
                    "" if row["agreement"] is None else f"{100 * row['agreement']:.2f}",
                    ""
                    if largest is None
                    else f"{100 * largest['difference']:+.2f} ({largest['dataset']}: "
                    f"{name_of(largest['metric'])})",
                )
            )
        head = "engine", "worst cosine", "top-1 agreement, %", "largest difference of a metric"
        text += (
            f"Compared with PyTorch in fp32 on {compared['pictures']:,} pictures of "
            f"`{compared['suite']}`:\n\n{_table(head, rows)}\n"
        )
        files = [
            (
                f"`{row['file']}`",
                f"{row['cosine']:.7f}",
                f"{100 * row['agreement']:.2f}" if "agreement" in row else "",
                f"{row['difference']:.4f}" if "difference" in row else "",
            )
            for row in compared["files"]
        ]
        if files:
            head = "file", "worst cosine", "top-1 agreement, %", "probability, off by at most"
            text += _table(head, files) + "\n"
    return text or "Not compared with PyTorch on any data.\n\n"


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
        f"{golden.of_clips(facts)}"
        "4. Then all of it together. `.npy` files are float32 arrays without pickles.\n\n"
        f"{whose}"
    )


def _limits(facts: Mapping[str, Any]) -> str:
    rows = [(d["name"], d["licence"], d.get("where", "")) for d in facts.get("data", [])]
    table = f"{_table(('training data', 'licence', 'where'), rows)}\n" if rows else ""
    return (
        "## Limits and licence\n\n"
        "Scores are of the suites named here; other pictures, texts and languages were not "
        "measured. A cosine is no probability, and what the base model gets wrong about people, "
        "places and groups fine-tuning does not put right. "
        "The licence and the limits of use are those of the base model and of the data.\n\n"
        f"{table}"
    ).rstrip() + "\n"

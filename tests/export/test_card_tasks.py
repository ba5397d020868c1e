"""The header of the model card: each score under the hub's task that it is of, or not at all."""

import yaml

from radapter.export import card


def test_scores_have_the_task_that_they_are_of():
    scored = ("accuracy", "top5_accuracy", "miou", "text_to_image_r1", "direction_accuracy", "map",
              "query_r1")  # fmt: skip
    datasets = {name: {name: {"value": 0.5}} for name in scored}
    facts = {"results": [{"suite": "s", "models": {"tuned": datasets}}]}
    (index,) = yaml.safe_load(card._header(facts))["model-index"]
    tasks = {found["dataset"]["type"]: found["task"]["type"] for found in index["results"]}
    assert tasks == {
        "accuracy": "zero-shot-image-classification",
        "top5_accuracy": "zero-shot-image-classification",
        "miou": "image-segmentation",
        "text_to_image_r1": "text-to-image-retrieval",
    }

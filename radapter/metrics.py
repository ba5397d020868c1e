"""What metrics are called: one name each in files, one for people."""

NAMES = {
    "accuracy": "class accuracy",
    "text_to_image_r1": "caption to picture R@1",
    "text_to_image_r5": "caption to picture R@5",
    "text_to_image_r10": "caption to picture R@10",
    "image_to_text_r1": "picture to caption R@1",
    "image_to_text_r5": "picture to caption R@5",
    "image_to_text_r10": "picture to caption R@10",
}
"""By the name in results, metrics.jsonl and `--json`"""


def name_of(metric: str) -> str:
    """What people read, such as "caption to picture R@1"."""
    return NAMES.get(metric, metric.replace("_", " "))

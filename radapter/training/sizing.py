"""How much a method has of what there is one of for each class, or domain, of the data, and of
which these are."""

from __future__ import annotations

from radapter.data import Dataset
from radapter.errors import UsageError
from radapter.recipe import Recipe
from radapter.registry import Call


def sized(recipe: Recipe, dataset: Dataset) -> Call:
    """The recipe's method with the numbers of classes and domains that it leaves open, if it has
    settings of these names: those of the data, and one domain where the data tells none apart.

    Raises:
        UsageError: the data has no classes, or more of either than the method is to have.
    """
    given = recipe.method.arguments()
    if "classes" not in given:
        return recipe.method
    if recipe.data.task != "classification" or not dataset.class_names:
        raise UsageError(
            f"The method {recipe.method.name} learns of each class, and {dataset.source} is paired "
            "with captions. Take data of `task: classification`, or another method."
        )
    there = {"classes": len(dataset.class_names), "domains": len(dataset.domain_names) or 1}
    for key, number in there.items():
        if given[key] is not None and given[key] < number:
            raise UsageError(
                f"method.{key} is {given[key]}, and {dataset.source} has {number}: leave it out."
            )
    open_ones = {key: number for key, number in there.items() if given[key] is None}
    sized_method: Call = recipe.method.model_copy(update=open_ones)
    return sized_method


def rows_of(method: Call, dataset: Dataset) -> dict[str, list[str]]:
    """Which classes and domains a method learns of, in their order; {}: it does not ask."""
    if "classes" not in method.arguments():
        return {}
    return {"classes": dataset.class_names, "domains": dataset.domain_names}

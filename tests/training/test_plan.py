"""The memory that a plan names, against what the optimizer and the method really keep."""

import pytest
import tiny

from radapter import registry
from radapter.training.preparing import prepare

CASES = {
    "full rank": [],
    "low rank, whose average is of full rank": ["method.rank=3"],
    "full, without an average": ["method={name: full}"],
    "full, with one": ["method={name: full, average: {momentum: 0.9}}"],
    "SPD, from the start of weights": ["method={name: full}", "optimisation.name=spd"],
    "SPD, from zero": ["optimisation.name=spd"],
    "FTP": ["optimisation.name=ftp"],
    "FTP of scalars": ["method={name: full, train_temperature: true}", "optimisation.name=ftp"],
    "lora": ["method={name: lora, rank: 2}"],
}


def plan(recipe):
    return prepare(recipe).plan()


@pytest.mark.parametrize("case", CASES)
def test_it_counts_every_tensor(tiny_folder, shapes, case):
    recipe = tiny.recipe(tiny_folder, shapes, *CASES[case])
    parts = prepare(recipe)
    weights = {p.data_ptr(): p.numel() for p in parts.base.model.parameters()}
    weights |= {p.data_ptr(): p.numel() for p in parts.trained}
    for parameter in parts.trained:
        parameter.grad = parameter.detach().clone()
    parts.optimizer.step()
    moments = sum(
        value.numel()
        for state in parts.optimizer.state.values()
        for value in state.values()
        if value.dim()
    )
    copies = registry.load(registry.OPTIMIZERS, recipe.optimisation.name).COPIES
    scalars = copies * sum(p.numel() == 1 and not p.dim() for p in parts.trained)
    start = sum(value.numel() for value in parts.attached.start.values())
    assert bool(start) == (recipe.optimisation.name == "ftp" or "start" in case)
    gradients = sum(p.grad.numel() for p in parts.trained)
    average = sum(mean.numel() for mean in parts.attached.mean.values())
    expected = sum(weights.values()) + gradients + moments + scalars + average + start
    assert plan(recipe).state_bytes == 4 * expected


def test_copies_of_the_weights_are_counted(tiny_folder, shapes):
    alone = plan(tiny.recipe(tiny_folder, shapes, "data.hold_out=0.4"))
    scored = plan(tiny.recipe(tiny_folder, shapes, "data.hold_out=0.4", "monitor.every_epochs=1"))
    assert scored.state_bytes - alone.state_bytes == 4 * 2 * alone.parameters
    retain = f"objective.retain={{captions: {__file__}}}"
    for method, copies in (("full", 1), ("r-adapter", 0)):  # of what is trained
        chosen = f"method={{name: {method}}}"
        without = plan(tiny.recipe(tiny_folder, shapes, chosen))
        retained = plan(tiny.recipe(tiny_folder, shapes, chosen, retain))
        assert retained.state_bytes - without.state_bytes == 4 * copies * without.trainable

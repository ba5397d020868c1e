import pytest
import torch
from safetensors.torch import save_file

from radapter import models
from radapter.errors import BrokenInput
from radapter.models import compact
from radapter.models.loading import WEIGHTS


def test_a_compact_table_is_the_whole_one_with_zeros(tiny_folder, tmp_path):
    loaded = models.load(str(tiny_folder))
    state = loaded.model.state_dict()
    seen = loaded.tokenizer(["a picture of a cat", "two dogs"]).unique()
    packed = compact.compacted(state, seen)
    assert len(packed[compact.TABLE]) == len(seen)
    folder = tmp_path / "compact"
    folder.mkdir()
    (folder / "open_clip_config.json").write_bytes(
        (tiny_folder / "open_clip_config.json").read_bytes()
    )
    save_file({name: tensor.half() if tensor.is_floating_point() else tensor
               for name, tensor in packed.items()}, folder / WEIGHTS)  # fmt: skip
    again = models.load(str(folder)).model.state_dict()
    assert again.keys() == state.keys()
    table, whole = again[compact.TABLE], state[compact.TABLE]
    assert torch.equal(table[seen], whole[seen].half().float())
    rest = torch.ones(len(whole), dtype=torch.bool)
    rest[seen] = False
    assert not table[rest].any()


def test_whole_tables_stay(tiny_folder):
    state = models.load(str(tiny_folder)).model.state_dict()
    assert compact.expanded(state, 1).keys() == state.keys()


@pytest.mark.parametrize("rows", [[0, 1], [0, 1, 99], [-1, 0, 1]])
def test_rows_that_do_not_fit_are_refused(rows):
    state = {compact.TABLE: torch.ones(3, 2), compact.ROWS: torch.tensor(rows, dtype=torch.int32)}
    with pytest.raises(BrokenInput, match=r"token_embedding\.rows"):
        compact.expanded(state, 50)

"""fp32 means fp32, whatever a process has done to torch's switches before."""

import pytest
import torch

from radapter.precision import exact_fp32

B = torch.backends
NEWER = pytest.mark.skipif(
    not hasattr(B.cudnn, "conv"), reason="this torch has no fp32_precision of its own for each"
)
READERS = {
    "products": torch.get_float32_matmul_precision,
    "cuBLAS": lambda: B.cuda.matmul.allow_tf32,
    "cuDNN": lambda: B.cudnn.allow_tf32,
    "everything": lambda: B.fp32_precision,
    "newer products": lambda: B.cuda.matmul.fp32_precision,
    "convolutions": lambda: B.cudnn.conv.fp32_precision,
    "recurrence": lambda: B.cudnn.rnn.fp32_precision,
    "products on the CPU": lambda: B.mkldnn.matmul.fp32_precision,
    "convolutions on the CPU": lambda: B.mkldnn.conv.fp32_precision,
}


def state():
    found = {}
    for name, read in READERS.items():
        try:
            found[name] = read()
        except (RuntimeError, AttributeError):  # mixed, or a torch without it
            found[name] = "not to be read"
    return found


@pytest.fixture
def defaults():
    before = state()
    yield before
    torch.set_float32_matmul_precision("highest")
    B.cudnn.allow_tf32 = True
    if hasattr(B.cudnn, "conv"):
        B.fp32_precision = B.cudnn.fp32_precision = B.cuda.matmul.fp32_precision = "none"
        B.mkldnn.matmul.fp32_precision = B.mkldnn.conv.fp32_precision = "none"
        B.cudnn.conv.fp32_precision = B.cudnn.rnn.fp32_precision = "tf32"
    assert state() == before


def use(name):
    def change():
        *owner, attribute, value = name.split(" ")
        where = B
        for part in owner:
            where = getattr(where, part)
        setattr(where, attribute, {"True": True, "False": False}.get(value, value))

    return change


BEFORE = {
    "nothing": lambda: None,
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "no TF32": use("cudnn allow_tf32 False"),
}
WITH_NEWER = (
    "fp32_precision tf32", "fp32_precision ieee", "cuda matmul fp32_precision tf32",
    "cudnn fp32_precision tf32", "cudnn conv fp32_precision ieee", "cudnn conv fp32_precision tf32",
    "mkldnn matmul fp32_precision bf16",
)  # fmt: skip
CASES = [
    *(pytest.param(change, id=name) for name, change in BEFORE.items()),
    *(pytest.param(use(name), id=name, marks=NEWER) for name in WITH_NEWER),
]


@pytest.mark.parametrize("change", CASES)
def test_fp32_is_exact_and_the_process_gets_its_switches_back(defaults, change):
    change()
    before = state()
    with exact_fp32():
        inside = state()
        with exact_fp32():
            assert state() == inside
        assert state() == inside
        assert inside["products"] == "highest"
        assert inside["cuBLAS"] is False
        assert inside["cuDNN"] in (False, "not to be read")
        newer = [inside[name] for name in list(READERS)[4:]]
        assert set(newer) <= {"ieee", "not to be read"}
    assert state() == before


def test_an_error_puts_them_back_too(defaults):
    torch.set_float32_matmul_precision("high")
    before = state()
    with pytest.raises(ValueError, match="here"), exact_fp32():
        raise ValueError("here")
    assert state() == before

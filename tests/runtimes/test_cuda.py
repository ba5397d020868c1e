"""What the driver is asked, with a FAKE driver; and, without one, the real answer."""

import ctypes

import pytest
import torch

from radapter.errors import MissingDependency
from radapter.runtimes.trt import cuda


class Driver:
    """A FAKE libcuda with two GPUs; `codes` are what its functions return when not 0."""

    gpus = (("NVIDIA GeForce RTX 4090", 8, 9), ("NVIDIA H100 80GB HBM3", 9, 0))

    def __init__(self, **codes):
        self.codes = codes
        self.called = []

    def __getattr__(self, function):
        def call(*arguments):
            self.called.append(function)
            if function in self.codes:
                return self.codes[function]
            getattr(self, f"_{function}")(*arguments)
            return 0

        return call

    def _cuInit(self, flags):
        assert flags == 0

    def _cuDeviceGetCount(self, count):
        count._obj.value = len(self.gpus)

    def _cuDeviceGet(self, device, index):
        device._obj.value = index

    def _cuDeviceGetName(self, name, length, device):
        assert length == len(name)
        name.value = self.gpus[device.value][0].encode()

    def _cuDeviceGetAttribute(self, value, attribute, device):
        value._obj.value = self.gpus[device.value][{75: 1, 76: 2}[attribute]]


@pytest.fixture
def driver(monkeypatch):
    def install(**codes):
        found = Driver(**codes)
        monkeypatch.setattr(ctypes, "CDLL", lambda name: found)
        return found

    return install


def test_gpus_are_named_with_their_compute_capability(driver):
    found = driver()
    assert cuda.gpus() == [
        cuda.Gpu("NVIDIA GeForce RTX 4090", "8.9"),
        cuda.Gpu("NVIDIA H100 80GB HBM3", "9.0"),
    ]
    assert found.called[0] == "cuInit"
    assert cuda.gpu(1).compute_capability == "9.0"
    with pytest.raises(MissingDependency, match="no GPU 2 here, only 2"):
        cuda.gpu(2)


def test_a_driver_without_a_gpu(driver, monkeypatch):
    driver(cuInit=100)
    with pytest.raises(MissingDependency, match="code 100: no GPU is visible"):
        cuda.gpus()
    driver(cuDeviceGetCount=36)
    with pytest.raises(MissingDependency, match="code 36"):
        cuda.gpus()
    monkeypatch.setattr(Driver, "gpus", ())
    driver()
    with pytest.raises(MissingDependency, match="no GPU is visible"):
        cuda.gpus()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_driver_here():
    with pytest.raises(MissingDependency, match="NVIDIA driver"):
        cuda.gpus()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_real_driver_agrees_with_torch():
    for index, gpu in enumerate(cuda.gpus()):
        assert gpu.name == torch.cuda.get_device_name(index)
        major, minor = torch.cuda.get_device_capability(index)
        assert gpu.compute_capability == f"{major}.{minor}"

"""An NPU or GPU that the machine shows, though the program was told to use the CPU, is one line of warning."""

from __future__ import annotations

import pytest
from tiny_runs import MINI

from configs.loading import ConfigError, load_config
from training.visible_devices import unused

NPU = "an NPU is visible ({}): --device_target Ascend uses it"
GPU = "an NVIDIA GPU is visible ({}): --device_target GPU uses it"


def devices(folder, *names):
    for name in ("null", "davinci_manager", "nvidiactl", *names):  # drivers bring some without a device
        (folder / name).touch()
    return folder


def test_a_machine_without_any(tmp_path):
    assert unused("CPU", {"PATH": str(tmp_path)}, devices(tmp_path)) == []
    assert unused("CPU", {"PATH": str(tmp_path)}, tmp_path / "no such folder") == []


@pytest.mark.parametrize("names, expected", [
    (["davinci3"], [NPU.format("{dev}/davinci3")]),
    (["davinci1", "davinci0"], [NPU.format("{dev}/davinci0")]),
    (["nvidia0"], [GPU.format("{dev}/nvidia0")]),
    (["davinci0", "nvidia0"], [NPU.format("{dev}/davinci0"), GPU.format("{dev}/nvidia0")]),
])  # fmt: skip
def test_device_files(names, expected, tmp_path):
    folder = devices(tmp_path, *names)
    assert unused("CPU", {}, folder) == [words.format(dev=folder) for words in expected]
    assert unused("Ascend", {}, folder) == unused("GPU", {}, folder) == []


@pytest.mark.parametrize("name, value, words", [
    ("ASCEND_VISIBLE_DEVICES", "0", NPU), ("ASCEND_VISIBLE_DEVICES", "0,1,2,3,4,5,6,7", NPU),
    ("ASCEND_RT_VISIBLE_DEVICES", "2", NPU), ("NVIDIA_VISIBLE_DEVICES", "all", GPU),
    ("NVIDIA_VISIBLE_DEVICES", "GPU-8a1b", GPU), ("CUDA_VISIBLE_DEVICES", "0", GPU),
])  # fmt: skip
def test_variables(name, value, words, tmp_path):
    assert unused("CPU", {name: value}, tmp_path) == [words.format(f"{name}={value}")]
    for nothing in ("", " ", "-1", "none", "void", "NoDevFiles"):
        assert unused("CPU", {name: nothing}, tmp_path) == []


@pytest.mark.parametrize("name, file", [("ASCEND_RT_VISIBLE_DEVICES", "davinci0"), ("CUDA_VISIBLE_DEVICES", "nvidia0")])
@pytest.mark.parametrize("value", ["", "-1"])
def test_devices_that_a_user_hides_are_not_mentioned(name, file, value, tmp_path):
    assert unused("CPU", {name: value}, devices(tmp_path, file)) == []


def test_the_tool_of_the_driver(tmp_path):
    (tmp_path / "npu-smi").touch(mode=0o755)
    assert unused("CPU", {"PATH": str(tmp_path)}, tmp_path) == [NPU.format("npu-smi")]


@pytest.mark.parametrize("given, meant", [
    ("ascend", "Ascend"), ("NPU", "Ascend"), ("npu", "Ascend"), ("Ascend910B", "Ascend"), ("gpu", "GPU"),
    ("cuda", "GPU"), ("cpu", "CPU"),
])  # fmt: skip
def test_other_spellings_of_a_device(given, meant):
    with pytest.raises(ConfigError, match=f"run.device_target '{given}': did you mean '{meant}'. expected one of"):
        load_config(MINI, [("run.device_target", given)])

import pytest

from helpers import machine
from helpers.machine import GPU, Machine

H200 = GPU("NVIDIA H200", 143_771 * 2**20, (9, 0))


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H200", 989),
        ("NVIDIA H200 NVL", 835),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H20", 148),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A10", 125),
        ("NVIDIA A10G", 70),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("NVIDIA GeForce RTX 4090", 165),
        ("NVIDIA B200", 2250),
        ("NVIDIA GB200", 2500),
    ],
)
def test_peak_is_the_data_sheets(name, tflops):
    assert GPU(name, 1, (9, 0)).peak_bf16_flops == tflops * 1e12


def test_an_unknown_gpu_has_no_peak_rather_than_a_wrong_one():
    assert GPU("NVIDIA Z9000", 1, (12, 0)).peak_bf16_flops is None


def test_precisions_follow_the_compute_capability():
    assert H200.supports_fp8 and H200.supports_bf16
    a100, v100 = GPU("NVIDIA A100", 1, (8, 0)), GPU("Tesla V100", 1, (7, 0))
    assert a100.supports_bf16 and not a100.supports_fp8
    assert not v100.supports_bf16
    assert not Machine(gpus=(H200, a100)).supports_fp8, "the weakest GPU decides"
    assert not Machine().supports_fp8


def test_names():
    assert Machine(gpus=(H200, H200)).name == "2 × NVIDIA H200"
    assert Machine(gpus=(H200,)).label == "h200"
    assert Machine(gpus=(GPU("NVIDIA GeForce RTX 4090", 1, (8, 9)),)).label == "rtx-4090"
    assert Machine(cpu_count=8).name == "8-core CPU"
    assert Machine().label == Machine().device == "cpu"


def test_megatron_cpu_hides_the_gpus(monkeypatch):
    monkeypatch.setenv("MEGATRON_CPU", "1")
    monkeypatch.setattr(machine, "visible_gpus", lambda: (H200,))
    machine.here.cache_clear()
    assert machine.here().device == "cpu"
    monkeypatch.delenv("MEGATRON_CPU")
    machine.here.cache_clear()
    assert machine.here().gpus == (H200,)
    machine.here.cache_clear()


def test_other_systems_get_one_sentence(monkeypatch):
    monkeypatch.setattr(machine.platform, "system", lambda: "Darwin")
    machine.here.cache_clear()
    with pytest.raises(machine.UnsupportedPlatform, match="Linux only and this is Darwin: start the container"):
        machine.here()
    machine.here.cache_clear()


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("1,0", ["b", "a"]),
        ("GPU-b", ["b"]),
        ("", []),
        ("-1", []),
        ("0,9,1", ["a"]),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(monkeypatch, visible, expected):
    import pynvml

    monkeypatch.setattr(pynvml, "nvmlDeviceGetUUID", lambda handle: f"GPU-{handle}")
    assert machine._selected(["a", "b"], visible) == expected


def test_importing_brings_no_torch():
    import subprocess
    import sys

    code = "import sys, helpers.machine; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0

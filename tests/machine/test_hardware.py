import subprocess
import sys

import pytest
from machines import H200, ONE_H200, TWO_H200, V100

from helpers import machine
from helpers.machine import GPU, Machine, hardware


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H200", 989),
        ("NVIDIA H200 NVL", 835),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H20", 148),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA GH200 480GB", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA A800-SXM4-80GB", 312),
        ("NVIDIA A40", 150),
        ("NVIDIA A30", 165),
        ("NVIDIA A10", 125),
        ("NVIDIA A10G", 70),
        ("NVIDIA L4", 121),
        ("NVIDIA L40", 181),
        ("NVIDIA L40S", 362),
        ("NVIDIA GeForce RTX 4090", 165),
        ("NVIDIA GeForce RTX 3090", 71),
        ("NVIDIA B200", 2250),
        ("NVIDIA B300 SXM6 AC", 2250),
        ("NVIDIA GB200", 2500),
        ("NVIDIA GB300", 2500),
    ],
)
def test_peak_is_the_data_sheets(name, tflops):
    assert GPU(name, 1, (9, 0)).peak_bf16_flops == tflops * 1e12


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA Z9000",
        "NVIDIA RTX A1000",
        "NVIDIA RTX A4000",
        "NVIDIA RTX A400",
        "NVIDIA RTX A3000 Laptop GPU",
        "NVIDIA L400",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 3090 Ti",
        "NVIDIA GeForce RTX 3090 with Max-Q Design",
        "NVIDIA A100-SXM4-80GB MIG 1g.10gb",
    ],
)
def test_an_unknown_gpu_has_no_peak_rather_than_a_wrong_one(name):
    assert GPU(name, 1, (12, 0)).peak_bf16_flops is None


def test_precisions_follow_the_compute_capability():
    assert H200.supports_fp8 and H200.supports_bf16
    a100 = GPU("NVIDIA A100", 1, (8, 0))
    assert a100.supports_bf16 and not a100.supports_fp8
    assert not V100.supports_bf16
    assert not Machine(gpus=(H200, a100)).supports_fp8, "the weakest GPU decides"
    assert not Machine().supports_fp8


def test_names():
    assert TWO_H200.name == "2 × NVIDIA H200"
    assert ONE_H200.label == "h200"
    assert Machine(gpus=(GPU("NVIDIA GeForce RTX 4090", 1, (8, 9)),)).label == "rtx-4090"
    assert Machine(cpu_count=8).name == "8-core CPU"
    assert Machine().label == Machine().device == "cpu"


def test_megatron_cpu_hides_the_gpus(monkeypatch):
    monkeypatch.setenv("MEGATRON_CPU", "1")
    monkeypatch.setattr(hardware, "visible_gpus", lambda: (H200,))
    machine.here.cache_clear()
    assert machine.here().device == "cpu"
    monkeypatch.delenv("MEGATRON_CPU")
    machine.here.cache_clear()
    assert machine.here().gpus == (H200,)
    machine.here.cache_clear()


def test_other_systems_get_one_sentence(monkeypatch):
    monkeypatch.setattr(hardware.platform, "system", lambda: "Darwin")
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
    assert hardware._selected(["a", "b"], visible) == expected


def test_a_mig_slice_is_refused_in_words(monkeypatch):
    import pynvml

    monkeypatch.setattr(pynvml, "nvmlDeviceGetUUID", lambda handle: f"GPU-{handle}")
    with pytest.raises(machine.UnsupportedPlatform, match="MIG-41b36a83.* whole GPUs.* export MEGATRON_CPU=1"):
        hardware._selected(["a", "b"], "MIG-41b36a83-0e4d-51b2")


def test_a_gpu_without_memory_of_its_own_has_the_machines(monkeypatch):
    """GB10 (DGX Spark): GPU and CPU share it, and the driver gives no number."""
    import psutil
    import pynvml

    def no_number(handle):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    answers = {"nvmlInit": None, "nvmlShutdown": None, "nvmlDeviceGetCount": 1, "nvmlDeviceGetHandleByIndex": "a"}
    answers |= {"nvmlDeviceGetName": "NVIDIA GB10", "nvmlDeviceGetCudaComputeCapability": (12, 1)}
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, lambda *_, answer=answer: answer)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", no_number)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert hardware.visible_gpus() == (GPU("NVIDIA GB10", psutil.virtual_memory().total, (12, 1)),)


@pytest.mark.parametrize(
    ("memory", "cpu", "expected"),
    [
        ("4294967296", "150000 100000", (2, 4 * 2**30)),
        ("max", "10000 100000", (1, 8 * 2**30)),
        ("17179869184", "max 100000", (4, 8 * 2**30)),
        (None, None, (4, 8 * 2**30)),
    ],
)
def test_a_containers_limits_count(tmp_path, memory, cpu, expected):
    for name, text in (("memory.max", memory), ("cpu.max", cpu)):
        if text is not None:
            (tmp_path / name).write_text(f"{text}\n")
    assert hardware.within_container(4, 8 * 2**30, tmp_path) == expected


CORES = "processor\t: {}\nmodel name\t: some CPU\n{}\t\t: fpu sse2 {}\nbugs\t\t: spectre_v1\n\n"
SKYLAKE = "avx avx2 avx512f avx512dq avx512cd avx512bw avx512vl"


@pytest.mark.parametrize(
    ("architecture", "word", "flags", "fast"),
    [
        ("x86_64", "flags", SKYLAKE, True),
        ("x86_64", "flags", f"{SKYLAKE} avx512_bf16 amx_bf16", True),
        ("x86_64", "flags", SKYLAKE.replace("avx512vl", ""), False),  # Knights Landing had no avx512vl
        ("x86_64", "flags", "avx avx2 fma avx_vnni", False),  # Alder Lake
        ("x86_64", "flags", "avx avx2 avx_vnni avx_vnni_int8 avx_ne_convert", True),  # Lunar Lake
        ("aarch64", "Features", "fp asimd sve bf16", True),  # Graviton3, Grace
        ("aarch64", "Features", "fp asimd", False),  # Raspberry Pi, Graviton2
        ("aarch64", "Features", "fp asimd bf16x", False),
        ("riscv64", "isa", "rv64imafdc", False),
    ],
)
def test_fast_bf16_is_read_from_the_flags_of_the_cpu(tmp_path, architecture, word, flags, fast):
    (tmp_path / "cpuinfo").write_text("".join(CORES.format(core, word, flags) for core in range(2)))
    assert hardware.multiplies_bf16(architecture, tmp_path / "cpuinfo") is fast


def test_without_a_list_of_flags_bf16_is_not_called_fast(tmp_path):
    assert hardware.multiplies_bf16("x86_64", tmp_path / "cpuinfo") is False


def test_fast_bf16_is_what_torch_itself_says():
    code = "import torch; print(torch.ops.mkldnn._is_mkldnn_bf16_supported())"
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert str(machine.here().fast_cpu_bf16) == asked.stdout.strip()


@pytest.mark.parametrize(
    ("variable", "root"), [("MEGATRON_TOUR_RUNS", machine.runs_root), ("MEGATRON_TOUR_CACHE", machine.cache_root)]
)
def test_a_relative_folder_holds_for_processes_started_elsewhere(monkeypatch, tmp_path, variable, root):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, "../mine")
    assert root() == tmp_path.parent.resolve() / "mine"


def test_importing_brings_no_torch():
    code = "import sys, helpers.machine; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GPU("mine", "80GB", (9, 0)), "GPU(memory_bytes='80GB'): it takes a whole number from 1"),
        (lambda: GPU("mine", 0, (9, 0)), "GPU(memory_bytes=0): it takes a whole number from 1"),
        (lambda: GPU("mine", 80 * 2**30, "9.0"), "GPU(compute_capability='9.0'): it takes a tuple of 2"),
        (lambda: Machine(gpus=8), "Machine(gpus=8): it takes a tuple, each of it a GPU"),
        (lambda: Machine(gpus=H200), "One alone is put in brackets: (it,)."),
        (lambda: Machine(gpus=("H100",)), "'H100' in it is a str."),
        (lambda: Machine(cpu_count=-1), "Machine(cpu_count=-1): it takes a whole number from 1"),
        (lambda: Machine(memory_bytes="8GB"), "Machine(memory_bytes='8GB'): it takes a whole number from 1"),
        (lambda: Machine(between_nodes_gbps=float("nan")), "between_nodes_gbps=nan): it takes a number above 0"),
        (lambda: Machine(cpus=3), "Machine: it takes no 'cpus'. Did you mean gpus?"),
        (lambda: machine.described("8 × H100 80GB", node=2), "described: it takes no 'node'. Did you mean nodes?"),
    ],
)
def test_a_machine_made_by_hand_of_something_else_is_refused(make, words):
    with pytest.raises(TypeError) as refused:
        make()
    assert words in str(refused.value)

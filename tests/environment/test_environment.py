"""The stars on machines that we do not have are told by facts; this machine's own are really asked."""

import dataclasses
import html
import io
import json
import os
import re
import subprocess
import sys

import pytest
from machines import TWO_H200, V100
from patience import HANG_SECONDS

from helpers import environment, machine
from helpers.environment import gpus, host, software, tools
from helpers.environment import probe as questions
from helpers.lessons import catalogue
from helpers.machine import CPU, GPU, PROJECT, Machine, variables

TWO = dataclasses.replace(TWO_H200, cpu_count=32, memory_bytes=256 * 2**30)
ONE_V100 = Machine(gpus=(V100,))
WHEEL = "/env/site-packages/nvidia/cudnn"


def facts(**changes) -> dict:
    """What the probe tells on a healthy machine with GPUs; `changes` override a step."""
    healthy = {
        "torch": {
            "version": "2.11.0+cu130", "path": "/env/site-packages/torch", "cuda": "13.0", "cudnn": 91900,
            "nccl": [2, 28, 9], "gloo": True, "cuda_available": True, "architectures": ["sm_75", "sm_80", "sm_90"],
        },
        "megatron": {"version": "0.19.2", "training": True, "path": "/env/site-packages/megatron"},
        "index helpers": {"path": "/env/site-packages/megatron/core/datasets/helpers_cpp.so"},
        "hub": {"endpoint": "https://huggingface.co", "seconds": 0.1},
    }  # fmt: skip
    return healthy | changes


@pytest.fixture(scope="module")
def report():
    return environment.check(dataclasses.replace(machine.here(), gpus=()))


def test_a_bare_laptop_is_ready(report):
    assert report.ok, [finding for finding in report.findings if finding.status == "problem"]
    by_name = {finding.name: finding for finding in report.findings}
    assert by_name["Transformer Engine"].status in ("note", "ok")
    assert by_name["PyTorch"].found.startswith(software.pins()["torch"])
    assert by_name["Megatron-Core"].found == f"{software.pins()['megatron-core']} with megatron.training"
    assert by_name["Megatron's helpers_cpp"].found == "loads"
    assert "gloo" in by_name["Collectives"].found


@pytest.mark.parametrize("kind", ["helpers/__init__.py", "helpers.py"])
def test_another_package_of_our_name_is_named(kind, tmp_path, monkeypatch):
    (tmp_path / kind).parent.mkdir(exist_ok=True)
    (tmp_path / kind).touch()
    for path in (str(tmp_path), f"{PROJECT}:/nowhere:{tmp_path}"):
        monkeypatch.setenv("PYTHONPATH", path)
        found = software.our_package(CPU, facts())
        assert found.status == "problem" and str(tmp_path) in found.found and "PYTHONPATH" in found.fix
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    assert software.our_package(CPU, facts()).status == "ok"


def test_the_command_takes_our_package_and_names_the_other(tmp_path):
    (tmp_path / "helpers").mkdir()
    (tmp_path / "helpers" / "__init__.py").write_text("raise SystemExit('the other package was imported')")
    command = [sys.executable, "-c", "import megatron_tour, sys; sys.exit(megatron_tour.main())", "--check"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "MEGATRON_CPU": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=PROJECT / "notebooks")
    assert done.returncode == 1 and "Fix these first: Package helpers." in done.stdout, done.stdout + done.stderr
    assert "the other package was imported" not in done.stdout + done.stderr


def test_every_star_says_why_and_every_trouble_what_to_do(report):
    assert len({finding.name for finding in report.findings}) == len(report.findings) >= 19
    for finding in report.findings:
        assert finding.status in ("ok", "note", "problem")
        assert finding.found and len(finding.why) > 20
        assert (finding.fix == "") == (finding.status == "ok"), finding


def test_the_report_shows_itself_as_text_table_and_html(report):
    from rich.console import Console

    text, page = repr(report), report._repr_html_()
    console = Console(record=True, width=140, file=io.StringIO())
    console.print(report)
    for shown in (text, page, console.export_text()):
        for finding in report.findings:
            assert finding.name in html.unescape(shown)
        assert "Ready: nothing stands in the way." in shown
    assert "\x1b" not in text and max(map(len, text.splitlines())) <= 110
    assert page.count("<tr>") == len(report.findings) + len(report.plans) + 2


def test_the_two_processes_really_add_up():
    added = environment.all_reduce(2, CPU)
    assert added.ok and added.backend == "gloo" and added.processes == 2
    assert {row["step"] for row in added.rows} == {"all-reduce", "all-gather"}
    assert len({row["bytes"] for row in added.rows}) >= 4
    assert added.bus_bytes_per_second > 1e6
    told = added.variables()
    assert told.columns.tolist() == ["rank 0", "rank 1"] and told.loc["RANK"].tolist() == ["0", "1"]
    assert set(told.loc["WORLD_SIZE"]) == {"2"} and told.loc["MASTER_PORT"].nunique() == 1
    assert "Every process has the right sum." in repr(added)


def test_one_size_can_be_asked_for():
    size = 3 * 2**20
    added = environment.all_reduce(2, CPU, sizes=[size])
    assert added.ok and {row["bytes"] for row in added.rows} == {size}
    assert added.milliseconds(size) == 1e3 * added.rows[0]["seconds"] > 0


def test_a_wrong_sum_is_not_ok():
    row = {"step": "all-reduce", "bytes": 4096, "seconds": 1e-3, "bus_bytes_per_second": 1e9, "wrong_elements": 3}
    added = environment.Collectives("nccl", 2, (row,))
    assert not added.ok and "3 elements differ" in repr(added) and "do not train" in repr(added)


# --- each star, in trouble ------------------------------------------------------------------------------------------


def test_a_wrong_python_or_processor_is_a_problem(monkeypatch):
    assert host.operating_system(dataclasses.replace(CPU, architecture="riscv64"), {}).status == "problem"
    monkeypatch.setattr(sys, "version_info", (3, 11, 9))
    finding = software.python(CPU, {})
    assert finding.status == "problem" and "uv run" in finding.fix


@pytest.mark.parametrize(
    ("star", "on", "told", "status", "says"),
    [
        (software.torch, TWO, {"error": "ImportError: libcudart"}, "problem", "libcudart"),
        (software.torch, TWO, {"version": "2.11.0+cpu", "cuda": None}, "problem", "cannot use the GPU"),
        (software.torch, TWO, {"version": "2.8.0a0+nv25.06", "cuda": "12.9"}, "note", "container's own"),
        (software.torch, CPU, {"version": "2.11.0+cpu", "cuda": None}, "ok", "without CUDA"),
        (software.nccl, TWO, {"nccl": None, "gloo": True}, "problem", "lacks nccl"),
        (software.nccl, CPU, {"nccl": None, "gloo": True}, "ok", "gloo"),
    ],
)
def test_torch_and_its_collectives(star, on, told, status, says):
    finding = star(on, facts(torch=told))
    assert finding.status == status
    assert says in f"{finding.found} {finding.fix}"


def test_a_child_that_crashed_is_told_as_such():
    finding = software.torch(TWO, {"end": {"error": "the child process ended with -11: no message"}})
    assert finding.status == "problem" and "-11" in finding.found


@pytest.mark.parametrize(
    ("on", "driver", "cuda", "usable", "status", "says"),
    [
        (TWO, "580.95.05", "13.0", True, "ok", "2 × NVIDIA H200"),
        (TWO, "550.54.15", "12.4", True, "problem", "580 or newer"),
        (TWO, "580.95.05", "13.0", False, "problem", "--gpus all"),
        (ONE_V100, "580.95.05", "13.0", True, "problem", "MEGATRON_CPU=1"),
    ],
)
def test_the_driver_against_pytorch(monkeypatch, on, driver, cuda, usable, status, says):
    monkeypatch.setattr(host, "driver_versions", lambda: (driver, cuda))
    told = facts()
    told["torch"]["cuda_available"] = usable
    finding = host.driver(on, told)
    assert finding.status == status and says in f"{finding.found} {finding.fix}"


def test_an_old_megatron_lacks_the_training_package():
    finding = software.megatron(CPU, facts(megatron={"version": "0.16.1", "training": False, "path": "/x"}))
    assert finding.status == "problem" and "megatron-core==0.19.2" in finding.fix
    assert software.index_helpers(CPU, facts(**{"index helpers": {"error": "no helpers_cpp"}})).status == "problem"


def test_disk_memory_and_shared_memory(monkeypatch):
    def usage(total, free):
        return lambda path: type("Usage", (), {"total": total, "free": free})

    monkeypatch.setattr(host.shutil, "disk_usage", usage(64e6, 0.1e9))
    assert host.disk(CPU, {}).status == "problem"
    assert host.shared_memory(CPU, {}).status == "note"
    assert host.shared_memory(TWO, {}).status == "problem"
    assert "--ipc=host" in host.shared_memory(TWO, {}).fix
    monkeypatch.setattr(host.shutil, "disk_usage", usage(8e9, 5e9))
    assert host.disk(CPU, {}).status == "ok" and host.disk(TWO, {}).status == "note"
    memory = type("Memory", (), {"available": 1e9, "total": 4e9})
    monkeypatch.setattr(host.psutil, "virtual_memory", lambda: memory)
    assert host.memory(CPU, {}).status == "problem"


def test_limits_name_the_command_that_raises_them(monkeypatch):
    monkeypatch.setattr(host.resource, "getrlimit", lambda which: (256, 256))
    finding = host.limits(TWO, {})
    assert finding.status == "note"
    for words in ("ulimit -l unlimited", "ulimit -s 8192", "ulimit -n 4096"):
        assert words in finding.fix


def test_the_key_of_weights_and_biases_is_never_shown(monkeypatch, tmp_path):
    key = "0123456789abcdef0123456789abcdef01234567"
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    assert "not logged in" in tools.wandb(CPU, {}).found
    (tmp_path / ".netrc").write_text(f"machine api.wandb.ai\n  login user\n  password {key}\n")
    (tmp_path / ".netrc").chmod(0o600)
    by_file = tools.wandb(CPU, {})
    monkeypatch.setenv("WANDB_API_KEY", key)
    (tmp_path / ".netrc").unlink()
    by_variable = tools.wandb(CPU, {})
    for finding in (by_file, by_variable):
        assert ", logged in" in finding.found
        assert key not in repr(finding)


def test_an_unreachable_hub_is_a_note_within_its_two_seconds(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "does not answer" in questions.ask_hub()["error"]
    finding = tools.hub(CPU, {"hub": questions.ask_hub()})
    assert finding.status == "note" and "HF_ENDPOINT" in finding.fix
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE" in questions.ask_hub()["error"]


# --- on GPUs, from facts --------------------------------------------------------------------------------------------


def test_an_older_system_cudnn_beside_pytorchs_is_named_with_a_line_to_paste(monkeypatch, tmp_path):
    site = tmp_path / "site-packages"
    (site / "nvidia" / "cudnn").mkdir(parents=True)
    told = facts()
    told["torch"]["path"] = str(site / "torch")
    monkeypatch.delenv("CUDNN_HOME", raising=False)
    monkeypatch.setattr(gpus, "system_cudnn", lambda: {"/usr/lib/libcudnn.so.9.14.0": "9.14.0"})
    told["transformer engine"] = {"version": "2.20.2", "cudnn_loaded": ["/usr/lib/libcudnn.so.9.14.0"]}
    finding = gpus.cudnn(TWO, told)
    assert finding.status == "problem"
    assert f"export CUDNN_HOME={site}/nvidia/cudnn" in finding.fix
    assert "9.19.0" in finding.found and "9.14.0" in finding.found
    monkeypatch.setenv("CUDNN_HOME", str(site / "nvidia" / "cudnn"))
    told["transformer engine"]["cudnn_loaded"] = [f"{site}/nvidia/cudnn/lib/libcudnn.so.9"]
    assert gpus.cudnn(TWO, told).status == "ok"


def test_the_systems_cudnn_is_found_where_transformer_engine_would(monkeypatch, tmp_path):
    folder = tmp_path / "cuda" / "lib64"
    folder.mkdir(parents=True)
    (folder / "libcudnn.so.9.14.0").write_text("")
    (folder / "libcudnn.so").symlink_to("libcudnn.so.9.14.0")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    assert gpus.system_cudnn()[str(folder / "libcudnn.so.9.14.0")] == "9.14.0"


@pytest.mark.parametrize(("number", "words"), [(91900, "9.19.0"), (90100, "9.1.0"), (8902, "8.9.2"), (91400, "9.14.0")])
def test_cudnns_number(number, words):
    assert gpus.readable(number) == words


def test_measured_products_are_held_against_the_gpus_peak():
    told = {
        "gpu 0 gemm bf16": {"tflops": 677.0, "first_tflops": 723.0, "size": 8192, "megahertz": 1500},
        "gpu 1 gemm bf16": {"tflops": 300.0, "size": 8192, "megahertz": None},
        "gpu 0 gemm fp16": {"tflops": 790.0, "size": 8192},
    }
    good, slow, others = gpus.matrix_products(TWO, told)
    assert good.status == "ok" and good.found == "677 TFLOP/s at 1,500 MHz, 68% of the peak 989; the first one 723"
    assert slow.status == "note" and "nvidia-smi" in slow.fix
    assert others.found == "fp16 790 TFLOP/s"
    unknown = Machine(gpus=(GPU("NVIDIA Unheard-of 1", 10**10, (9, 0)),))
    assert gpus.matrix_products(unknown, told)[0].found.startswith("677 TFLOP/s at 1,500 MHz, peak not known")
    assert gpus.matrix_products(TWO, {"end": {"error": "no answer within 120 s"}})[0].status == "problem"


def test_fp8_and_attention_findings():
    told = {"fp8": {"tflops": 1200.0, "relative_error": 0.04}, "gpu 0 gemm bf16": {"tflops": 780.0}}
    assert "1.54 × bf16" in gpus.fp8(TWO, told)[0].found
    assert gpus.fp8(ONE_V100, {})[0].status == "note"
    without = dataclasses.replace(TWO, transformer_engine=False)
    assert "uv sync --extra gpu" in gpus.fp8(without, {})[0].fix
    refused = ["Disabling FusedAttention as no backend supports the provided input"]
    unfused = gpus.attention(TWO, {"attention": {"backend": "UnfusedDotProductAttention", "refused": refused}})
    assert unfused[0].status == "problem" and "no backend supports" in unfused[0].found
    fused = gpus.attention(TWO, {"attention": {"backend": "FusedAttention (sub-backend 1)", "refused": []}})
    assert fused[0].status == "ok"


# --- the probe, the plan, the command -------------------------------------------------------------------------------


@pytest.fixture
def probe(monkeypatch, tmp_path):
    """The file of a probe that stands in for ours; the learner's folder has modules of the same names as others."""
    package = tmp_path / "project" / "helpers" / "ranks"
    learners = tmp_path / "learner" / "helpers"
    for folder in (package, learners):
        folder.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").write_text("")
    for file in (learners / "__init__.py", learners.parent / "queue.py"):
        file.write_text("raise SystemExit('the wrong one')")
    for module in (questions, variables):
        monkeypatch.setattr(module, "PROJECT", tmp_path / "project")
    monkeypatch.chdir(learners.parent)
    return package / "probe.py"


@pytest.mark.parametrize("path", [None, "", os.pathsep])
def test_the_learners_folder_does_not_stand_in_for_ours(probe, monkeypatch, path):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if path is not None:
        monkeypatch.setenv("PYTHONPATH", path)
    probe.write_text("""import queue\nprint('PROBE {"step": "torch", "version": "1"}')""")
    assert questions.ask("software", timeout_seconds=HANG_SECONDS) == {"torch": {"version": "1"}}


def test_what_was_told_before_a_crash_is_kept(probe):
    probe.write_text(
        """print('PROBE {"step": "torch", "version": "1"}', flush=True)\nimport os\nos.kill(os.getpid(), 11)"""
    )
    answer = questions.ask("software", timeout_seconds=HANG_SECONDS)
    assert answer["torch"] == {"version": "1"}
    assert "-11" in answer["end"]["error"]


def test_a_probe_that_hangs_is_ended(probe):
    probe.write_text("import time; time.sleep(3600)")
    assert questions.ask("software", timeout_seconds=1) == {"end": {"error": "no answer within 1 s"}}


def test_plans_differ_with_the_machine(monkeypatch, tmp_path):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name in ("00_environment_check", "01_dataset_prep", "03_tensor_parallelism"):
        (folder / f"{name}.ipynb").write_text(json.dumps({"metadata": {}}))
    minutes = {"02_gpt3_345m_one_gpu": {"NVIDIA H200": 5.54, CPU.name: 2.26}, "04_llama3_8b_fp8": {CPU.name: 0.6}}
    for name, measured in minutes.items():
        (folder / f"{name}.ipynb").write_text(json.dumps({"metadata": {"megatron_tour": measured}}))
    monkeypatch.setattr(catalogue, "PROJECT", tmp_path)
    on_cpu = {plan.notebook[:2]: plan for plan in catalogue.of(CPU, hub=False)}
    on_gpus = {plan.notebook[:2]: plan for plan in catalogue.of(TWO, hub=True)}
    assert list(on_cpu) == ["00", "01", "02", "03", "04"]
    assert on_cpu["02"].duration == "2.3 min (2-core CPU)"
    assert on_gpus["02"].duration == "5.5 min (NVIDIA H200)"
    assert on_gpus["04"].duration == "0.6 min (2-core CPU; not measured on this one)"
    assert on_cpu["01"].duration == "not measured yet"
    assert "speeches" in on_cpu["01"].here and "openwebtext" in on_gpus["01"].here
    assert "NCCL" in on_gpus["03"].here and "gloo" in on_cpu["03"].here
    assert on_gpus["04"].here == "Llama3-8B, BF16 against FP8"
    assert "recorded" in on_cpu["04"].here


def test_outside_linux_one_sentence_names_the_container():
    program = (
        "import platform, sys; platform.system = lambda: 'Darwin'\n"
        "from helpers.tour import command; sys.exit(command.main(['--check']))"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True)
    assert ran.returncode == 2
    assert "container" in ran.stdout and ran.stdout.count("\n") == 1 and ran.stderr == ""


def test_importing_brings_no_torch():
    program = (
        "import sys; from helpers import environment; from helpers.tour import command\n"
        "print({'torch', 'megatron'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True)
    assert ran.stdout.strip() == "set()"


def test_pins_are_read_from_pyproject():
    pins = software.pins()
    assert {"torch", "megatron-core", "transformer-engine", "pytest"} <= set(pins)
    assert all(re.fullmatch(r"[\d.]+", version) for version in pins.values())

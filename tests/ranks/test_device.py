"""The CPU in the place of a GPU: only where there is none, and what it answers."""

import json
import subprocess
import sys

import pytest
import real_runs

SCRIPTS = ["helpers/ranks/pretrain_gpt.py", "helpers/ranks/first_loop.py", "helpers/ranks/shards.py"]
WITH_A_GPU = """
import json, runpy, sys
import torch
from helpers.ranks.repairs import table
torch.cuda.is_available = lambda: True
table.apply()
for script in sys.argv[1:]:
    runpy.run_path(script, run_name="read")
print(json.dumps([name for name in sys.modules if name.startswith("helpers.ranks.cpu")]))
"""
SPY = """
import os, runpy, sys, types
import torch
class Called(Exception): pass
scripts = sys.argv[1:]
def switch_on(): raise Called
sys.modules["helpers.ranks.cpu.device"] = types.SimpleNamespace(switch_on=switch_on)
import helpers.ranks.cpu
helpers.ranks.cpu.device = sys.modules["helpers.ranks.cpu.device"]
for there, asked in (False, "0"), (True, "1"):
    torch.cuda.is_available = lambda: there
    os.environ["MEGATRON_CPU"] = asked
    for script in scripts:
        sys.argv = [script]
        try:
            runpy.run_path(script, run_name="__main__")
            print(script, "did not switch on")
        except Called:
            assert not any(name.startswith("megatron") for name in sys.modules)
            print("called")
"""


def python(code: str, *arguments: str, **variables: str) -> str:
    environment = {name: value for name, value in real_runs.environment().items() if name != "MEGATRON_CPU"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=real_runs.PROJECT, env=environment | variables,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_not_a_line_of_it_is_loaded_where_there_is_a_gpu():
    """torch is made to say that there is a GPU; then the scripts import nothing of the stand-in."""
    assert json.loads(python(WITH_A_GPU, *SCRIPTS).splitlines()[-1]) == []


def test_it_is_switched_on_where_there_is_none_and_where_it_is_asked_for():
    """Before anything of Megatron is imported."""
    assert python(SPY, *SCRIPTS).splitlines() == ["called"] * 2 * len(SCRIPTS)


ANSWERS = """
import json, os, time
import torch, sys
from helpers.ranks.cpu import device
device.switch_on()
zeros = torch.zeros
stepped = torch.nn.Parameter(torch.ones(2))
stepped.grad = torch.ones(2)
torch.optim.AdamW([stepped], lr=0.5).step()
imported = [sys.modules["wandb"], type(sys.modules["torch._dynamo"]).__name__]
import torch._dynamo.config
imported += [torch._dynamo.config.disable, torch._dynamo.is_compiling(), torch._dynamo is sys.modules["torch._dynamo"]]
device.switch_on()
from helpers.ranks.cpu import attention

torch.cuda.set_device(1)
quiet = torch.cuda.memory_allocated()
held = torch.ones(64 << 20, dtype=torch.uint8)
held += 1
with_64_mib = torch.cuda.memory_allocated()
del held
after = torch.cuda.max_memory_allocated()

start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
start.record()
time.sleep(0.02)
end.record()

torch.cuda.manual_seed(5)
state = torch.cuda.get_rng_state()
drawn = torch.rand(3, device="cuda")
torch.cuda.set_rng_state(state)
drawn_again = torch.rand(3)

state = torch.get_rng_state()
read = list(torch.utils.data.DataLoader([1, 2, 3]))
loader_draws_aside = len(read) == 3 and bool((torch.get_rng_state() == state).all())

class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 2, device=torch.cuda.current_device())

devices = [
    torch.zeros(1, device="cuda"), torch.zeros(1, device=0), torch.zeros(1, device=torch.device("cuda", 1)),
    torch.zeros(1).to("cuda:1"), torch.zeros(1).to(device="cuda"), torch.zeros(1).to(0), torch.zeros(1).cuda(),
    torch.zeros(1).new_zeros(1, device="cuda"), torch.empty(1, pin_memory=True), torch.zeros(1).pin_memory(),
    Layer().to("cuda").linear.weight, Layer().cuda().linear.weight, torch.zeros(1).to(torch.float64),
    torch.zeros(1).to(torch.zeros(1, dtype=torch.int64)), torch.empty(1, device="meta").to("meta"),
]
print(json.dumps({
    "devices": [tensor.device.type for tensor in devices],
    "dtypes": [str(devices[12].dtype), str(devices[13].dtype)],
    "once": torch.zeros is zeros,
    "count": torch.cuda.device_count(),
    "type": torch.zeros(1).type(),
    "cast": str(torch.zeros(1).type("torch.cuda.HalfTensor").dtype),
    "memory": [quiet, with_64_mib, after],
    "statistics": torch.cuda.memory_stats()["allocated_bytes.all.peak"],
    "milliseconds": start.elapsed_time(end),
    "same": bool((drawn == drawn_again).all()),
    "name": torch.cuda.get_device_name(),
    "compiled": torch.compile(abs)(-3) + torch.compile(mode="max-autotune")(abs)(-4),
    "order": attention.sequence_order(2, 8).tolist(),
    "generators": [torch.Generator(device=device).device.type for device in (0, "cuda", "cpu")],
    "seeded": [torch.rand(1, generator=torch.Generator(device=0).manual_seed(3)).item() for _ in range(2)],
    "is one": isinstance(torch.default_generator, torch.Generator),
    "aside": loader_draws_aside,
    "connections": os.environ["CUDA_DEVICE_MAX_CONNECTIONS"],
    "imported": imported,
    "stepped": stepped.tolist(),
}))
device.main()
"""
SOMEBODY_ELSES = """
import multiprocessing, sys, torch, its_module
def in_another_process(queue):
    queue.put(torch.zeros(1, device="cuda").device.type)
if __name__ == "__main__":
    spawning = multiprocessing.get_context("spawn")
    queue = spawning.Queue()
    child = spawning.Process(target=in_another_process, args=(queue,))
    child.start()
    print(queue.get(timeout=300))
    child.join()
    print(its_module.answer, sys.argv[1:], torch.zeros(1, device="cuda").device, sys.argv[0] == __file__)
"""


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What one process prints: the answers, and what a script says that it was then given."""
    folder = tmp_path_factory.mktemp("somebody")
    (folder / "its_module.py").write_text("answer = 42\n")
    (folder / "its_script.py").write_text(SOMEBODY_ELSES)
    return python(
        ANSWERS, str(folder / "its_script.py"), "--flag", "--use-torch-fsdp2", LOCAL_WORLD_SIZE="3"
    ).splitlines()


@pytest.fixture(scope="module")
def answers(printed):
    return json.loads(next(line for line in printed if line.startswith("{")))


def test_tensors_stay_in_main_memory(answers):
    assert answers["devices"] == ["cpu"] * 14 + ["meta"]
    assert answers["once"], "switched on twice, wrapped twice"
    assert answers["dtypes"] == ["torch.float64", "torch.int64"]


def test_megatron_takes_the_tensors_for_those_of_a_gpu(answers):
    assert answers["type"] == "torch.cuda.FloatTensor"
    assert answers["cast"] == "torch.float16"


def test_every_process_of_the_machine_is_a_device(answers):
    assert answers["count"] == 3
    assert answers["name"] == "cpu"


def test_memory_is_what_the_process_took_since_it_chose_its_device(answers):
    quiet, with_64_mib, peak = (figure / 2**20 for figure in answers["memory"])
    assert quiet < 8
    assert 60 < with_64_mib - quiet < 80
    assert peak >= with_64_mib - 1  # freed by then
    assert answers["statistics"] / 2**20 >= 60


def test_events_random_numbers_and_compiled_functions(answers):
    assert answers["milliseconds"] >= 15
    assert answers["same"]
    assert answers["compiled"] == 7


def test_generators_for_a_gpu_draw_on_the_cpu(answers):
    """Megatron's text generation makes one for its sampling: torch.Generator(device=torch.cuda.current_device())."""
    assert answers["generators"] == ["cpu"] * 3 and answers["is one"]
    assert answers["seeded"][0] == answers["seeded"][1]


def test_a_data_loader_leaves_the_devices_random_numbers_alone(answers):
    """Only some tensor-parallel ranks read data, and all of them must drop the same activations."""
    assert answers["aside"]


def test_a_start_imports_neither_wandb_nor_the_compiler_until_they_are_asked_for(answers):
    assert answers["imported"] == [None, "Compiler", False, False, True]
    assert answers["stepped"] == pytest.approx([0.495, 0.495]), "AdamW: a step of 0.5 and its decay of 0.005"
    asked = "import sys; from helpers.ranks.cpu import device; device.switch_on(); print(sys.modules['wandb'].__name__)"
    assert python(asked, "--wandb-project", "tour").splitlines()[-1] == "wandb"


def test_a_sequence_is_put_together_from_its_zigzag_parts(answers):
    """Two ranks, eight positions: rank 0 holds 0 1 6 7, rank 1 holds 2 3 4 5."""
    assert [[0, 1, 6, 7, 2, 3, 4, 5][place] for place in answers["order"]] == list(range(8))


def test_a_script_of_somebody_else_runs_with_its_own_folder_and_arguments(printed):
    assert printed[-1] == "42 ['--flag', '--use-torch-fsdp2'] cpu True"


def test_what_it_spawns_has_the_device_too(printed):
    assert printed[-2] == "cpu"


def test_fsdp_gets_the_connections_that_megatron_demands_for_it(answers):
    """More than one; with tensor or context parallelism it demands one, which each such training here needs."""
    assert answers["connections"] == "32"


def test_no_script_is_a_question():
    done = subprocess.run(
        [sys.executable, "-m", "helpers.ranks.cpu.device"], cwd=real_runs.PROJECT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Which script?")

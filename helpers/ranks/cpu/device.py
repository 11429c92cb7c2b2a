"""A CPU in the place of each GPU: Megatron trains on a laptop with the same script and the same flags.

    from helpers.ranks.cpu import device
    device.switch_on()                      # after `import torch`, before `import megatron`

Megatron speaks to `torch.cuda` by name. `switch_on` lets those names answer for the CPU: every process of the
machine is one device, a tensor sent to "cuda" stays in main memory, streams are in order by themselves, and the
memory figures are those of the process. Nothing pretends to compute: each number still comes from Megatron and
torch. What Megatron itself refuses on a CPU is in `cpu.megatron` and `cpu.attention`; what no CPU can do is refused,
in words, from the program's flags (`refused_flags`).

A script of somebody else (NVIDIA's own `pretrain_gpt.py`, say) runs the same way:

    torchrun --nproc-per-node 2 -m helpers.ranks.cpu.device ../Megatron-LM/pretrain_gpt.py <its flags>

Replacing the functions costs less than a `torch.overrides.TorchFunctionMode` that does the same: the mode is
asked about every torch call of a step, a replaced function only about calls of its own.
"""

import contextlib
import functools
import gc
import os
import re
import runpy
import sys
import time
import types
import warnings
from collections import defaultdict
from pathlib import Path

import torch

from helpers.ranks import refused_flags, start
from helpers.ranks.cpu import generators, spawned, tokenizer

CPU = torch.device("cpu")
FACTORIES = ["tensor", "as_tensor", "empty", "empty_like", "empty_strided", "zeros", "zeros_like", "ones", "ones_like"]
FACTORIES += ["full", "full_like", "rand", "rand_like", "randn", "randn_like", "randint", "randint_like", "randperm"]
FACTORIES += ["arange", "linspace", "eye"]
METHODS = ["new_empty", "new_zeros", "new_ones", "new_full", "new_tensor", "to"]


def switch_on() -> None:
    """Let the CPU answer for `torch.cuda` in this process, for good. A second call changes nothing.

    Raises:
        SystemExit: the program's flags ask for what no CPU can do; the message says what to do instead.
    """
    if torch.cuda.Stream is Stream:
        return
    refused_flags.refuse_what_breaks_on_a_cpu(sys.argv[1:])
    for name in ("transformer_engine", "apex", "amp_C"):  # their norms and their Adam, which Megatron takes, need a GPU
        sys.modules[name] = None
    start.before_megatron()
    tokenizer.leave_the_models_for_later()
    shards = {"--use-megatron-fsdp", "--use-torch-fsdp2"} & set(sys.argv)
    # It does nothing here, but before Blackwell Megatron demands 1 with TP and CP, and more than 1 with FSDP.
    os.environ["CUDA_DEVICE_MAX_CONNECTIONS"] = "32" if shards else "1"
    _place_tensors()
    _stand_in_for_torch_cuda()
    generators.share()
    spawned.tell_them()
    _adapt_collectives()
    torch.compile = start.as_written  # a compiler takes longer to start than it can save on a CPU
    torch.accelerator.is_available = lambda: False  # so that data loaders do not pin memory for a GPU

    for missing in ("Transformer Engine and Apex", "Apex is not installed", "Only transformer-engine"):
        warnings.filterwarnings("ignore", message=missing)  # they are for GPUs, so nobody misses them here

    gc.disable()  # what is imported is never garbage: looking for some takes two seconds
    from helpers.ranks.cpu import attention, megatron

    megatron.adapt()
    attention.adapt()
    gc.freeze()
    gc.enable()


# ---- tensors -----------------------------------------------------------------------------------------------------
def _on_cpu(device):
    """`device`, or the CPU where it means a GPU: "cuda:1", torch.device("cuda"), 1."""
    if isinstance(device, torch.device):
        return CPU if device.type == "cuda" else device
    if isinstance(device, str):
        return CPU if device.startswith("cuda") else device
    return CPU if type(device) is int else device


def _place(owner, name: str) -> None:
    """Replace `owner.name`, so that the device it is given means the CPU."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def placed(*args, **options):
        if "device" in options:
            options["device"] = _on_cpu(options["device"])
        options.pop("pin_memory", None)  # torch pins memory for a GPU only, and fails without one
        if name == "to" and len(args) > 1:
            args = (args[0], _on_cpu(args[1]), *args[2:])
        return original(*args, **options)

    setattr(owner, name, placed)


def _place_tensors() -> None:
    for name in FACTORIES:
        _place(torch, name)
    for name in METHODS:
        _place(torch.Tensor, name)
    _place(torch.nn.Module, "to")
    _place(torch.nn.Module, "to_empty")
    torch.Tensor.cuda = torch.nn.Module.cuda = torch.Tensor.pin_memory = lambda self, *args, **options: self
    torch.Tensor.record_stream = lambda self, stream: None

    original = torch.Tensor.type

    @functools.wraps(original)
    def type_of_gpu(self, dtype=None, *args, **options):
        """Megatron's optimizers only take parameters whose type is called torch.cuda.…"""
        if dtype is None:
            return original(self).replace("torch.", "torch.cuda.", 1)
        return original(self, dtype.replace("torch.cuda.", "torch.") if type(dtype) is str else dtype, *args, **options)

    torch.Tensor.type = type_of_gpu


# ---- torch.cuda --------------------------------------------------------------------------------------------------
class Stream:
    """Work on a CPU is done when its call returns, so a stream has nothing to wait for."""

    def __init__(self, *args, **options):
        self.cuda_stream = 0

    def wait_stream(self, stream):
        pass

    wait_event = wait_stream

    def synchronize(self):
        pass

    def query(self):
        return True

    def record_event(self, event=None):
        event = event or Event()
        event.record()
        return event

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return False

    @staticmethod
    def priority_range():
        return 0, 0


class Event:
    """A point in time; `elapsed_time` is in milliseconds, as on a GPU."""

    def __init__(self, *args, **options):
        self.seconds = None

    def record(self, stream=None):
        self.seconds = time.perf_counter()

    def wait(self, stream=None):
        pass

    def synchronize(self):
        pass

    def query(self):
        return True

    def elapsed_time(self, end):
        return (end.seconds - self.seconds) * 1e3


class Memory:
    """Resident memory of this process in bytes, beyond what it held when Megatron chose its device.

    By then everything is imported (0.5 GB or so), so what remains is weights, gradients, optimizer state and
    activations, as on a GPU. From /proc/self/status: VmRSS, and VmHWM for the peak.
    """

    before = 0

    @staticmethod
    def _read(field: str) -> int:
        status = Path("/proc/self/status").read_text()
        return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) * 1024

    @classmethod
    def start(cls, device=None) -> None:
        cls.before = cls._read("VmRSS")
        cls.reset_peak()

    @classmethod
    def now(cls, device=None) -> int:
        return max(0, cls._read("VmRSS") - cls.before)

    @classmethod
    def peak(cls, device=None) -> int:
        return max(0, cls._read("VmHWM") - cls.before)

    @staticmethod
    def reset_peak(device=None) -> None:
        with contextlib.suppress(OSError):  # 5 asks Linux to forget the peak (proc(5)); some sandboxes refuse
            Path("/proc/self/clear_refs").write_text("5")

    @classmethod
    def statistics(cls, device=None) -> dict[str, int]:
        now, peak = cls.now(), cls.peak()
        figures = {f"{kind}_bytes.all.{when}": n for kind in ("allocated", "reserved") for when, n in
                   (("current", now), ("peak", peak))}  # fmt: skip
        return defaultdict(int, figures)  # what else is asked of an allocator, retries say, is 0


def _stand_in_for_torch_cuda() -> None:
    stream = Stream()
    properties = types.SimpleNamespace(
        name="cpu",
        major=0,
        minor=0,
        total_memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        multi_processor_count=os.cpu_count(),
    )
    answers = (
        (True, "is_available is_initialized"),
        (False, "is_current_stream_capturing"),
        (0, "current_device device_memory_used utilization temperature power_draw clock_rate"),
        (None, "_lazy_init synchronize empty_cache set_stream"),
        ("cpu", "get_device_name"),
        ((0, 0), "get_device_capability"),  # older than any GPU: what asks for a generation is told no
    )
    for answer, names in answers:
        for name in names.split():
            setattr(torch.cuda, name, lambda *args, answer=answer, **options: answer)
    torch.cuda._lazy_call = lambda call, **options: call()
    torch.cuda.device_count = lambda: int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.cuda.get_device_properties = lambda device=None: properties
    torch.cuda.Stream, torch.cuda.Event = Stream, Event
    torch.cuda.current_stream = torch.cuda.default_stream = lambda device=None: stream
    torch.cuda.stream = torch.cuda.device = contextlib.nullcontext
    torch.cuda.nvtx.range_push = torch.cuda.nvtx.range_pop = lambda *args, **options: None
    torch.cuda.nvtx.range = lambda *args, **options: contextlib.nullcontext()

    torch.cuda.set_device = Memory.start
    for module in (torch.cuda, torch.cuda.memory):
        module.memory_allocated = module.memory_reserved = Memory.now
        module.max_memory_allocated = module.max_memory_reserved = Memory.peak
        module.reset_peak_memory_stats = module.reset_max_memory_allocated = Memory.reset_peak
        module.memory_stats = Memory.statistics


# ---- the rest ----------------------------------------------------------------------------------------------------
def _adapt_collectives() -> None:
    """gloo wants the splits of an all-to-all (mixture of experts) as numbers; Megatron leaves them in a tensor."""
    original = torch.distributed.all_to_all_single

    def numbers(splits):
        return splits.tolist() if isinstance(splits, torch.Tensor) else splits

    @functools.wraps(original)
    def all_to_all_single(output, input, output_split_sizes=None, input_split_sizes=None, *args, **options):
        return original(output, input, numbers(output_split_sizes), numbers(input_split_sizes), *args, **options)

    torch.distributed.all_to_all_single = all_to_all_single


def main() -> None:
    """Run the script named by the first argument, with the rest of them, on the CPU."""
    from helpers.ranks.repairs import table

    if len(sys.argv) < 2:
        sys.exit("Which script? torchrun --nproc-per-node 2 -m helpers.ranks.cpu.device <script.py> <its flags>")
    sys.argv = sys.argv[1:]
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)  # as python does for a script: its own folder comes first
    os.environ["MEGATRON_CPU"] = "1"
    table.apply()
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()

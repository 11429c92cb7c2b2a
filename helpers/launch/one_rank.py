"""One rank of a job of any size, on the one GPU that is here: `one_of_many`."""

import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import Annotated

from helpers import recipes
from helpers.machine import Machine, here
from helpers.processes import programs
from helpers.processes.run_directory import provenance
from helpers.recipes import preflight
from helpers.recipes.command import Command
from helpers.recipes.flag import Flag
from helpers.runs import one_rank
from helpers.show import bounds
from helpers.show.arguments import checked

PROGRAM = Path("helpers/ranks/one_rank.py")
WARM_UP, PROFILED = 4, 3  # steps before the timed ones, and after them
ALONE = Flag("--fake-process-group", None, "collectives return at once: the other ranks are not there")
UNSCALED = Flag("--initial-loss-scale", "1", "the default, 2^32, overflows, and the first steps would be left out")


@checked
def one_of_many(
    recipe: recipes.Recipe,
    data=None,
    stage: Annotated[int, bounds.PLACE] = 0,
    *,
    steps: Annotated[int, bounds.STEPS] = 5,
    timeout_seconds: Annotated[float, bounds.SECONDS] = 600,
    machine: Machine | None = None,
) -> one_rank.OneRank:
    """Measure one rank of the recipe's job, alone on one GPU (or a CPU): the job may need any number of them.

    Megatron's `--fake-process-group` (training/arguments.py:3060) lets a rank train without the others:

        WORLD_SIZE=64 RANK=0 LOCAL_RANK=0 python pretrain_gpt.py <flags> --fake-process-group

    Its model, its memory and its kernels are those it has in the job; collectives return at once, a pipeline stage
    waits for no other, and what others would have sent is made up (`helpers/ranks/alone.py`). So the loss means
    nothing, and none is shown. What is told: memory, wall time of a step, and how long of it the GPU computes. Memory
    and the last can be carried over to the job. The wall time cannot: it has no collective in it, and in it the speed
    at which this host launches kernels.

    The rank is the first of its pipeline stage, rank `stage` × world size / PP: coordinate 0 of tensor, context, expert
    and data parallelism. Checkpoints, evaluation, TensorBoard, W&B and a CUDA graph are left out. Megatron itself looks
    for no NaN then (training/arguments.py:1701), which in a job costs a pass over the gradients.

    Args:
        recipe: its layout is the job's.
        data: a `corpus.Corpus` or `Blend`; None for made-up tokens.
        stage: which pipeline stage, 0 to PP - 1.
        steps: how many are timed, after four that are not and before three under PyTorch's profiler.
        timeout_seconds: how long it may take, imports included.

    Raises:
        preflight.PreflightError: it cannot work; nothing was started.
        TrainingFailed: it started and did not finish, for want of memory, say.
        KeyboardInterrupt: after every process has ended.
    """
    machine = machine or here()
    machine = dataclasses.replace(machine, gpus=machine.gpus[:1])
    recipe = _alone(recipe, steps)
    for warning in preflight.refuse(preflight.check(recipe, data, machine, stage=stage)):
        print(warning)
    layout = recipe.layout
    rank = stage * layout.world_size // layout.pipeline_parallel
    print(f"One process stands for rank {rank} of {layout.world_size}, stage {stage}, alone on {machine.name}.")
    with tempfile.TemporaryDirectory() as folder:
        command = _command(recipe, data, machine, rank, folder)
        output = programs.ranks(
            PROGRAM.stem,
            1,
            *command.argv[command.argv.index(str(PROGRAM)) + 1 :],
            machine=machine,
            timeout_seconds=timeout_seconds,
            variables=command.environment,
        )
        shown = str(command).replace(folder, "<folder>")
    return one_rank.from_output(
        output,
        described=dataclasses.asdict(recipe) | {"corpus": getattr(data, "name", "made-up tokens")},
        environment=provenance(machine, command.environment),
        command=shown,
        stage=stage,
        rank=rank,
    )


def _alone(recipe: recipes.Recipe, steps: int) -> recipes.Recipe:
    """The recipe as it is measured: as many steps as it takes, and nothing but steps."""
    total = WARM_UP + steps + PROFILED
    return recipe.with_(
        train_iters=total,
        lr_warmup_iters=0,
        exit_interval=None,
        eval_interval=total,
        eval_iters=0,
        save_interval=None,
        tensorboard=False,
        wandb_project=None,
        cuda_graph=False,
    )


def _command(recipe: recipes.Recipe, data, machine: Machine, rank: int, folder: str) -> Command:
    launched = recipe.command(data, machine, run_directory=folder)
    torchrun = (sys.executable, "-m", "helpers.ranks.torchrun", "--nproc-per-node", "1")
    program = (*torchrun, str(PROGRAM), *map(str, (rank, recipe.layout.world_size, WARM_UP, PROFILED)))
    unscaled = [UNSCALED] if recipe.precision.dtype == "fp16" else []
    return Command(program, launched.groups | {"one rank of many": [ALONE, *unscaled]}, launched.environment)

"""What keeps one rank of a job from running alone, without the others (`launch.one_of_many`)."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from helpers.machine import Machine
from helpers.recipes.preflight.problem import Problem, error

if TYPE_CHECKING:
    from helpers.recipes.recipe import Recipe

CHECKPOINT = "A checkpoint is written and read by all ranks together, and the others are not there."
FSDP = "What FSDP holds from step to step lies in buffers of its own, which are not counted here."
OPTIONS = "It sets options of NCCL, and the process group that stands in for the others takes none."
OWN_STEPS = "The first steps are not timed and the last ones are profiled, so their number is set for you."
NOT_ALONE = {  # a flag, or the beginning of several: why it does not work for a rank alone
    "--save": CHECKPOINT,
    "--load": CHECKPOINT,
    "--pretrained-checkpoint": CHECKPOINT,
    "--use-torch-fsdp2": FSDP,
    "--use-megatron-fsdp": FSDP,
    "--high-priority-stream-groups": OPTIONS,
    "--nccl-communicator-config-path": OPTIONS,
    "--tp-comm-overlap": "Its kernels write into the memory of the other GPUs.",
    "--moe-enable-deepep": "Its kernels write into the memory of the other GPUs.",
    "--cuda-graph-impl": "In a recorded step the kernels that stand in for collectives cannot be told from the others.",
    "--profile": "The profiler that counts kernels is on already, and there can be but one.",
    "--rampup-batch-size": "The steps that are timed would be smaller than the recipe's.",
    "--train-iters": OWN_STEPS,
    "--train-samples": OWN_STEPS,
    "--exit-interval": OWN_STEPS,
}


def on_as_many(recipe: "Recipe", machine: Machine) -> Machine:
    """The machine with a GPU like its first for every rank of the job; a CPU stays as it is."""
    return replace(machine, gpus=machine.gpus[:1] * recipe.layout.world_size)


def alone(recipe: "Recipe", machine: Machine, stage: int) -> Iterator[Problem]:
    """A pipeline stage that there is not, and what takes the other ranks."""
    stages = recipe.layout.pipeline_parallel
    if not 0 <= stage < stages:
        why = f"The pipeline has {stages} stages, 0 to {stages - 1}." if stages > 1 else "There is one stage, 0."
        yield error(f"stage={stage} with pipeline_parallel={stages}", why, f"stage={stages - 1}, the last one, say.")
    if recipe.speed.overlap_tensor_parallel and machine.device == "cuda":
        yield error("overlap_tensor_parallel", NOT_ALONE["--tp-comm-overlap"], "overlap_tensor_parallel=False.")
    words = [word.split("=")[0] for word in recipe.extra_flags]
    for word in words:
        flag = next((flag for flag in NOT_ALONE if word == flag or word.startswith(f"{flag}-")), None)
        if flag:
            yield error(f"extra_flags {word} for one rank of many", NOT_ALONE[flag], "Leave it out here.")
    if "--moe-token-dispatcher-type" in words and "flex" in words:
        yield error("extra_flags --moe-token-dispatcher-type flex", NOT_ALONE["--moe-enable-deepep"], "alltoall.")

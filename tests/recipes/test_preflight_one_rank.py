"""What preflight says to one rank of a job that is to run alone."""

from dataclasses import replace

import pytest
from machines import ONE_H100

from helpers import recipes
from helpers.machine import CPU, megatron_flags
from helpers.recipes import preflight
from helpers.recipes.preflight import one_rank

BIG = recipes.gpt3_345m().with_(cuda_graph=False)
SMALL = recipes.gpt3_345m().scaled_to("cpu")


def refusals(recipe, machine, stage: int | None = 0) -> str:
    found = preflight.check(recipe, None, machine, stage=stage)
    return "\n".join(str(problem) for problem in found if problem.severity == "error")


def test_the_other_ranks_need_no_gpus():
    job = BIG.with_(tensor_parallel=8, pipeline_parallel=8, processes=512, global_batch_size=64, micro_batch_size=1)
    assert "512 ranks, 1 visible GPU" in refusals(job, ONE_H100, stage=None)
    assert [refusals(job, ONE_H100, stage) for stage in (0, 7)] == ["", ""]


def test_the_layout_is_looked_at_all_the_same():
    assert "16 heads do not go into 3" in refusals(BIG.with_(tensor_parallel=3), ONE_H100)
    assert "global_batch_size" in refusals(BIG.with_(processes=5), ONE_H100)


def test_memory_is_that_of_the_stage_against_one_gpu():
    job = BIG.with_(num_layers=72, hidden_size=3072, num_attention_heads=32, pipeline_parallel=8, micro_batch_size=4)
    smaller = replace(ONE_H100, gpus=(replace(ONE_H100.gpus[0], memory_bytes=40 * 10**9),))
    assert "more than the GPU's 40.0 GB" in refusals(job, smaller, stage=0)
    assert refusals(job, smaller, stage=7) == ""


def test_on_a_cpu_one_rank_must_fit_and_not_all():
    job = SMALL.with_(processes=64, global_batch_size=256)
    assert "64 × " in refusals(job, CPU, stage=None) and refusals(job, CPU) == ""


def test_fp8_is_refused_where_there_is_none():
    assert "FP8 matrix products exist on GPUs only" in refusals(SMALL.with_(fp8_format="hybrid"), CPU)


@pytest.mark.parametrize("stage", [-1, 2])
def test_a_stage_that_there_is_not(stage):
    assert "The pipeline has 2 stages, 0 to 1." in refusals(SMALL.with_(pipeline_parallel=2), CPU, stage)


@pytest.mark.parametrize("flag", one_rank.NOT_ALONE)
def test_what_takes_the_others_is_refused_with_its_reason(flag):
    assert flag in megatron_flags.known()
    told = refusals(SMALL.with_(extra_flags=(f"{flag}=1",)), CPU)
    assert flag in told and one_rank.NOT_ALONE[flag] in told


def test_more_flags_of_one_kind_and_a_switch_of_the_recipe_are_refused():
    assert "all ranks together" in refusals(SMALL.with_(extra_flags=("--save-interval", "5")), CPU)
    assert "other GPUs" in refusals(SMALL.with_(extra_flags=("--moe-token-dispatcher-type", "flex")), CPU)
    assert "memory of the other GPUs" in refusals(
        BIG.with_(tensor_parallel=8, sequence_parallel=True, overlap_tensor_parallel=True), ONE_H100
    )

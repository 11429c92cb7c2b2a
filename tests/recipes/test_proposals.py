"""What preflight says to change works: each proposal, made, leaves the problem behind and brings no other."""

import ast
import re

import pytest
from machines import EIGHT_H200, ONE_2080, ONE_H100, ONE_H200

from helpers import recipes
from helpers.machine import CPU
from helpers.recipes import preflight

SMALL = recipes.gpt3_345m().scaled_to("cpu").with_(vocab_size=4096, tokenizer="bpe-512")
BIG, LLAMA = recipes.gpt3_345m(), recipes.llama3_8b()
BF16 = LLAMA.with_(fp8_format=None, moments_in_bf16=False)
MOE = {"num_experts": 4, "tensor_parallel": 2}
WRONG = [  # recipe, changes that make it wrong, machine
    (SMALL, {"num_attention_heads": 7}, CPU),
    (SMALL, {"num_attention_heads": 7, "tensor_parallel": 2}, CPU),
    (SMALL, {"hidden_size": 250}, CPU),
    (SMALL, {"num_query_groups": 3}, CPU),
    (SMALL, {"tensor_parallel": 3}, CPU),
    (SMALL, {"tensor_parallel": 5, "num_attention_heads": 5, "hidden_size": 320}, CPU),
    (SMALL, {"num_attention_heads": 12, "hidden_size": 240, "num_query_groups": 4, "tensor_parallel": 3}, CPU),
    (SMALL, {"vocab_size": 4097, "tensor_parallel": 2}, CPU),
    (SMALL, {"ffn_hidden_size": 1001, "tensor_parallel": 2}, CPU),
    (SMALL, {"pipeline_parallel": 3}, CPU),
    (SMALL, {"context_parallel": 2, "sequence_length": 130}, CPU),
    (SMALL, {"tensor_parallel": 2, "sequence_parallel": True, "sequence_length": 129}, CPU),
    (SMALL, {"sequence_parallel": True}, CPU),
    (SMALL, {"max_positions": 64}, CPU),
    (SMALL, {"rope_scaling_factor": 2.0}, CPU),
    (SMALL, {"processes": 3, "tensor_parallel": 2}, CPU),
    (SMALL, {"processes": 1, "tensor_parallel": 2}, CPU),
    (SMALL, {"processes": 3}, CPU),
    (SMALL, {"processes": 3, "micro_batch_size": 2}, CPU),
    (SMALL, {"micro_batch_size": 5}, CPU),
    (SMALL, {"micro_batch_size": 16}, CPU),
    (SMALL, {"num_layers": 8, "pipeline_parallel": 2, "virtual_pipeline_chunks": 2, "global_batch_size": 3}, CPU),
    (SMALL, {"num_layers": 8, "pipeline_parallel": 2, "virtual_pipeline_chunks": 2, "global_batch_size": 12}, CPU),
    (SMALL, {"lr_warmup_iters": 200}, CPU),
    (SMALL, {"lr_warmup_iters": 1, "train_iters": 1}, CPU),
    (SMALL, {"min_lr": 1.0}, CPU),
    (SMALL, {"expert_parallel": 2}, CPU),
    (SMALL, {"expert_parallel": 2, "moe_router_topk": 4}, CPU),
    (SMALL, {"expert_parallel": 2, "num_experts": 3}, CPU),
    (SMALL, {"num_experts": 4, "moe_router_topk": 8}, CPU),
    (SMALL, {"num_experts": 1}, CPU),
    (SMALL, {"num_experts": 4, "moe_router_topk": 1}, CPU),
    (SMALL, {"num_experts": 4, "expert_parallel": 4, "processes": 2}, CPU),
    (SMALL, MOE | {"expert_tensor_parallel": 1}, CPU),
    (SMALL, MOE | {"sequence_parallel": True}, CPU),
    (SMALL, {"vocab_size": 100}, CPU),
    (SMALL.with_(tokenizer="bpe-4096"), {"vocab_size": 100}, CPU),
    (SMALL, {"sequence_length": 100_000}, CPU),
    (SMALL, {"split": "949,50,1"}, CPU),
    (SMALL, {"split": "1,0,0"}, CPU),
    (SMALL, {"split": "0,1,0"}, CPU),
    (SMALL, {"split": "a,b"}, CPU),
    (SMALL, {"train_iters": 0, "lr_warmup_iters": 0}, CPU),
    (SMALL, {"train_iters": 10**9, "global_batch_size": 10**5}, CPU),
    (SMALL, {"seed": 2**40}, CPU),
    (SMALL, {"eval_interval": None}, CPU),
    (SMALL, {"fp8_format": "hybrid"}, CPU),
    (SMALL, {"extra_flags": "--bf16"}, CPU),
    (SMALL, {"wandb_project": "a/b"}, CPU),
    (SMALL, {"without": ("x",)}, CPU),
    (SMALL, {"hidden_size": 8192, "num_layers": 100}, CPU),
    (BIG, {"fp8_format": "hybrid"}, ONE_2080),
    (BIG, {"fp8_format": "hybrid", "fp8_recipe": "mxfp8"}, ONE_H100),
    (BIG, {"fp8_format": "hybrid", "hidden_size": 1000, "num_attention_heads": 10}, ONE_H100),
    (BIG, {"fp8_format": "hybrid", "kv_channels": 50, "num_attention_heads": 10, "hidden_size": 640}, ONE_H100),
    (BIG, {"micro_batch_size": 512, "global_batch_size": 512}, ONE_H100),
    (BIG, {"tensor_parallel": 8}, ONE_H100),
    (BIG, {"processes": 12, "tensor_parallel": 4, "global_batch_size": 96}, EIGHT_H200),
    (BIG, {"processes": 3}, EIGHT_H200),
    (BIG, {"overlap_tensor_parallel": True}, EIGHT_H200),
    (BF16, {}, ONE_H200),
    (BF16, {}, EIGHT_H200),
    (LLAMA, {}, ONE_H100),
]  # fmt: skip
PAIR = re.compile(r"(\w+)=('[^']*'|\"[^\"]*\"|\([^)]*\)|[^\s,;]+)")


def alternatives(change: str) -> list[dict]:
    """The changes that a sentence proposes: "a=1, b=2, or c=3 or more" are two."""
    said = re.sub(r"\(saves[^)]*\)|MEGATRON_CPU=1", "", change).removesuffix(".")
    found = []
    for one in re.split(r"; or |, or | or (?=\w+=)", said):
        pairs = {} if "corpus.prepare" in one else dict(PAIR.findall(one))
        found.append({name: ast.literal_eval(value.rstrip(".")) for name, value in pairs.items()})
    return [pairs for pairs in found if pairs]


@pytest.mark.parametrize(("recipe", "wrong", "machine"), WRONG, ids=lambda value: str(value)[:60])
def test_each_proposal_works(recipe, wrong, machine, small_corpus):
    data = small_corpus if recipe.model.vocab_size <= 4096 else None
    wrong = recipe.with_(**wrong)
    problems = preflight.check(wrong, data, machine)
    assert problems
    for problem in problems:
        for pairs in alternatives(problem.change):
            left = preflight.check(wrong.with_(**pairs), data, machine)
            assert problem.asked not in [one.asked for one in left], f"{pairs} does not help: {problem}"
            new = {one.asked for one in left if one.severity == "error"} - {one.asked for one in problems}
            assert not new, f"{pairs} against {problem} brings {left}"


def test_most_say_what_to_change_in_code(small_corpus):
    said = [
        alternatives(problem.change)
        for recipe, wrong, machine in WRONG
        for problem in preflight.check(recipe.with_(**wrong), small_corpus if machine is CPU else None, machine)
    ]
    assert sum(map(bool, said)) > 0.8 * len(said)

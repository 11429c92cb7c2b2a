import subprocess
import sys
from dataclasses import asdict, replace

import pytest
from ask_megatron import ask_megatron, described, placed
from machines import H200, TWO_H200

from helpers import recipes, runs
from helpers.machine import CPU, GPU, PROJECT, Machine
from helpers.recipes import Layout, accounting
from helpers.recipes.accounting import megatron_estimate
from helpers.recipes.settings import Model, Speed
from helpers.show import numbers

GPT = Model(4, 64, 4, 32, 512, dropout=0.0)
LLAMA = Model(
    4,
    64,
    8,
    32,
    512,
    ffn_hidden_size=192,
    num_query_groups=4,
    normalization="RMSNorm",
    activation="swiglu",
    position_embedding="rope",
    tied_embeddings=False,
    linear_bias=False,
    dropout=0.0,
)
MOE = Model(4, 64, 4, 32, 512, num_experts=4, dropout=0.0)
MOE_LLAMA = Model(**asdict(LLAMA) | {"num_experts": 4})
WIDE_HEADS = Model(**asdict(LLAMA) | {"kv_channels": 12, "qkv_bias": True})
LONG_GPT = Model(**asdict(GPT) | {"max_positions": 64})
PLAIN_LLAMA = recipes.llama3_8b().with_(
    speed=Speed(), distributed_optimizer=False, fp8_param_gather=False, grad_reduce_in_bf16=False, moments_in_bf16=False
)
FULL = [recipe() for recipe in (recipes.gpt3_345m, recipes.gpt3_857m, recipes.llama3_8b, recipes.upstream_345m_label)]
WHOLE = [recipe.model for recipe in FULL] + [GPT, LLAMA, MOE, MOE_LLAMA, WIDE_HEADS, LONG_GPT]
SPLIT = [
    (WIDE_HEADS, Layout(tensor_parallel=2, pipeline_parallel=2)),
    (GPT, Layout(tensor_parallel=2)),
    (GPT, Layout(pipeline_parallel=2)),
    (GPT, Layout(pipeline_parallel=4)),
    (replace(GPT, num_layers=6), Layout(pipeline_parallel=4, account_for_embedding=True, account_for_loss=True)),
    (replace(GPT, num_layers=7), Layout(pipeline_parallel=2, account_for_loss=True)),
    (replace(GPT, num_layers=5), Layout(pipeline_parallel=3, account_for_embedding=True)),
    (replace(GPT, num_layers=5), Layout(pipeline_parallel=2, pipeline_layout="Et*3|ttL")),
    (replace(LLAMA, num_layers=7), Layout(pipeline_parallel=4, pipeline_layout="Et|(ttt|)*2L")),
    (replace(LLAMA, num_layers=10), Layout(pipeline_parallel=3, account_for_embedding=True, account_for_loss=True)),
    (LLAMA, Layout(tensor_parallel=2, pipeline_parallel=2, context_parallel=2)),
    (FULL[2].model, Layout(tensor_parallel=4, pipeline_parallel=2, sequence_parallel=True)),
    (MOE, Layout(expert_parallel=2)),
    (MOE, Layout(processes=2, tensor_parallel=2, expert_parallel=2, expert_tensor_parallel=1, sequence_parallel=True)),
    (MOE_LLAMA, Layout(tensor_parallel=2, expert_parallel=2, pipeline_parallel=2, sequence_parallel=True)),
]
KEPT = [  # model, micro-batch, dtype, recompute
    (GPT, 2, "fp32", None),
    (GPT, 4, "bf16", None),
    (Model(**asdict(GPT) | {"dropout": 0.1}), 2, "fp32", None),
    (Model(**asdict(GPT) | {"dropout": 0.1}), 2, "bf16", None),
    (LLAMA, 2, "fp32", None),
    (LLAMA, 3, "bf16", None),
    (recipes.gpt3_345m().scaled_to("cpu").model, 1, "fp32", None),
]


@pytest.fixture(scope="module")
def megatron():
    """Megatron's answers to all questions of this file, from one process."""
    one = placed(Layout())
    questions = {}
    for i, model in enumerate(WHOLE):
        questions["whole", i] = {"what": "parameters", "model": described(model), "layout": one, "rank": 0}
    for i, (model, layout) in enumerate(SPLIT):
        for stage in range(layout.pipeline_parallel):
            rank = stage * layout.world_size // layout.pipeline_parallel
            question = {"what": "parameters", "model": described(model), "layout": placed(layout), "rank": rank}
            questions["split", i, stage] = question
    for i, recipe in enumerate([*FULL, recipes.gpt3_345m().with_(num_experts=8)]):
        arguments = vars(megatron_estimate.megatron_arguments(recipe))
        questions["flops", i] = {"what": "flops", "arguments": arguments, "batch_size": 3}
    for i, (model, micro_batch, dtype, recompute) in enumerate(KEPT):
        questions["kept", i] = {
            "what": "saved_bytes",
            "model": described(model),
            "layout": one,
            "micro_batch_size": micro_batch,
            "dtype": dtype,
            "recompute": recompute,
        }
    return dict(zip(questions, ask_megatron(list(questions.values())), strict=True))


def test_every_parameter_of_a_gpt_model_is_counted(megatron):
    for i, model in enumerate(WHOLE):
        assert sum(accounting.parameter_counts(model).values()) == megatron["whole", i], model
    assert megatron["whole", 0] == 354_871_296
    assert megatron["whole", 2] == 8_030_261_248
    assert megatron["whole", 1] == pytest.approx(857e6, rel=0.02)


def test_every_parameter_of_a_rank_is_counted(megatron):
    for i, (model, layout) in enumerate(SPLIT):
        for stage in range(layout.pipeline_parallel):
            counted = sum(accounting.rank_parameters(model, layout, stage))
            assert counted == megatron["split", i, stage], (layout.name, stage)


def test_flops_are_megatrons(megatron):
    for i, recipe in enumerate([*FULL, recipes.gpt3_345m().with_(num_experts=8)]):
        batch_tokens = 3 * recipe.model.sequence_length
        assert accounting.flops_per_token(recipe.model) * batch_tokens == megatron["flops", i], recipe.name


def test_activations_are_those_a_real_forward_pass_keeps(megatron):
    for i, (model, micro_batch, dtype, recompute) in enumerate(KEPT):
        recipe = recipes.gpt3_345m().with_(
            model=model, dtype=dtype, micro_batch_size=micro_batch, global_batch_size=micro_batch, recompute=recompute
        )
        counted = accounting.memory(recipe, CPU)["activations"]
        # The estimate's moment of highest use also holds the 16-bit logits, which the backward pass does not need.
        logits = 2 * model.vocab_size * micro_batch * model.sequence_length if dtype == "bf16" else 0
        assert counted - logits == pytest.approx(megatron["kept", i], rel=0.03), (i, model, dtype)


def test_the_table_shows_its_own_arithmetic():
    for model in WHOLE:
        table = accounting.parameters(model)
        assert table["share"].sum() == pytest.approx(1)
        for part, row in table.iterrows():
            by_hand = eval(row["formula"].replace(",", "").replace("·", "*"))
            assert by_hand == row["parameters"], (part, row["formula"])
    assert list(accounting.parameters(MOE).index) == ["embedding", "position", "attention", "experts", "norms"]
    assert list(accounting.parameters(LLAMA).index) == ["embedding", "attention", "MLP", "norms", "output"]


def test_flops_by_hand():
    """345M at sequence 1024: 6 a weight of a matrix, and 6·s·h a layer for the scores."""
    model = recipes.gpt3_345m().model
    weights = 24 * 12 * 1024**2 + 50304 * 1024
    assert accounting.flops_per_token(model) == 6 * weights + 6 * 24 * 1024 * 1024


def test_mfu_by_hand():
    model = recipes.gpt3_345m().model
    assert accounting.mfu(156_672, model, H200) == pytest.approx(156_672 * 2.272e9 / 989e12, rel=1e-3)
    assert accounting.mfu(156_672, model, GPU("Some New GPU", 2**34, (12, 0))) is None
    assert accounting.mfu(1000, model, None) is None


def states(recipe, machine=TWO_H200) -> list[float]:
    """Bytes a parameter of weights, gradients and optimizer state."""
    parts = accounting.memory(recipe, machine)
    count = sum(accounting.rank_parameters(recipe.model, recipe.layout))
    return [parts[name] / count for name in ("weights", "gradients", "optimizer")]


def test_bytes_per_parameter():
    recipe = recipes.gpt3_345m()
    assert states(recipe) == [2, 4, 12]
    assert states(recipe.with_(dtype="fp32")) == [4, 4, 8]
    assert states(recipe.with_(dtype="fp16")) == [2, 2, 12]
    assert states(recipe.with_(processes=4, distributed_optimizer=True)) == [2, 4, 3]
    assert states(recipe.with_(processes=4, context_parallel=2, distributed_optimizer=True)) == [2, 4, 3]
    assert states(recipe.with_(processes=4, distributed_optimizer=True, megatron_fsdp=True)) == [0.5, 0.5, 3]
    assert states(recipe.with_(processes=4, distributed_optimizer=True, megatron_fsdp=True, dtype="fp32")) == [1, 1, 3]
    assert states(recipe.with_(processes=4, context_parallel=2)) == [2, 4, 12]
    assert states(recipe.with_(grad_reduce_in_bf16=True)) == [2, 2, 12]


def test_fsdp_has_whole_what_it_gathers_ahead():
    """Both embeddings, the layer that runs, three on their way (500 million parameters), and the output's gradient."""
    whole = PLAIN_LLAMA.with_(fp8_format=None, processes=2, distributed_optimizer=True, global_batch_size=4)
    fsdp = whole.with_(megatron_fsdp=True)
    layer, embedding = 218_112_000, 128_256 * 4096
    more = accounting.memory(fsdp, TWO_H200)["activations"] - accounting.memory(whole, TWO_H200)["activations"]
    assert more == pytest.approx(2 * (2 * embedding + 4 * layer + embedding), rel=1e-4)
    assert states(fsdp.with_(moments_in_bf16=True)) == [1, 1, 4]  # a main weight in fp32, moments in bf16
    eight = accounting.memory(fsdp.with_(fp8_format="hybrid", fp8_param_gather=True), TWO_H200)
    assert eight["weights"] == pytest.approx((32 * layer + 2 * 2 * embedding) / 2, rel=1e-3)
    small = recipes.gpt3_345m().with_(processes=2, distributed_optimizer=True)
    gathered = (
        accounting.memory(small.with_(megatron_fsdp=True))["activations"] - accounting.memory(small)["activations"]
    )
    count = sum(accounting.parameter_counts(small.model).values())
    assert gathered > 2 * count  # a model below 500 million parameters is gathered whole


def test_fp8_keeps_the_16_bit_weights():
    bf16 = PLAIN_LLAMA.with_(fp8_format=None)
    fp8, gathered = bf16.with_(fp8_format="hybrid"), bf16.with_(fp8_format="hybrid", fp8_param_gather=True)
    matrices = 8_030_261_248 - 2 * 128256 * 4096 - 65 * 4096
    weights = [accounting.memory(recipe)["weights"] for recipe in (bf16, fp8, gathered)]
    assert weights[1] - weights[0] == 2 * matrices
    assert weights[2] == weights[0]
    assert accounting.memory(fp8)["activations"] < accounting.memory(bf16)["activations"]


def test_each_way_of_saving_memory_saves_it():
    recipe = PLAIN_LLAMA.with_(fp8_format=None, processes=2)

    def total(**changes):
        return sum(accounting.memory(recipe.with_(**changes)).values())

    def kept(**changes):
        return accounting.memory(recipe.with_(**changes))["activations"]

    assert total(tensor_parallel=2) < 0.6 * total()
    assert total(distributed_optimizer=True) < total()
    assert kept(context_parallel=2) == pytest.approx(kept() / 2)
    assert kept(tensor_parallel=2, sequence_parallel=True) == pytest.approx(kept() / 2)
    assert kept(tensor_parallel=2) > kept(tensor_parallel=2, sequence_parallel=True)
    assert kept(recompute="full") < 0.25 * kept()
    on_cpu = recipe.with_(recompute="selective")
    assert accounting.memory(on_cpu, CPU)["activations"] < accounting.memory(recipe, CPU)["activations"]


def test_the_first_stage_of_a_pipeline_holds_the_most_micro_batches():
    recipe = recipes.gpt3_345m().with_(pipeline_parallel=4, micro_batch_size=1, global_batch_size=8)
    stages = [accounting.memory(recipe, pipeline_rank=rank) for rank in range(4)]
    layers = [stage["activations"] for stage in stages[:3]]
    assert layers == sorted(layers, reverse=True)
    assert layers[0] / layers[2] == pytest.approx(2)  # four micro-batches in flight against two
    assert accounting.memory(recipe) in stages
    chunked = accounting.memory(recipe.with_(virtual_pipeline_chunks=2), pipeline_rank=0)
    assert chunked["activations"] == pytest.approx(layers[0] * 11 / 8)


@pytest.mark.parametrize("run", runs.recorded("h200") + runs.recorded("h200/twins"), ids=lambda run: run.path.stem)
def test_the_estimate_is_near_what_an_h200_measured(run):
    """Peaks of torch's allocator; it does not see what `other` sets aside."""
    machine = Machine.from_json(run.environment["machine"])
    counted = accounting.memory(run.recipe, machine)
    assert (sum(counted.values()) - counted["other"]) / 1e9 == pytest.approx(run.peak_memory_bytes / 1e9, rel=0.08)


@pytest.mark.parametrize(
    ("recipe", "gigabytes"),
    [(recipes.gpt3_345m(), 4.97), (recipes.llama3_8b(), 112.4), (recipes.gpt3_345m().with_(dtype="fp32"), 4.26)],
)
def test_checkpoint_size(recipe, gigabytes):
    assert accounting.checkpoint_bytes(recipe) / 1e9 == pytest.approx(gigabytes, rel=0.01)


def test_beside_megatrons_own_estimate():
    """Where Megatron's estimate applies (bf16, no context parallelism) the states agree; it leaves out the biases."""
    for recipe in (
        recipes.gpt3_345m(),
        recipes.gpt3_345m().with_(tensor_parallel=2, processes=4, distributed_optimizer=True),
        PLAIN_LLAMA.with_(fp8_format=None, tensor_parallel=4, sequence_parallel=True),
    ):
        ours, theirs = accounting.memory(recipe), accounting.megatron_memory(recipe)
        states = ours["weights"] + ours["gradients"] + ours["optimizer"]
        assert states == pytest.approx(theirs["weights and optimizer"], rel=0.01), recipe.layout.name
        assert 0.3 < ours["activations"] / theirs["activations"] < 3


def test_a_plan_and_megatrons_own_estimate_need_neither_torch_nor_megatron():
    asked = (
        "import sys; from helpers import recipes; from helpers.recipes import accounting; recipe = recipes.gpt3_345m();"
    )
    asked += "print(sum(accounting.memory(recipe).values()) > 0, accounting.megatron_memory(recipe)['activations'] > 0,"
    asked += "'torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, cwd=PROJECT)
    assert told.stdout.split() == ["True", "True", "False"], told.stderr


def test_readable():
    assert numbers.decimal_bytes(4.968e9) == "5.0 GB"
    assert numbers.decimal_bytes(112.4e9) == "113 GB"
    assert numbers.decimal_bytes(310e6) == "310 MB"

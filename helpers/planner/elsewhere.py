"""What others measured, as recipes: to hold predictions against runs that are not ours. Nothing is fitted to them."""

from dataclasses import dataclass, replace

from helpers.machine import Machine, described
from helpers.recipes.layout import Layout
from helpers.recipes.models import llama3_8b, llama3_70b, llama3_405b
from helpers.recipes.recipe import Recipe
from helpers.recipes.settings import Batch, Model, Precision, Speed
from helpers.runs.published import LLAMA3_8B, STRONG_STEP_MS, TUTORIALS, WEAK_SIZES, WEAK_STEP_MS

HGX = described("8 × H100 80GB")


@dataclass(frozen=True)
class Row:
    """One measured row: `table` and `name` as its author calls them, step in ms (None: it ran out of memory), GB of the
    whole GPU (None: not given)."""

    table: str
    name: str
    recipe: Recipe
    machine: Machine
    milliseconds: float | None
    gigabytes: float | None
    source: str


def rows() -> tuple[Row, ...]:
    """Tables 101, 202, 203, 280, 301, 401 and 502 of the tutorials, then NVIDIA's published Llama runs.

    The tutorials ran Megatron core_r0.14, launched kernel by kernel, the loss unfused, on another host; their memory is
    the whole GPU's: tensors, CUDA context and NCCL's buffers.
    """
    return (*_data(), *_tensor(), *_large(), *_context(), *_pipeline(), *_experts(), *nvidia())


def _gpt(layers: int, hidden: int, heads: int, sequence: int = 1024, tensor: int = 1) -> Model:
    """GPT-2 with the vocabulary that Megatron pads to a multiple of 128 × TP rows."""
    step = 128 * tensor
    return Model(layers, hidden, heads, sequence, vocab_size=-(-50257 // step) * step)


def _row(table: str, name: str, model: Model, layout: Layout, batch: Batch, ms, gb, flags=()) -> Row:
    recipe = Recipe(f"{table} {name}", model, layout, Precision(), Speed(), batch, extra_flags=tuple(flags), stock=True)
    if layout.distributed_optimizer:
        recipe = recipe.with_(overlap_communication=True)
    return Row(table, name, recipe, HGX, ms, gb, TUTORIALS)


def _data():
    """GPT2-XL: global batch · data-parallel ranks."""
    plain = ((1, 1, 220, 33.3), (4, 4, 250, 33.8), (15, 1, 393, 78.5), (60, 4, 421, 79.0), (120, 8, 421, 79.2))
    for samples, ranks, ms, gb in plain:
        batch = Batch(samples // ranks, samples)
        yield _row("101", f"GBS {samples}, DP{ranks}", _gpt(48, 1600, 25), Layout(ranks), batch, ms, gb)
    yield _row("101", "GBS 60, 1 GPU, 4 × 15", _gpt(48, 1600, 25), Layout(1), Batch(15, 60), 1470, 78.5)
    shared = (
        (60, 4, 415, 64.8),
        (16, 1, None, None),
        (32, 2, 423, 74.9),
        (64, 4, 419, 67.5),
        (128, 8, 432, 64.5),
        (168, 8, 540, 80.3),
    )
    for samples, ranks, ms, gb in shared:
        layout = Layout(ranks, distributed_optimizer=True)
        batch = Batch(samples // ranks, samples)
        yield _row("101", f"GBS {samples}, DP{ranks}+DistOpt", _gpt(48, 1600, 25), layout, batch, ms, gb)
    layout = Layout(8, distributed_optimizer=True)
    yield _row("101", "GBS 128, DP8+DistOpt, 62 layers", _gpt(62, 1600, 25), layout, Batch(16, 128), 542, 79.8)


GIGABYTES = {  # tables 202 and 203, by global batch and TP; their steps are `runs.published`'s
    "202": {8: (43.5, 46.8, 42.6, 46.4), 20: (78.1, 77.7, 72.1, 80.6)},
    "203": {8: (43.5, 27.6, 17.2, 13.3), 20: (78.1, 46.5, 30.9, 23.3)},
}


def _tensor():
    """Weak scaling (the model grows with TP) and strong scaling of the 1.2B, without sequence parallelism."""
    for table, steps in (("202", WEAK_STEP_MS), ("203", STRONG_STEP_MS)):
        for samples, sizes in GIGABYTES[table].items():
            for (tensor, ms), gb in zip(steps[samples].items(), sizes, strict=True):
                model = _gpt(*WEAK_SIZES[tensor if table == "202" else 1], tensor=tensor)
                layout = Layout(tensor_parallel=tensor)
                yield _row(table, f"GBS {samples}, TP{tensor}", model, layout, Batch(samples, samples), ms, gb)


def _large():
    """22B, TP8, sequence 2048: activations whole, split along the sequence, recomputed."""
    model, batch = _gpt(48, 6144, 64, 2048, 8), Batch(4, 4)
    yield _row("280", "TP8", model, Layout(tensor_parallel=8), batch, None, None)
    yield _row("280", "TP8+SP", model, Layout(tensor_parallel=8, sequence_parallel=True), batch, 427, 62.0)
    full = replace(batch, recompute="full")
    yield _row("280", "TP8, recomputed", model, Layout(tensor_parallel=8), full, 570, 57.6)


def _context():
    """1.2B, global batch 8, by length of the sequence and by how keys and values travel."""
    one = _gpt(40, 1536, 16, 4096)
    yield _row("301", "4K, CP1, recomputed", one, Layout(), Batch(8, 8, "full"), 995, 38)
    yield _row("301", "4K, CP1", one, Layout(), Batch(8, 8), None, None)
    for ranks, ms, gb, way in (
        (2, 475, 69, "p2p"),
        (4, 360, 49, "p2p"),
        (8, 450, 39, "p2p"),
        (8, 342, 36, "all_gather"),
        (8, 332, 38, "a2a"),
    ):
        flags = () if way == "p2p" else ("--cp-comm-type", way)
        yield _row("301", f"4K, CP{ranks} {way}", one, Layout(context_parallel=ranks), Batch(8, 8), ms, gb, flags)
    for way, ms, gb in (("p2p", 1300, 80), ("all_gather", 1440, 68), ("a2a", 1250, 71)):
        flags = () if way == "p2p" else ("--cp-comm-type", way)
        long = _gpt(40, 1536, 16, 16384)
        yield _row("301", f"16K, CP8 {way}", long, Layout(context_parallel=8), Batch(8, 8), ms, gb, flags)


def _pipeline():
    """8.3B, global batch 32: m micro-batches through PP8, then chunks, then TP and both.

    The table's "VPP" is what its scripts hand to `--num-layers-per-virtual-pipeline-stage`: layers of a chunk, not
    chunks. With all layers of a stage in one chunk nothing is interleaved (arguments.py:938).
    """
    for count, ms, gb in ((1, 2920, 57), (2, 1730, 56), (4, 1130, 57), (8, 875, 55), (16, 1160, 40), (32, 2050, 33)):
        layout = Layout(pipeline_parallel=8)
        yield _row("401", f"PP8, m={count}", _gpt(72, 3072, 32), layout, Batch(32 // count, 32), ms, gb)
    for layers, ms, gb in ((3, 715, 57), (9, 880, 55)):
        layout = Layout(pipeline_parallel=8, virtual_pipeline_chunks=9 // layers)
        yield _row("401", f"PP8, m=8, {layers} layers a chunk", _gpt(72, 3072, 32), layout, Batch(4, 32), ms, gb)
    layout = Layout(tensor_parallel=8, sequence_parallel=True)
    yield _row("401", "TP8+SP", _gpt(72, 3072, 32, tensor=8), layout, Batch(32, 32), 757, 53)
    shared = {"tensor_parallel": 2, "pipeline_parallel": 4, "sequence_parallel": True}
    both = _gpt(72, 3072, 32, tensor=2)
    yield _row("401", "TP2+SP×PP4, m=4", both, Layout(**shared), Batch(8, 32), 887, None)
    for layers, ms in ((2, 745), (3, 680), (6, 665), (9, 710), (18, 895)):
        layout = Layout(**shared, virtual_pipeline_chunks=18 // layers)
        yield _row("401", f"TP2+SP×PP4, m=4, {layers} layers a chunk", both, layout, Batch(8, 32), ms, None)


def _experts():
    """16 layers × 1024 with 8 of E experts a token, sequence 4096, global batch 32 on 8 GPUs, tokens spread evenly."""
    shared = {"distributed_optimizer": True}
    shares = (
        (64, {}, 373, 70),
        (64, shared, 337, 48),
        (64, {"expert_parallel": 8, **shared}, 256, 43),
        (128, shared, 527, 64),
        (128, {"expert_parallel": 8, **shared}, 284, 49),
        (256, shared, None, None),
        (256, {"expert_parallel": 8, **shared}, 314, 57),
        (256, {"expert_parallel": 4, "expert_tensor_parallel": 2, **shared}, 473, 62),
        (256, {"expert_parallel": 2, "expert_tensor_parallel": 4, **shared}, 855, 74),
    )
    for experts, split, ms, gb in shares:
        model = replace(
            _gpt(16, 1024, 16, 4096),
            ffn_hidden_size=1024,
            num_experts=experts,
            moe_router_topk=8,
            linear_bias=False,
        )
        layout = Layout(8, **split)
        several = split.get("expert_tensor_parallel")
        name = f"E{experts}, {layout.name}" + (f", {several} ranks an expert" if several else "")
        yield _row("502", name, model, layout, Batch(4, 32), ms, gb, ("--moe-grouped-gemm",))


NVIDIA_SOURCE = "Megatron-Bridge docs/performance-summary-archive.md"


def nvidia() -> tuple[Row, ...]:
    """NVIDIA's Llama runs on DGX H100, with the layouts that their page gives."""
    eight, seventy, largest = (
        one().with_(cuda_graph=False, without=("split",)) for one in (llama3_8b, llama3_70b, llama3_405b)
    )
    node = {"distributed_optimizer": True, "sequence_parallel": True}
    bf16 = {"fp8_format": None, "fp8_param_gather": False}
    context = {"context_parallel": 2}
    pipeline = {"tensor_parallel": 4, "pipeline_parallel": 8, "virtual_pipeline_chunks": 5, **node}
    ends = {"account_for_embedding": True, "account_for_loss": True}  # 126 layers into 64 pieces
    all_four = {**pipeline, "tensor_parallel": 8, "virtual_pipeline_chunks": 8, **context, **ends}
    in_bf16, in_fp8, _ = LLAMA3_8B
    bridge = f"{NVIDIA_SOURCE}, 26.04.01"
    shares = (
        ("8B bf16, CP2×DP4", eight.with_(**bf16), context, 8, 128, in_bf16.tokens_per_second_per_gpu, in_bf16.source),
        ("8B FP8, CP2×DP4", eight, context, 8, 128, in_fp8.tokens_per_second_per_gpu, in_fp8.source),
        ("70B FP8, TP4×PP8×VPP5×DP2", seventy, pipeline, 64, 256, 1664, bridge),
        ("405B FP8, TP8×PP8×CP2×VPP8×DP8", largest, all_four, 1024, 1536, 328, bridge),
    )
    made = []
    for name, recipe, split, gpus, samples, speed, source in shares:
        layout = Layout(gpus, **{"distributed_optimizer": True, **split})
        run = replace(recipe, layout=layout, batch=Batch(1, samples))
        if layout.tensor_parallel > 1:
            run = run.with_(overlap_tensor_parallel=True)
        machine = HGX if gpus == 8 else described("8 × H100 80GB", nodes=gpus // 8, between_nodes_gbps=400)
        ms = 1e3 * samples * run.model.sequence_length / speed / gpus
        made.append(Row("NVIDIA", name, run, machine, ms, None, source))
    return tuple(made)

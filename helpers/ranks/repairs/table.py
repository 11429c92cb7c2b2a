"""Every change that we make to Megatron, Transformer Engine and torch at run time: one table, one `apply()`.

Rows are either *needed to run* (they stay) or a *change* (each can be left out, all of them with `stock`). The command
of a recipe names the changes that act in it: MEGATRON_TOUR_CHANGES. Without that variable none is made, so that the
entry script by itself is Megatron as NVIDIA wrote it.

They are made in this order: `gradient_fusion` before any that imports Megatron, which looks for the kernel at once, and
`gelu` before `placement`, whose import binds the function by name. No change to Megatron, and so not here: that a rank
ends with its torchrun (`lifetime`), that it collects no garbage while it starts, and the variables that each command
names with their reasons.
"""

import os
from functools import cache

from helpers.ranks.repairs.repair import AS_SEEN, CHANGE, NEEDED, Repair, installed

VARIABLE = "MEGATRON_TOUR_CHANGES"
MEGATRON = {"megatron-core": "0.19.2"}
BOTH = MEGATRON | {"transformer-engine": "2.20.2"}
ENGINE = "transformer_engine"
OPTIMIZER = "megatron.core.optimizer.distrib_optimizer:DistributedOptimizer"
MODEL = "megatron.core.models.common.language_module.language_module:LanguageModule"
TORCH_FSDP = "megatron.core.distributed.torch_fully_sharded_data_parallel:TorchFullyShardedDataParallel"
LINEAR = "megatron.core.tensor_parallel.layers:LinearWithGradAccumulationAndAsyncCommunication"

REPAIRS = (
    Repair(
        "cpu",
        NEEDED,
        "",
        {
            "megatron.core.transformer.torch_norm:WrappedTorchNorm.__new__": "0b47766ef14b",
            "megatron.core.transformer.dot_product_attention:DotProductAttention.__init__": "47acef8f68c6",
            "megatron.core.transformer.dot_product_attention:DotProductAttention.forward": "a0bbd121e290",
            "megatron.training.initialize:_warmup_jit_function": "6c69d9d05759",
            "megatron.core.tensor_parallel.random:CheckpointWithoutOutput.__init__": "5726f63f0566",
            "megatron.core.tensor_parallel.random:_get_share_storage": "14fe8bafdf5a",
            f"{TORCH_FSDP}.__init__": "5a76f167a446",
            "megatron.training.activation_logging:_discover_te_types": "086bc9e11ccd",
            "megatron.training.dgrad_logging:_get_linear_types": "c6339fd253ea",
            "megatron.training.argument_utils:ArgumentGroupFactory._get_field_docstrings": "73eec38356e5",
            "megatron.core.dist_checkpointing.strategies.filesystem_async:get_write_results_queue": "5528981e75e7",
        },
        MEGATRON,
        "Megatron speaks to torch.cuda by name, and refuses some layouts without it. On a CPU `ranks/cpu/` answers for "
        "torch.cuda, tensor factories, torch.compile and all_to_all_single; Transformer Engine and apex are hidden.",
        "context parallelism gathers keys and values instead of sending them round",
        "not to be compared with a GPU",
    ),
    Repair(
        "gradient_fusion",
        CHANGE,
        "gradient_fusion",
        {
            f"{LINEAR}.backward": "a9a087e8febf",
            "transformer_engine.pytorch.cpp_extensions.gemm:general_gemm": "ecb578a542ab",
        },
        BOTH,
        "Gradient accumulation fusion wants apex's GEMM, and pip has no apex. Transformer Engine has the same GEMM.",
        "weight gradients of the output layer and of Transformer Engine's linears are added up inside the GEMM, "
        "without a rounding to bf16 in between",
        "1.2 % of GPT3-345M at 32 samples (H200)",
        ("twins/gpt3_345m_graph", "twins/gpt3_345m_graph_without_gradient_fusion"),
        only_with=ENGINE,
    ),
    Repair(
        "compile_helpers",
        NEEDED,
        "compile_helpers",
        {"megatron.core.datasets.utils:compile_helpers": "02c160f0fa9c"},
        MEGATRON,
        "Megatron runs make at every start, and its wheel has no Makefile: rank 0 would end with exit code 1.",
        "none: the helpers are the wheel's own, compiled",
        "none",
    ),
    Repair(
        "adamw_resume",
        NEEDED,
        "adamw_resume",
        {
            f"{OPTIMIZER}.state_dict": "8881ca2f5638",
            f"{OPTIMIZER}.load_state_dict": "5c2af1e56e0b",
            f"{OPTIMIZER}._set_main_param_and_optimizer_states": "abb463384d3f",
        },
        MEGATRON,
        "Where AdamW is torch's own, a run of the distributed optimizer cannot load its state.",
        "none: a resumed run has the losses of the undisturbed one, to the last bit",
        "none; with a fused Adam (Transformer Engine, apex) it does nothing",
    ),
    Repair(
        "fsdp_checkpoint",
        NEEDED,
        "fsdp_checkpoint",
        {f"{OPTIMIZER}.sharded_param_state_fsdp_dtensor": "2141e813cecc"},
        MEGATRON,
        "Saving with Megatron's FSDP waits forever: a rank that holds nothing of a parameter does not list it.",
        "none: a resumed run has the losses of the undisturbed one",
        "none; without --use-megatron-fsdp it does nothing",
    ),
    Repair(
        "orderly_end",
        NEEDED,
        "",
        {"megatron.core.full_cuda_graph:FullCudaGraphWrapper": "daa208fd7c79"},
        MEGATRON,
        "NCCL waits forever where a process group ends before the recorded steps that hold its collectives: the entry "
        "script's last line (`lifetime.leave`) lets those go first.",
        "none: it acts after the last step",
        "none",
    ),
    Repair(
        "gelu",
        CHANGE,
        "gelu",
        {
            "megatron.core.fusions.fused_bias_gelu:bias_gelu": "0d81e27ba1b5",
            "megatron.core.fusions.fused_bias_gelu:bias_gelu_back": "843e366e27ba",
        },
        MEGATRON,
        "GELU with tanh keeps a GPU busy with arithmetic; as a sigmoid it only waits for memory.",
        "bf16 rounding of GELU: 0.0002 nats in 40 steps of GPT3-345M",
        "1.1 % of GPT3-345M at 32 samples (H200)",
        ("twins/gpt3_345m_graph", "twins/gpt3_345m_graph_without_gelu"),
    ),
    Repair(
        "placement",
        CHANGE,
        "placement",
        {"megatron.training.models.dist_utils:prepare_existing_model_chunks_for_distributed_training": "9fcfe7c1af32"},
        MEGATRON,
        "Megatron leaves a model that --use-cpu-initialization made in main memory, and stops at the first broadcast.",
        "none: it moves the weights",
        "none",
        upstream="Megatron-Bridge pull request 757",
    ),
    Repair(
        "split",
        CHANGE,
        "split",
        {
            "megatron.core.transformer.attention:SelfAttention.get_query_key_value_tensors": "3f4f30155881",
            "transformer_engine.pytorch.utils:SplitAlongDim": "afe4e44295c0",
        },
        BOTH,
        "Megatron looks for Transformer Engine's split where it no longer is, and copies the gradients of Q, K and V.",
        "none",
        "5.7 % of GPT3-345M at 32 samples (H200)",
        ("twins/gpt3_345m_graph", "twins/gpt3_345m_graph_without_split"),
        only_with=ENGINE,
    ),
    Repair(
        "cast",
        CHANGE,
        "cast",
        {"transformer_engine.pytorch.tensor.float8_tensor:Float8Quantizer.update_quantized": "8fb66926fa1b"},
        BOTH,
        "With --fp8-param-gather the quantizer writes a transposed copy of flat weights that nobody reads.",
        "none: the bytes that are read are the same",
        "10.9 % of Llama3-8B in FP8, four samples a GPU (two H200s)",
        ("twins/llama3_8b_tensorwise_dp2", "twins/llama3_8b_tensorwise_dp2_without_cast"),
        only_with=ENGINE,
    ),
    Repair(
        "loss_kernel",
        CHANGE,
        "loss_kernel",
        {
            "megatron.core.fusions.fused_cross_entropy:fused_vocab_parallel_cross_entropy": "cb1c6efa40f2",
            f"{MODEL}.compute_language_model_loss": "6f251864e32f",
            "transformer_engine.pytorch.cross_entropy:parallel_cross_entropy": "4bad468b73c2",
        },
        BOTH,
        "Transformer Engine's loss reads the logits once; Megatron refuses it for bugs that have since been fixed.",
        "bf16 rounding of the logits' gradient",
        "8.9 % of GPT3-345M at 32 samples, and 13 of its 51 GB (H200)",
        ("twins/gpt3_345m_graph", "twins/gpt3_345m_graph_without_loss_kernel"),
        "Megatron-LM pull request 7339; TransformerEngine pull requests 3193, 3273",
        only_with=ENGINE,
    ),
)
CHANGES = tuple(repair.name for repair in REPAIRS if repair.kind == CHANGE)


def asked() -> tuple[str, ...]:
    """The changes that the command asks for, by MEGATRON_TOUR_CHANGES."""
    return tuple(os.environ.get(VARIABLE, "").split())


def why_off(repair: Repair, on_cpu: bool, wanted: tuple[str, ...]) -> str | None:
    """Why a repair is not made in this process; None where it is, or where something else than `apply` makes it."""
    if repair.name == "cpu":
        return None if on_cpu else "not asked for"
    if repair.kind == CHANGE and (on_cpu or repair.name not in wanted):
        return "not asked for"
    if repair.only_with and installed(repair.only_with) is None:
        return f"{repair.only_with} is not installed"
    if repair.module and (standing := repair.standing()) != AS_SEEN:
        return f"what it replaces is {standing} in " + ", ".join(f"{p} {installed(p)}" for p in repair.seen)
    return None


@cache
def would_be_made(name: str) -> bool:
    """Whether a change that is asked for would be made with what is installed here; elsewhere it is taken to be.

    Answered once: a search asks thousands of times, and each answer reads sources.
    """
    repair = next(repair for repair in REPAIRS if repair.name == name)
    elsewhere = any(installed(package) is None for package in repair.seen)
    return elsewhere or why_off(repair, on_cpu=False, wanted=(repair.name,)) is None


def apply() -> None:
    """Make every repair that is needed or asked for. Call it before Megatron is imported; rank 0 says what was done.

    On a CPU `ranks/cpu/` is switched on first. A repair is made only where the source that it replaces is the one that
    it was written for, whatever the version is called.

    Raises:
        SystemExit: MEGATRON_TOUR_CHANGES names a change that there is not.
    """
    wanted = asked()
    if unknown := sorted(set(wanted) - set(CHANGES)):
        raise SystemExit(f"{VARIABLE} names {', '.join(unknown)}. There are: {', '.join(CHANGES)}.")
    on_cpu = os.environ.get("MEGATRON_CPU") == "1"
    if on_cpu:
        from helpers.ranks import start

        start.before_torch()
    import torch

    on_cpu = on_cpu or not torch.cuda.is_available()
    if on_cpu:
        from helpers.ranks.cpu import device

        device.switch_on()
    off = {repair.name: why_off(repair, on_cpu, wanted) for repair in REPAIRS}
    for repair in REPAIRS:
        if repair.module and off[repair.name] is None:
            repair.load().apply()
    if os.environ.get("RANK", "0") == "0":
        print(*said(on_cpu, off), sep="\n", flush=True)


def said(on_cpu: bool, off: dict[str, str | None]) -> list[str]:
    """The first lines of a log: which repairs run, and which do not, and why."""
    made = [row for row in REPAIRS if off[row.name] is None and (row.module or row.name == "cpu")]
    run = {kind: [row.name for row in made if row.kind == kind] for kind in (NEEDED, CHANGE)}
    lines = [f"Needed to run: {', '.join(run[NEEDED])}."]
    lines.append(f"Changes to Megatron: {', '.join(run[CHANGE]) or 'none, this is stock'}.")
    left = [f"{name} ({why})" for name, why in off.items() if why not in (None, "not asked for")]
    return lines + ([f"Left out: {'; '.join(left)}."] if left else [])

"""Asks Megatron itself: reads a list of questions as JSON on stdin, prints the answers as JSON on the last line.

One process for all of them, because importing Megatron takes seconds. Models are built on the meta device, so an 8B
model takes no memory, and inside a fake process group, so one process can be any rank of any layout.
"""

import contextlib
import io
import json
import os
import sys
import warnings
from types import SimpleNamespace

warnings.filterwarnings("ignore")
os.environ["MEGATRON_CPU"] = "1"

import torch  # noqa: E402

from helpers.ranks.cpu import device  # noqa: E402

device.switch_on()

from megatron.core import parallel_state  # noqa: E402
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec  # noqa: E402
from megatron.core.models.gpt.gpt_model import GPTModel  # noqa: E402
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed  # noqa: E402
from megatron.core.transformer.transformer_config import TransformerConfig  # noqa: E402
from megatron.training.arguments import parse_args, validate_args  # noqa: E402
from megatron.training.training import num_floating_point_operations  # noqa: E402
from torch.testing._internal.distributed.fake_pg import FakeStore  # noqa: E402


def build(model: dict, layout: dict, rank: int = 0, dtype=torch.float32, recompute=None) -> list[GPTModel]:
    m, lay = SimpleNamespace(**model), SimpleNamespace(**layout)
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=rank, world_size=lay.world_size)
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=lay.tensor_parallel,
        pipeline_model_parallel_size=lay.pipeline_parallel,
        context_parallel_size=lay.context_parallel,
        expert_model_parallel_size=lay.expert_parallel,
        expert_tensor_parallel_size=lay.expert_tensor_parallel,
        create_gloo_process_groups=False,
    )
    model_parallel_cuda_manual_seed(1)
    gated = m.activation == "swiglu"
    config = TransformerConfig(
        num_layers=m.num_layers,
        hidden_size=m.hidden_size,
        ffn_hidden_size=m.ffn_size,
        num_attention_heads=m.num_attention_heads,
        num_query_groups=m.query_groups,
        num_moe_experts=m.num_experts,
        moe_router_topk=m.moe_router_topk,
        add_bias_linear=m.linear_bias,
        add_qkv_bias=m.linear_bias or m.qkv_bias,
        kv_channels=m.kv_channels,
        gated_linear_unit=gated,
        activation_func=torch.nn.functional.silu if gated else torch.nn.functional.gelu,
        normalization=m.normalization,
        hidden_dropout=m.dropout,
        attention_dropout=m.dropout,
        tensor_model_parallel_size=lay.tensor_parallel,
        pipeline_model_parallel_size=lay.pipeline_parallel,
        account_for_embedding_in_pipeline_split=lay.account_for_embedding,
        account_for_loss_in_pipeline_split=lay.account_for_loss,
        pipeline_model_parallel_layout=lay.pipeline_layout,
        expert_model_parallel_size=lay.expert_parallel,
        expert_tensor_parallel_size=lay.expert_tensor_parallel,
        sequence_parallel=lay.sequence_parallel and lay.tensor_parallel > 1,
        pipeline_dtype=dtype,
        params_dtype=dtype,
        bf16=dtype == torch.bfloat16,
        use_cpu_initialization=True,
        perform_initialization=False,
        gradient_accumulation_fusion=False,
        persist_layer_norm=False,
        masked_softmax_fusion=False,
        apply_rope_fusion=False,
        bias_activation_fusion=m.linear_bias or gated,
        recompute_granularity=recompute,
    )
    return GPTModel(
        config,
        get_gpt_layer_local_spec(num_experts=m.num_experts, normalization=m.normalization),
        vocab_size=m.vocab_size,
        max_sequence_length=m.max_positions or m.sequence_length,
        pre_process=parallel_state.is_pipeline_first_stage(),
        post_process=parallel_state.is_pipeline_last_stage(),
        position_embedding_type=m.position_embedding,
        share_embeddings_and_output_weights=m.tied_embeddings,
    )


def end() -> None:
    parallel_state.destroy_model_parallel()
    torch.distributed.destroy_process_group()


def parameters(model: dict, layout: dict, rank: int) -> int:
    """Parameters that one rank of the layout holds."""
    with torch.device("meta"):
        built = build(model, layout, rank)
    count = sum(p.numel() for p in built.parameters())
    end()
    return count


def flops(arguments: dict, batch_size: int) -> float:
    return num_floating_point_operations(SimpleNamespace(**arguments), batch_size)


def saved_bytes(model: dict, layout: dict, micro_batch_size: int, dtype: str, recompute: str | None) -> int:
    """Bytes of the tensors that a real forward pass keeps for the backward pass, parameters not counted."""
    precision = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    built = build(model, layout, 0, precision, recompute).to(precision)
    weights = {p.untyped_storage().data_ptr() for p in built.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    length = model["sequence_length"]
    tokens = torch.randint(0, model["vocab_size"], (micro_batch_size, length))
    positions = torch.arange(length).expand(micro_batch_size, length)
    mask = torch.ones(1, 1, length, length).tril() < 0.5
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = built(tokens, positions, mask, labels=tokens)  # noqa: F841
    end()
    return sum(storage.nbytes() for storage in kept.values())


def complaint(flags: list[str], model: dict, layout: dict) -> str:
    """What Megatron says against these flags while it validates them, forms the groups and builds the model; "" if it
    says nothing."""
    sys.argv = ["pretrain_gpt.py", *flags]
    os.environ |= {"WORLD_SIZE": str(layout["world_size"]), "RANK": "0"}
    try:
        with contextlib.redirect_stdout(io.StringIO()), torch.device("meta"):
            validate_args(parse_args(), {"tokenizer_type": "NullTokenizer"})
            build(model, layout)
    except (AssertionError, RuntimeError, ValueError) as refusal:
        return f"{type(refusal).__name__}: {refusal}"
    finally:
        if torch.distributed.is_initialized():
            end()
    return ""


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    answers = [globals()[question.pop("what")](**question) for question in asked]
    print("\n" + json.dumps(answers))

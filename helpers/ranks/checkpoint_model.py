"""The model of a checkpoint, at whatever layout the flags ask for: built, loaded, and asked for logits or losses.

What `export_weights`, `import_weights`, `generate` and `held_out_loss` share; no program by itself.
"""

import contextlib
import sys

import torch
import torch.distributed as dist
from megatron.core import mpu
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.utils import unwrap_model
from megatron.training import get_args
from megatron.training.argument_utils import gpt_config_from_args
from megatron.training.arguments import parse_and_validate_args
from megatron.training.checkpointing import load_checkpoint
from megatron.training.initialize import initialize_megatron

from helpers.ranks import pretrain_gpt


def build() -> torch.nn.Module:
    """This rank's part of the model that the flags in sys.argv describe, for inference; Megatron reports on stderr."""
    with contextlib.redirect_stdout(sys.stderr):
        args = parse_and_validate_args(args_defaults={"tokenizer_type": "GPT2BPETokenizer"})
        initialize_megatron(get_embedding_ranks=pretrain_gpt.embedding_ranks)
        config = gpt_config_from_args(args)
        config.finalize()
        groups = ProcessGroupCollection.use_mpu_process_groups()
        models = config.get_builder_cls()(config).build_distributed_models(groups, wrap_with_ddp=False)
        if args.load is not None:
            load_checkpoint(models, None, None)
    return models[0].eval()


def parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """This rank's parameters by their names in GPTModel."""
    return dict(unwrap_model(model).named_parameters())


@torch.no_grad()
def forward(model: torch.nn.Module, tokens: torch.Tensor, positions: torch.Tensor, mask=None, context=None, **compare):
    """Logits [batch, tokens, rows], or with `labels=` losses [batch, tokens]; None but on the last pipeline stage.

    A stage gets activations [tokens, batch, hidden] from the one before and hands its own on.
    """
    args = get_args()
    if not mpu.is_pipeline_first_stage():
        shape = (tokens.shape[1], tokens.shape[0], args.hidden_size)
        arrived = torch.empty(shape, dtype=args.params_dtype, device="cuda")
        dist.recv(arrived, mpu.get_pipeline_model_parallel_prev_rank())
        unwrap_model(model).set_input_tensor(arrived)
    if not mpu.is_pipeline_last_stage():
        compare = {}
    output = model(tokens, positions, mask, inference_context=context, runtime_gather_output=not compare, **compare)
    if mpu.is_pipeline_last_stage():
        return output
    dist.send(output.contiguous(), mpu.get_pipeline_model_parallel_next_rank())
    return None

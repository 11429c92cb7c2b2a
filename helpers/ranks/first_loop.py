"""The smallest program on Megatron Core: a GPT split over all ranks by tensor parallelism, and a training loop.

    torchrun --nproc-per-node 2 helpers/ranks/first_loop.py

Megatron Core brings the parallel model, its gradients, its optimizer and its checkpoints. The loop is ours.
"""

# ruff: noqa: E402

import logging
import os
import shutil
import tempfile
import warnings
from functools import partial

import torch
import torch.distributed as dist

warnings.simplefilter("ignore")
os.environ["PYTHONWARNINGS"] = "ignore"  # in the processes that write a checkpoint, too
if os.environ.get("MEGATRON_CPU") == "1" or not torch.cuda.is_available():
    from helpers.ranks.cpu import device

    device.switch_on()

from megatron.core import dist_checkpointing, parallel_state
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDatasetConfig, MockGPTDataset
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig, finalize_model_grads
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed
from megatron.core.tokenizers import MegatronTokenizer
from megatron.core.transformer import TransformerConfig

logging.disable(logging.WARNING)  # only what this program prints itself
STEPS, BATCH, SEQUENCE, VOCABULARY, SEED = 20, 8, 64, 128, 1234


def start() -> None:
    """Meet the other ranks, then put all of them into one tensor-parallel group."""
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("gloo" if torch.cuda.get_device_name() == "cpu" else "nccl")
    parallel_state.initialize_model_parallel(tensor_model_parallel_size=dist.get_world_size())
    model_parallel_cuda_manual_seed(SEED)


def build_model() -> DistributedDataParallel:
    torch.manual_seed(SEED)  # every rank draws the same whole matrices and keeps its own part of each
    config = TransformerConfig(
        num_layers=2,
        hidden_size=64,
        num_attention_heads=4,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        use_cpu_initialization=True,
        tensor_model_parallel_size=dist.get_world_size(),
    )
    model = GPTModel(config, get_gpt_layer_local_spec(), vocab_size=VOCABULARY, max_sequence_length=SEQUENCE)
    return DistributedDataParallel(config, DistributedDataParallelConfig(), model.cuda())


def batches():
    """Made-up documents that count upwards, so that the next token can be learned; the same on every rank."""
    tokenizer = MegatronTokenizer.from_pretrained(metadata_path={"library": "null-text"}, vocab_size=VOCABULARY)
    config = GPTDatasetConfig(
        random_seed=SEED,
        sequence_length=SEQUENCE,
        tokenizer=tokenizer,
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
    )
    counts = [STEPS * BATCH, None, None]  # training samples; no validation, no test
    training, _, _ = BlendedMegatronDatasetBuilder(MockGPTDataset, counts, lambda: True, config).build()
    return torch.utils.data.DataLoader(training, batch_size=BATCH)


def forward(data, model):
    """One batch through the model: its losses, token by token, and the function that makes them one number."""
    batch = {name: tensor.cuda() for name, tensor in next(data).items()}
    losses = model(batch["tokens"], batch["position_ids"], batch["attention_mask"], labels=batch["labels"])
    return losses, partial(mean_loss, batch["loss_mask"])


def mean_loss(mask, losses):
    loss = (losses * mask).sum() / mask.sum()
    return loss, {"loss": loss.detach()}


def run_batch(data, model, **options) -> float:
    """Forward, and backward unless told otherwise, as Megatron schedules it; returns the loss."""
    sizes = {"num_microbatches": 1, "micro_batch_size": BATCH, "seq_length": SEQUENCE}
    result = get_forward_backward_func()(forward_step_func=forward, data_iterator=data, model=model, **sizes, **options)
    return result[0]["loss"].item()


def save_and_load(model, folder: str) -> None:
    """Save the parts of all ranks as one checkpoint, forget the weights, and read them back."""
    dist_checkpointing.save(model.module.sharded_state_dict(), folder)
    for parameter in model.module.parameters():
        parameter.data.zero_()
    model.module.load_state_dict(dist_checkpointing.load(model.module.sharded_state_dict(), folder))


def main() -> None:
    start()
    say = print if dist.get_rank() == 0 else lambda *words, **options: None
    model = build_model()
    optimizer = get_megatron_optimizer(OptimizerConfig(optimizer="adam", lr=1e-2, clip_grad=1.0), [model])
    held = sum(parameter.numel() for parameter in model.parameters())
    say(f"{dist.get_world_size()} ranks, tensor-parallel; rank 0 holds {held:,} parameters")

    data = iter(batches())
    for step in range(1, STEPS + 1):
        model.zero_grad_buffer()
        loss = run_batch(data, model)
        finalize_model_grads([model])  # sums the gradients that several ranks hold a share of
        _, gradient_norm, _ = optimizer.step()
        say(f"step {step:2}   loss {loss:.4f}   gradient norm {float(gradient_norm):.3f}", flush=True)

    folder = [tempfile.mkdtemp() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(folder)
    before = run_batch(iter(batches()), model, forward_only=True)
    save_and_load(model, folder[0])
    after = run_batch(iter(batches()), model, forward_only=True)
    say(f"loss on the first batch {before:.4f}; saved, forgotten, loaded again {after:.4f}")
    dist.barrier()
    if dist.get_rank() == 0:
        shutil.rmtree(folder[0])
    dist.destroy_process_group()


if __name__ == "__main__":
    main()

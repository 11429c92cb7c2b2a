"""The parts of a recipe, each a value that knows its Megatron flags."""

import math
from dataclasses import dataclass

from helpers.machine import PROJECT
from helpers.recipes.flag import Flag
from helpers.recipes.layout import Layout
from helpers.recipes.model import Model
from helpers.recipes.names import told

TENSOR_PARALLEL_OVERLAP = PROJECT / "helpers" / "ranks" / "tensor_parallel_overlap.yaml"


@told
@dataclass(frozen=True)
class Precision:
    """Number formats: `dtype` is "bf16", "fp16" or "fp32"; `fp8_format` None, "hybrid" (E4M3 and E5M2) or "e4m3"."""

    dtype: str = "bf16"
    fp8_format: str | None = None
    fp8_recipe: str = "tensorwise"
    fp8_amax_history_len: int = 1024
    fp8_param_gather: bool = False
    grad_reduce_in_bf16: bool = False
    moments_in_bf16: bool = False

    @property
    def name(self) -> str:
        return self.dtype if self.fp8_format is None else f"fp8 {self.fp8_recipe}"

    def flags(self) -> list[Flag]:
        flags = []
        if self.dtype != "fp32":
            why = "weights and activations in 16 bits, the optimizer's copy in 32"
            flags.append(Flag(f"--{self.dtype}", None, why))
        if self.fp8_format is not None:
            flags.append(Flag("--fp8-format", self.fp8_format, "matrix products of the layers in 8 bits"))
            flags.append(Flag("--fp8-recipe", self.fp8_recipe, "where the scaling factors come from"))
            if self.fp8_recipe == "delayed":
                why = "steps whose largest value sets the next scale"
                flags.append(Flag("--fp8-amax-history-len", str(self.fp8_amax_history_len), why))
                flags.append(Flag("--fp8-amax-compute-algo", "max", "the largest of those steps counts"))
            if self.fp8_param_gather:
                flags.append(Flag("--fp8-param-gather", None, "weights kept and gathered in 8 bits"))
        if self.grad_reduce_in_bf16:
            flags.append(Flag("--grad-reduce-in-bf16", None, "gradients in 16 bits: half to keep, half to send"))
        if self.moments_in_bf16:
            flags.append(Flag("--use-precision-aware-optimizer", None, "the optimizer's state may be in 16 bits"))
            flags.append(Flag("--exp-avg-dtype", "bf16", "Adam's first moment"))
            flags.append(Flag("--exp-avg-sq-dtype", "bf16", "Adam's second moment"))
        return flags


@told
@dataclass(frozen=True)
class Speed:
    """What makes a GPU faster and leaves the mathematics alone; a CPU has none of it.

    `cross_entropy_fusion` computes the loss in fewer passes over the logits: "te" with Transformer Engine's kernel (a
    change of ours, `loss_kernel`), "native" with those that torch.compile writes; None in a dozen. `cuda_graph` records
    one step's forward and backward and replays it with one launch. `overlap_communication` sends gradients and weights
    while others are still being computed (data parallelism with the distributed optimizer). `overlap_tensor_parallel`
    does so inside a layer.
    """

    cross_entropy_fusion: str | None = None
    cuda_graph: bool = False
    overlap_communication: bool = False
    overlap_tensor_parallel: bool = False

    @property
    def name(self) -> str:
        """How a step is launched, and whether its layers talk while they compute: "CUDA graph, overlapped"."""
        return ("CUDA graph" if self.cuda_graph else "eager") + ", overlapped" * self.overlap_tensor_parallel

    def flags(self) -> list[Flag]:
        flags = []
        if self.cross_entropy_fusion:
            ours = self.cross_entropy_fusion == "te"
            why = "the version made by torch.compile" + ", in whose place our change puts Transformer Engine's" * ours
            flags.append(Flag("--cross-entropy-loss-fusion", None, "the loss in few passes instead of a dozen"))
            flags.append(Flag("--cross-entropy-fusion-impl", "native", why))
        if self.cuda_graph:
            flags.append(Flag("--cuda-graph-impl", "full_iteration", "a step's kernels are launched as one"))
            flags.append(Flag("--no-check-for-nan-in-loss-and-grad", None, "a captured step cannot pause to check"))
            why = "the rerun check asks every rank after each step, and keeps the optimizer waiting for the GPU"
            flags.append(Flag("--rerun-mode", "disabled", why))
        if self.overlap_communication:
            flags.append(Flag("--overlap-grad-reduce", None, "gradients travel while backward goes on"))
            flags.append(Flag("--overlap-param-gather", None, "weights arrive while forward goes on"))
        if self.overlap_tensor_parallel:
            flags.append(Flag("--tp-comm-overlap", None, "a layer's GEMMs and collectives run in pieces, at once"))
            flags.append(Flag("--tp-comm-overlap-rs-dgrad", None, "those of the input's gradient, too"))
            flags.append(
                Flag("--tp-comm-overlap-cfg", str(TENSOR_PARALLEL_OVERLAP), "which GEMMs send in a ring of copies")
            )
        return flags


@told
@dataclass(frozen=True)
class Batch:
    """Samples per forward pass on one rank, samples per optimizer step over all ranks, and what is recomputed.

    `recompute` is None, "selective" (attention's core) or "full" (every layer from its input).
    """

    micro_batch_size: int = 1
    global_batch_size: int = 8
    recompute: str | None = None

    def flags(self) -> list[Flag]:
        flags = [
            Flag("--micro-batch-size", str(self.micro_batch_size), "samples in one forward pass on one rank"),
            Flag("--global-batch-size", str(self.global_batch_size), "samples in one optimizer step, over all ranks"),
        ]
        if self.recompute is not None:
            why = "activations computed twice instead of kept"
            flags.append(Flag("--recompute-granularity", self.recompute, why))
        if self.recompute == "full":
            flags.append(Flag("--recompute-method", "uniform", "every layer alike"))
            flags.append(Flag("--recompute-num-layers", "1", "one layer is recomputed at a time"))
        return flags


@told
@dataclass(frozen=True)
class Schedule:
    """Steps and learning rate. `exit_interval` ends the run early at that step without changing the schedule.

    `split` is Megatron's train,valid,test weights over the corpus's documents.
    """

    train_iters: int = 500
    lr: float = 1.5e-4
    min_lr: float = 1e-5
    lr_warmup_iters: int = 10
    weight_decay: float = 0.1
    clip_grad: float = 1.0
    adam_beta2: float = 0.95
    seed: int = 1234
    split: str = "90,5,5"
    eval_interval: int = 1000
    eval_iters: int = 2
    exit_interval: int | None = None

    @property
    def last_step(self) -> int:
        """The step after which the run ends."""
        return min(self.train_iters, self.exit_interval or self.train_iters)

    def learning_rate(self, step: int) -> float:
        """What Megatron logs at `step`, set for the step after it: a climb to `lr`, then half a cosine to `min_lr`.

        `get_lr` in megatron/core/optimizer_param_scheduler.py, for a run in which no step was skipped.
        """
        if step <= self.lr_warmup_iters:
            return self.lr * step / self.lr_warmup_iters if self.lr_warmup_iters else self.lr
        share = min(1, (step - self.lr_warmup_iters) / (self.train_iters - self.lr_warmup_iters))
        return self.min_lr + (self.lr - self.min_lr) * (1 + math.cos(math.pi * share)) / 2

    def flags(self) -> list[Flag]:
        flags = [
            Flag("--train-iters", str(self.train_iters), "optimizer steps"),
            Flag("--lr", f"{self.lr:g}", "highest learning rate"),
            Flag("--min-lr", f"{self.min_lr:g}", "learning rate at the end"),
            Flag("--lr-decay-style", "cosine", "the way from one to the other"),
            Flag("--lr-warmup-iters", str(self.lr_warmup_iters), "steps to climb to the highest"),
            Flag("--weight-decay", f"{self.weight_decay:g}", "pull of the weights towards zero"),
            Flag("--clip-grad", f"{self.clip_grad:g}", "largest gradient norm allowed"),
            Flag("--adam-beta2", f"{self.adam_beta2:g}", "memory of Adam's second moment"),
            Flag("--seed", str(self.seed), "weights, dropout and data order follow from it"),
            Flag("--eval-interval", str(self.eval_interval), "steps between looks at the validation part"),
            Flag("--eval-iters", str(self.eval_iters), "batches in one such look"),
        ]
        if self.exit_interval is not None:
            flags.append(Flag("--exit-interval", str(self.exit_interval), "stop here, on the longer schedule"))
        return flags


@told
@dataclass(frozen=True)
class Checkpoints:
    """`save_interval` None saves nothing; `keep` is how many checkpoints stay on disk."""

    save_interval: int | None = None
    keep: int = 2

    def flags(self, directory: str) -> list[Flag]:
        if self.save_interval is None:
            return []
        return [
            Flag("--save", directory, "where checkpoints go"),
            Flag("--load", directory, "where an interrupted run finds its last one"),
            Flag("--save-interval", str(self.save_interval), "steps between checkpoints"),
            Flag("--ckpt-format", "torch_dist", "a format that other layouts can load"),
        ]


@told
@dataclass(frozen=True)
class Logging:
    """TensorBoard is always on. W&B is off unless `wandb_project` is named; `wandb_mode` is "offline" or "online".

    `record_schedule` keeps when each rank computed which micro-batch, forward and backward (`runs.pipeline.of_run`).
    """

    tensorboard: bool = True
    wandb_project: str | None = None
    wandb_entity: str | None = None
    wandb_run_name: str | None = None
    wandb_mode: str = "offline"
    record_schedule: bool = False

    def flags(self, directory: str) -> list[Flag]:
        flags = [
            Flag("--log-interval", "1", "a line every step"),
            Flag("--log-throughput", None, "TFLOP/s on that line"),
        ]
        if self.tensorboard or self.wandb_project:
            flags += [
                Flag("--tensorboard-dir", f"{directory}/tensorboard", "the curves, step by step; they feed W&B, too"),
                Flag("--log-timers-to-tensorboard", None, "without it throughput never reaches TensorBoard"),
                Flag("--log-memory-to-tensorboard", None, "memory as well"),
            ]
        if self.wandb_project:
            flags.append(Flag("--wandb-project", self.wandb_project, "W&B project"))
            flags.append(Flag("--wandb-exp-name", self.wandb_run_name or directory.rsplit("/", 1)[-1], "W&B run"))
            flags.append(Flag("--wandb-save-dir", directory, "where W&B keeps its files"))
            if self.wandb_entity:
                flags.append(Flag("--wandb-entity", self.wandb_entity, "W&B user or team"))
        return flags


PARTS = {
    "model": Model,
    "layout": Layout,
    "precision": Precision,
    "speed": Speed,
    "batch": Batch,
    "schedule": Schedule,
    "checkpoints": Checkpoints,
    "logging": Logging,
}

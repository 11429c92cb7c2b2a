"""How the ranks of one run share the work: tensor, pipeline, context, expert and data parallelism."""

from dataclasses import dataclass
from math import lcm

from helpers.machine import megatron_definitions
from helpers.recipes.flag import Flag


@dataclass(frozen=True)
class Layout:
    """Sizes of the parallel groups (Megatron's `parallel_state.py`).

    `processes` is the number of ranks; None takes the fewest that the sizes need. What the model's parallel
    dimensions leave over is data parallelism. `virtual_pipeline_chunks` is the number of model chunks on each
    pipeline rank; `expert_tensor_parallel` None means Megatron's default, the tensor-parallel size.
    `account_for_embedding_and_loss`: each counts as a layer when the layers are dealt out to a pipeline, so that its
    first and its last stage hold one less.
    """

    IN_WORDS = "a layout, such as recipe.layout"

    processes: int | None = None
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    virtual_pipeline_chunks: int = 1
    context_parallel: int = 1
    expert_parallel: int = 1
    expert_tensor_parallel: int | None = None
    sequence_parallel: bool = False
    distributed_optimizer: bool = False
    account_for_embedding_and_loss: bool = False

    def layers(self, num_layers: int, pipeline_rank: int) -> float:
        """Layers on a stage (transformer_block.py, `get_num_layers_to_build`); whole where preflight lets them pass."""
        if not self.account_for_embedding_and_loss:
            return num_layers / self.pipeline_parallel
        ends = (pipeline_rank == 0) + (pipeline_rank == self.pipeline_parallel - 1)
        return (num_layers + 2) / self.pipeline_parallel - ends

    @property
    def model_parallel(self) -> int:
        """Ranks that hold one copy of the model between them: TP × PP × CP."""
        return self.tensor_parallel * self.pipeline_parallel * self.context_parallel

    @property
    def expert_model_parallel(self) -> int:
        """Ranks that hold one copy of the experts between them: ETP × EP × PP."""
        expert_tensor = self.expert_tensor_parallel or self.tensor_parallel
        return expert_tensor * self.expert_parallel * self.pipeline_parallel

    @property
    def world_size(self) -> int:
        if self.processes is not None:
            return self.processes
        return lcm(self.model_parallel, self.expert_model_parallel) if self.expert_parallel > 1 else self.model_parallel

    @property
    def data_parallel(self) -> int:
        return self.world_size // self.model_parallel

    @property
    def name(self) -> str:
        """ "TP2×PP2", "DP2+DistOpt", "1 rank"."""
        sizes = {
            "TP": self.tensor_parallel,
            "PP": self.pipeline_parallel,
            "VPP": self.virtual_pipeline_chunks,
            "CP": self.context_parallel,
            "EP": self.expert_parallel,
            "DP": self.data_parallel,
        }
        name = "×".join(f"{key}{size}" for key, size in sizes.items() if size > 1) or "1 rank"
        return name + "+SP" * self.sequence_parallel + "+DistOpt" * self.distributed_optimizer

    def flags(self) -> list[Flag]:
        flags = [
            Flag("--tensor-model-parallel-size", str(self.tensor_parallel), "ranks that split every matrix"),
            Flag("--pipeline-model-parallel-size", str(self.pipeline_parallel), "ranks that split the stack of layers"),
        ]
        if self.virtual_pipeline_chunks > 1:
            why = "model chunks a pipeline rank takes in turn (interleaved schedule)"
            flags.append(Flag("--num-virtual-stages-per-pipeline-rank", str(self.virtual_pipeline_chunks), why))
        if self.account_for_embedding_and_loss:
            why = "counts as a layer when they are dealt out"
            flags.append(Flag("--account-for-embedding-in-pipeline-split", None, why))
            flags.append(Flag("--account-for-loss-in-pipeline-split", None, why))
        if self.context_parallel > 1:
            why = "ranks that split every sequence"
            flags.append(Flag("--context-parallel-size", str(self.context_parallel), why))
        if self.expert_parallel > 1:
            why = "ranks that share out the experts"
            flags.append(Flag("--expert-model-parallel-size", str(self.expert_parallel), why))
        if self.expert_tensor_parallel is not None:
            why = "ranks that split each expert's matrices"
            flags.append(Flag("--expert-tensor-parallel-size", str(self.expert_tensor_parallel), why))
        if self.sequence_parallel:
            flags.append(Flag("--sequence-parallel", None, "norms and dropout split along the sequence, too"))
        if self.distributed_optimizer:
            flags.append(Flag("--use-distributed-optimizer", None, "optimizer state split over data-parallel ranks"))
        return flags


def rank_groups(layout: Layout) -> dict[str, list[list[int]]]:
    """Which ranks talk to each other, by dimension, from Megatron's own `parallel_state.RankGenerator`.

    Returns:
        For each of "tensor", "pipeline", "data", "context", "expert": the list of groups, each a list of ranks.
        Expert groups follow Megatron's second generator, in which context parallelism plays no part.
    """
    names = ("RankGenerator", "generate_masked_orthogonal_rank_groups")
    RankGenerator = megatron_definitions("core/parallel_state.py", *names).RankGenerator
    order = "tp-cp-ep-dp-pp"
    dense = RankGenerator(
        tp=layout.tensor_parallel,
        ep=1,
        dp=layout.data_parallel,
        pp=layout.pipeline_parallel,
        cp=layout.context_parallel,
        order=order,
    )
    expert_tensor = layout.expert_tensor_parallel or layout.tensor_parallel
    experts = RankGenerator(
        tp=expert_tensor,
        ep=layout.expert_parallel,
        dp=max(1, layout.world_size // layout.expert_model_parallel),
        pp=layout.pipeline_parallel,
        cp=1,
        order=order,
    )
    return {
        "tensor": dense.get_ranks("tp"),
        "pipeline": dense.get_ranks("pp"),
        "data": dense.get_ranks("dp"),
        "context": dense.get_ranks("cp"),
        "expert": experts.get_ranks("ep"),
    }

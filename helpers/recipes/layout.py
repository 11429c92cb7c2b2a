"""How the ranks of one run share the work: tensor, pipeline, context, expert and data parallelism."""

from dataclasses import dataclass
from math import lcm

from helpers.machine import megatron_definitions
from helpers.recipes import pipeline_layout
from helpers.recipes.flag import Flag
from helpers.recipes.names import told
from helpers.show.arguments import fits
from helpers.show.numbers import as_typed, cut

LONGEST_NAME = 200  # letters of a pipeline's layout in it


@told
@dataclass(frozen=True)
class Layout:
    """Sizes of the parallel groups (Megatron's `parallel_state.py`).

    `processes` is the number of ranks; None takes the fewest that the sizes need. What the model's parallel
    dimensions leave over is data parallelism. `virtual_pipeline_chunks` is the number of model chunks on each
    pipeline rank; `expert_tensor_parallel` None means Megatron's default, the tensor-parallel size.
    Layers are dealt out to the stages evenly. `account_for_embedding` counts the embedding as a layer then, so that the
    first stage holds one less, `account_for_loss` the output and the loss, for the last. `pipeline_layout` says it
    stage by stage instead: "Et*3|ttL" (`recipes.pipeline_layout`). `distributed_optimizer` splits the optimizer's
    state over the data-parallel ranks (ZeRO-1), and `megatron_fsdp` with it weights and gradients (ZeRO-3).
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
    megatron_fsdp: bool = False
    account_for_embedding: bool = False
    account_for_loss: bool = False
    pipeline_layout: str | None = None

    def layers(self, num_layers: int, pipeline_rank: int) -> float:
        """Layers on a stage (transformer_block.py, `get_num_layers_to_build`); whole where preflight lets them pass."""
        if self.pipeline_layout is not None:
            return "".join(pipeline_layout.of_stage(self.pipeline_layout, self.pipeline_parallel, pipeline_rank)).count(
                "t"
            )
        first, last = pipeline_rank == 0, pipeline_rank == self.pipeline_parallel - 1
        share = (num_layers + self.account_for_embedding + self.account_for_loss) / self.pipeline_parallel
        return share - (self.account_for_embedding and first) - (self.account_for_loss and last)

    @property
    def kinds_of_stages(self) -> list[int]:
        """Pipeline ranks among which every kind of stage is: the first, one of the middle, the last; or all of them."""
        if self.pipeline_layout is not None:
            return list(range(self.pipeline_parallel))
        return sorted({0, min(1, self.pipeline_parallel - 1), self.pipeline_parallel - 1})

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
        try:
            return self.world_size // self.model_parallel
        except (TypeError, ZeroDivisionError):
            self.require()
            raise

    @property
    def name(self) -> str:
        """ "TP2×PP2", "DP2+DistOpt", "1 rank".

        Raises:
            ValueError: a size is none, "2" in quotes say.
        """
        self.require()
        sizes = {
            "TP": self.tensor_parallel,
            "PP": self.pipeline_parallel,
            "VPP": self.virtual_pipeline_chunks,
            "CP": self.context_parallel,
            "EP": self.expert_parallel,
            "DP": self.data_parallel,
        }
        name = "×".join(f"{key}{size}" for key, size in sizes.items() if size > 1) or "1 rank"
        if self.pipeline_layout is not None:
            name += f" ({cut(self.pipeline_layout, LONGEST_NAME)})"
        shared = "+FSDP" if self.megatron_fsdp else "+DistOpt" * self.distributed_optimizer
        return name + "+SP" * self.sequence_parallel + shared

    def require(self) -> None:
        """Nothing for a layout whose fields have values that they can take.

        Raises:
            ValueError: one of them has not; the message names it.
        """
        from helpers.recipes.preflight import ranges  # which stands above

        ranges.require(self)

    def require_stage(self, rank: int) -> None:
        """Nothing for the place of a stage in the pipeline.

        Raises:
            ValueError: there is none of that number.
        """
        if not fits(rank, int) or not 0 <= rank < self.pipeline_parallel:
            raise ValueError(
                f"{self.name} has no pipeline stage {as_typed(rank)}: they are 0 to {self.pipeline_parallel - 1}."
            )

    def flags(self) -> list[Flag]:
        flags = [
            Flag("--tensor-model-parallel-size", str(self.tensor_parallel), "ranks that split every matrix"),
            Flag("--pipeline-model-parallel-size", str(self.pipeline_parallel), "ranks that split the stack of layers"),
        ]
        if self.pipeline_layout is not None:
            why = "which stage holds what: E embedding, t a layer, L output and loss"
            flags.append(Flag("--pipeline-model-parallel-layout", self.pipeline_layout, why))
        elif self.virtual_pipeline_chunks > 1:
            why = "model chunks a pipeline rank takes in turn (interleaved schedule)"
            flags.append(Flag("--num-virtual-stages-per-pipeline-rank", str(self.virtual_pipeline_chunks), why))
        if self.account_for_embedding:
            why = "it counts as a layer when they are dealt out: one less on the first stage"
            flags.append(Flag("--account-for-embedding-in-pipeline-split", None, why))
        if self.account_for_loss:
            why = "output and loss count as a layer: one less on the last stage"
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
        if self.megatron_fsdp:
            flags.append(Flag("--use-megatron-fsdp", None, "weights and gradients, too: gathered when a layer runs"))
            flags.append(Flag("--ckpt-format", "fsdp_dtensor", "its own, demanded even where nothing is saved"))
        return flags


def rank_groups(layout: Layout) -> dict[str, list[list[int]]]:
    """Which ranks talk to each other, by dimension, from Megatron's own `parallel_state.RankGenerator`.

    Returns:
        For each of "tensor", "pipeline", "data", "context", "expert": the list of groups, each a list of ranks.
        Expert groups follow Megatron's second generator, in which context parallelism plays no part.

    Raises:
        ValueError: a size is none, or the ranks do not divide into whole copies of the model, or of its experts.
    """
    layout.require()
    for size, what in ((layout.model_parallel, "the model"), (layout.expert_model_parallel, "the experts")):
        if layout.world_size % size:
            whole = -(-layout.world_size // size) * size
            raise ValueError(
                f"{layout.name}: one copy of {what} takes {size} ranks, and {layout.world_size} is not a multiple of "
                f"it. processes={whole}, say."
            )
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

"""The order in which each stage of a pipeline takes its micro-batches, and when it can: Megatron's, or anybody's.

Megatron's own functions say the order (core/pipeline_parallel/schedules.py); nothing of it is imported.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

from helpers.machine import megatron_definitions

SCHEDULES = "core/pipeline_parallel/schedules.py"


@dataclass(frozen=True)
class Work:
    """One pass: a micro-batch forward or backward through one chunk of a stage."""

    direction: str
    micro_batch: int
    chunk: int = 0


class Stuck(ValueError):
    """An order in which stages wait for each other forever. `waits`: what each unfinished stage would do next."""

    def __init__(self, waits: dict[int, Work]):
        self.waits = waits
        told = "; ".join(f"stage {stage} waits to take {w.micro_batch} {w.direction}" for stage, w in waits.items())
        super().__init__(f"No stage can go on: {told}.")


def orders(stages: int, micro_batches: int, chunks: int = 1) -> list[list[Work]]:
    """Megatron's order, stage by stage: 1F1B, or with several chunks the interleaved one.

    A stage first takes its warm-up forward, then one forward and one backward in turn, then what is left backward.
    How long the warm-up is, and in which order the chunks come, Megatron's `get_pp_rank_microbatches` and
    `get_schedule_table` say.
    """
    megatron = megatron_definitions(SCHEDULES, "get_pp_rank_microbatches", "get_schedule_table")
    table = megatron.get_schedule_table(micro_batches, chunks, stages if chunks > 1 else micro_batches)
    found = []
    for stage in range(stages):
        place = SimpleNamespace(
            pp_group=SimpleNamespace(size=lambda: stages, rank=lambda stage=stage: stage),
            virtual_pipeline_model_parallel_size=chunks if chunks > 1 else None,
        )
        _, _, warm_up, _ = megatron.get_pp_rank_microbatches(micro_batches, chunks, stages, p2p_communicator=place)
        ahead = [Work("forward", *one) for one in table]
        back = [Work("backward", micro_batch, chunks - 1 - chunk) for micro_batch, chunk in table]
        pairs = [work for pair in zip(ahead[warm_up:], back, strict=False) for work in pair]
        found.append([*ahead[:warm_up], *pairs, *back[len(table) - warm_up :]])
    return found


def timed(
    order: Sequence[Sequence[Work]], chunks: int, milliseconds: Callable[[int, Work], float]
) -> Iterator[tuple[int, str, int, int, float, float]]:
    """When each pass begins and ends, if a stage takes its list in order and each as soon as it can.

    A forward needs the one of the piece before it, a backward the one of the piece after it and its own forward;
    pieces go round the stages, `chunks` times. Yields (stage, direction, micro-batch, chunk, start, end).

    Raises:
        Stuck: the lists wait for each other.
    """
    stages = len(order)
    done: dict[tuple[str, int, int], float] = {}  # direction, micro-batch, piece -> when it ended
    free, at = [0.0] * stages, [0] * stages
    while any(at[stage] < len(order[stage]) for stage in range(stages)):
        moved = False
        for stage in range(stages):
            while at[stage] < len(order[stage]):
                work = order[stage][at[stage]]
                needs = _needs(work, work.chunk * stages + stage, stages * chunks)
                if not all(need in done for need in needs):
                    break
                start = max([free[stage], *(done[need] for need in needs)])
                free[stage] = done[work.direction, work.micro_batch, work.chunk * stages + stage] = (
                    start + milliseconds(stage, work)
                )
                yield stage, work.direction, work.micro_batch, work.chunk, start, free[stage]
                at[stage] += 1
                moved = True
        if not moved:
            raise Stuck({s: order[s][at[s]] for s in range(stages) if at[s] < len(order[s])})


def _needs(work: Work, piece: int, pieces: int) -> list[tuple[str, int, int]]:
    if work.direction == "forward":
        return [("forward", work.micro_batch, piece - 1)] if piece else []
    own = [("forward", work.micro_batch, piece)]
    return own + ([("backward", work.micro_batch, piece + 1)] if piece + 1 < pieces else [])

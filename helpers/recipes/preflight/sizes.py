"""What Megatron demands of a recipe's sizes, as arithmetic: each broken demand becomes a `Problem`.

The demands are those of `arguments.py:validate_args`, `transformer_config.py`, `parallel_state.py`, `schedules.py` and
`optimizer_param_scheduler.py` of megatron-core 0.19.2, said before any process starts.
"""

from collections.abc import Iterator
from math import lcm
from typing import TYPE_CHECKING

from helpers.machine import Machine
from helpers.recipes.preflight.problem import Problem, error, nearest_multiple, warning

if TYPE_CHECKING:
    from helpers.recipes.model import Model
    from helpers.recipes.recipe import Recipe


def shapes(recipe: "Recipe") -> Iterator[Problem]:
    """Heads, widths and the sequence against tensor and context parallelism."""
    m, lay = recipe.model, recipe.layout
    heads, groups, tp, cp = m.num_attention_heads, m.query_groups, lay.tensor_parallel, lay.context_parallel
    if m.sequence_length > m.positions:
        why = f"The model can place {m.positions} tokens, and a sample has {m.sequence_length}."
        change = f"sequence_length={m.positions}, or max_positions={m.sequence_length}."
        yield error(f"sequence_length={m.sequence_length} with max_positions={m.max_positions}", why, change)
    if m.rope_scaling_factor is not None and m.position_embedding != "rope":
        why = "It stretches rotations, and these positions have none."
        yield error(f"rope_scaling_factor={m.rope_scaling_factor:g}", why, "rope_scaling_factor=None.")
    if m.hidden_size % heads and m.kv_channels is None:
        why = f"Every head has the same width, and {m.hidden_size} / {heads} is not whole."
        change = f"hidden_size={nearest_multiple(m.hidden_size, heads)}"
        step = lcm(tp, m.num_query_groups or 1)
        if fitting := [n for n in _all_divisors(m.hidden_size) if n % step == 0]:
            change += f", or num_attention_heads={min(fitting, key=lambda n: abs(n - heads))}"
        change += "."
        yield error(f"hidden_size={m.hidden_size} with num_attention_heads={heads}", why, change)
    if heads % groups:
        why = f"Each key and value head serves the same number of query heads, and {heads} / {groups} is not whole."
        yield error(f"num_query_groups={groups} with {heads} heads", why, f"num_query_groups={divisors(heads)}.")
    fitting = in_words([n for n in _all_divisors(heads) if _shares_out(m, n)])
    if heads % tp:
        why = f"A tensor-parallel rank holds whole heads, and {heads} heads do not go into {tp} equal shares."
        yield error(f"tensor_parallel={tp} with num_attention_heads={heads}", why, f"tensor_parallel={fitting}.")
    elif groups % tp and tp % groups:
        why = f"The {groups} key and value heads must go evenly into {tp} ranks, or the ranks evenly among them."
        yield error(f"tensor_parallel={tp} with num_query_groups={groups}", why, f"tensor_parallel={fitting}.")
    for name, size, what in (
        ("hidden_size", m.hidden_size, "the columns of each matrix"),
        ("ffn_hidden_size", m.ffn_size, "the MLP's columns"),
        ("vocab_size", m.vocab_size, "the embedding's rows"),
    ):
        if size % tp and heads % tp == 0:
            why = f"Tensor parallelism shares out {what}, and {size} / {tp} is not whole."
            change = f"{name}={nearest_multiple(size, tp)}, or tensor_parallel={fitting}."
            yield error(f"tensor_parallel={tp} with {name}={size}", why, change)
    if cp > 1 and m.sequence_length % (2 * cp):
        why = (
            f"Each rank takes one piece from the front and one from the back, 2 × {cp} = {2 * cp} pieces in all, "
            f"and {m.sequence_length} / {2 * cp} is not whole."
        )
        change = f"sequence_length={nearest_multiple(m.sequence_length, 2 * cp)}."
        yield error(f"context_parallel={cp} with sequence_length={m.sequence_length}", why, change)
    elif lay.sequence_parallel and (m.sequence_length // cp) % tp:
        own = m.sequence_length // cp
        why = f"The {tp} tensor-parallel ranks share out a sequence of {own}, and {own} / {tp} is not whole."
        change = f"sequence_length={nearest_multiple(m.sequence_length, 2 * cp * tp)}, or sequence_parallel=False."
        yield error(f"sequence_parallel with tensor_parallel={tp} and sequence_length={m.sequence_length}", why, change)
    if lay.sequence_parallel and tp == 1:
        why = "It splits the sequence over the tensor-parallel ranks, and there is one: Megatron turns it off."
        yield warning("sequence_parallel with tensor_parallel=1", why, "tensor_parallel=2, or sequence_parallel=False.")


def ranks(recipe: "Recipe", machine: Machine | None) -> Iterator[Problem]:
    """The number of processes against the parallel sizes and the GPUs of a machine."""
    lay = recipe.layout
    world, tp, pp, cp = lay.world_size, lay.tensor_parallel, lay.pipeline_parallel, lay.context_parallel
    ep, etp = lay.expert_parallel, lay.expert_tensor_parallel or lay.tensor_parallel
    if world % lay.model_parallel:
        sizes = f"{tp} × {pp} × {cp} = {lay.model_parallel}"
        why = f"One copy of the model takes TP × PP × CP = {sizes} ranks, and {world} is not a multiple of it."
        asked = f"processes={world} with tensor_parallel={tp}, pipeline_parallel={pp}, context_parallel={cp}"
        change = f"{_processes(recipe, nearest_multiple(world, lay.model_parallel))}, or smaller parallel sizes."
        yield error(asked, why, change)
    given = ep > 1 or recipe.model.num_experts or lay.expert_tensor_parallel
    if given and world % lay.expert_model_parallel:
        sizes = f"{etp} × {ep} × {pp} = {lay.expert_model_parallel}"
        why = f"One copy of the experts takes ETP × EP × PP = {sizes} ranks, and {world} is not a multiple of it."
        asked = f"processes={world} with expert_parallel={ep} and expert_tensor_parallel={etp}"
        step = lcm(lay.model_parallel, lay.expert_model_parallel)
        change = _processes(recipe, nearest_multiple(world, step))
        change += ", or expert_tensor_parallel=1: each expert whole on its rank." if etp > 1 else "."
        yield error(asked, why, change)
    if machine is not None and machine.device == "cuda" and world > len(machine.gpus):
        have = len(machine.gpus)
        why = f"Every rank needs a GPU of its own: {world} ranks, {have} visible GPU{'s' * (have > 1)}."
        step = lcm(lay.model_parallel, lay.expert_model_parallel)
        change = f"{_processes(recipe, have // step * step)}, or " if have >= step else ""
        change += "planner.best(recipe), a layout for what is here, or MEGATRON_CPU=1 to train on CPU ranks."
        yield error(f"{world} processes ({lay.name}) on {machine.name}", why, change)


def experts(recipe: "Recipe") -> Iterator[Problem]:
    """Mixture of experts."""
    m, lay = recipe.model, recipe.layout
    ep, tp, etp = lay.expert_parallel, lay.tensor_parallel, lay.expert_tensor_parallel or lay.tensor_parallel
    if m.num_experts is None:
        if ep > 1:
            why = "It shares out experts, and this model has none."
            change = f"num_experts={_enough(m, ep, ep)}, or expert_parallel=1."
            yield error(f"expert_parallel={ep} with num_experts=None", why, change)
        return
    if m.num_experts % ep:
        why = f"Each rank holds the same number of experts, and {m.num_experts} / {ep} is not whole."
        change = f"num_experts={_enough(m, nearest_multiple(m.num_experts, ep), ep)}"
        change += f", or expert_parallel={divisors(m.num_experts)}."
        yield error(f"expert_parallel={ep} with num_experts={m.num_experts}", why, change)
    if m.moe_router_topk > m.num_experts:
        why = f"A token cannot visit {m.moe_router_topk} of {m.num_experts} experts."
        change = f"num_experts={_enough(m, m.num_experts, ep)}"
        change += f", or moe_router_topk={m.num_experts} or fewer." if m.num_experts > 1 else "."
        yield error(f"moe_router_topk={m.moe_router_topk} with num_experts={m.num_experts}", why, change)
    if m.moe_router_topk == 1 and "--moe-router-pre-softmax" not in recipe.extra_flags:
        why = "The router's softmax over the one chosen expert is always 1, so the router would never learn."
        change = 'extra_flags=("--moe-router-pre-softmax",), or moe_router_topk=2.'
        yield error("moe_router_topk=1", why, change)
    if tp > 1 and not lay.sequence_parallel:
        why = f"Without it the {tp} tensor-parallel ranks would route every token {tp} times; Megatron refuses."
        yield error(f"tensor_parallel={tp} with num_experts={m.num_experts}", why, "sequence_parallel=True.")
    if etp > 1 and m.linear_bias:
        why = f"Megatron's experts have biases only when each is whole on its rank, and here {etp} ranks share one."
        change = "expert_tensor_parallel=1, or linear_bias=False."
        yield error(f"expert_tensor_parallel={etp} with linear_bias=True", why, change)


def batch_and_schedule(recipe: "Recipe") -> Iterator[Problem]:
    """Micro-batches, warm-up, learning rates."""
    b, s, lay = recipe.batch, recipe.schedule, recipe.layout
    data, pp = max(1, lay.data_parallel), lay.pipeline_parallel
    step, groups = b.micro_batch_size * data, pp if lay.virtual_pipeline_chunks > 1 else 1
    if b.global_batch_size % step:
        why = (
            f"Each of the {data} data-parallel ranks takes whole micro-batches of {b.micro_batch_size}, so a step is a "
            f"multiple of {b.micro_batch_size} × {data} = {step}, and {b.global_batch_size} is not."
        )
        asked = f"global_batch_size={b.global_batch_size} with micro_batch_size={b.micro_batch_size} on {lay.name}"
        change, own = f"global_batch_size={nearest_multiple(b.global_batch_size, step * groups)}", b.global_batch_size
        if own % (data * groups) == 0:
            change += f", or micro_batch_size={_closest(own // data // groups, b.micro_batch_size)}"
        yield error(asked, why, change + ".")
    elif (b.global_batch_size // step) % groups:
        count = b.global_batch_size // step
        why = (
            f"The interleaved schedule takes micro-batches in groups of PP = {pp}, and a step has "
            f"{b.global_batch_size} / {step} = {count} of them on each rank."
        )
        asked = f"virtual_pipeline_chunks={lay.virtual_pipeline_chunks} with {count} micro-batches a step"
        yield error(asked, why, f"global_batch_size={nearest_multiple(b.global_batch_size, step * pp)}.")
    if s.lr_warmup_iters >= s.train_iters:
        why = f"The warm-up of {s.lr_warmup_iters} steps must end before the {s.train_iters} steps of training do."
        change = f"lr_warmup_iters={s.train_iters // 10}, or train_iters={s.lr_warmup_iters * 10}."
        yield error(f"lr_warmup_iters={s.lr_warmup_iters} with train_iters={s.train_iters}", why, change)
    if s.min_lr > s.lr:
        why = f"The learning rate falls from lr to min_lr, and {s.min_lr:g} is above {s.lr:g}."
        yield error(f"lr={s.lr:g} with min_lr={s.min_lr:g}", why, f"min_lr={s.lr / 10:g}.")


def _shares_out(model: "Model", ranks: int) -> bool:
    """Whether so many tensor-parallel ranks hold equal shares of every matrix."""
    groups = model.query_groups
    widths = (model.num_attention_heads, model.hidden_size, model.ffn_size, model.vocab_size)
    return all(size % ranks == 0 for size in widths) and (groups % ranks == 0 or ranks % groups == 0)


def _enough(model: "Model", experts: int, ranks: int) -> int:
    """A number of experts, a multiple of the ranks that share them out, of which a token can visit as many as asked."""
    return max(experts, -(-model.moe_router_topk // ranks) * ranks)


def _processes(recipe: "Recipe", processes: int) -> str:
    """So many ranks, and the batch that they can share out if this one is none."""
    batch, step = recipe.batch, recipe.batch.micro_batch_size * (processes // recipe.layout.model_parallel)
    change = f"processes={processes}"
    if batch.global_batch_size % step:
        change += f", global_batch_size={nearest_multiple(batch.global_batch_size, step)}"
    return change


def _all_divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def divisors(number: int) -> str:
    return in_words(_all_divisors(number))


def _closest(number: int, wanted: int) -> int:
    """The divisor of `number` nearest to `wanted`."""
    return min(_all_divisors(number), key=lambda n: abs(n - wanted))


def in_words(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return str(numbers[0])
    return ", ".join(map(str, numbers[:-1])) + f" or {numbers[-1]}"

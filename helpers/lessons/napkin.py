"""What a step costs, on a napkin: three numbers of a machine, four of a model."""

from helpers.machine import Machine
from helpers.planner.plans import rates_of
from helpers.recipes import Recipe, accounting, preflight
from helpers.recipes.costs import exchange, gemms
from helpers.show import numbers
from helpers.show.arguments import checked

STATES = ("weights", "gradients", "optimizer")


@checked
def step(recipe: Recipe, machine: Machine):
    """The sums that decide a layout, each written out (pandas): work, states, what travels, what waits.

    N parameters that a token visits, T tokens a step, G ranks, L layers of a stage, m micro-batches, d, t, p data-,
    tensor- and pipeline-parallel ranks, v chunks.

    Raises:
        PreflightError: the layout is none of that model, or of that machine.
    """
    import pandas as pd

    preflight.require(recipe, machine)
    rates, model, layout, batch = rates_of(machine), recipe.model, recipe.layout, recipe.batch
    ranks, t, p, d = layout.world_size, layout.tensor_parallel, layout.pipeline_parallel, layout.data_parallel
    flops = accounting.flops_by_part(model)
    visited = (sum(flops.values()) - flops["scores"]) / 6
    tokens = batch.global_batch_size * model.sequence_length
    rate = gemms.product(rates, gemms.format_of(recipe)).flops
    m = recipe.micro_batches
    work = 6 * visited * tokens / (ranks * rate)
    memory = accounting.memory(recipe, machine)
    held, here = sum(memory[part] for part in STATES), sum(accounting.rank_parameters(model, layout))
    each = " + ".join(f"{memory[part] / here:.1f}" for part in STATES)
    said = numbers.prefixed
    rows = [
        (
            "GEMMs",
            "6 N T ÷ (G × FLOP/s)",
            f"6 × {visited / 1e9:.2f}·10⁹ × {tokens:,} ÷ ({ranks} × {said(rate, 'FLOP/s')})",
            numbers.duration_ms(work),
        ),
        (
            "weights, gradients, Adam",
            "bytes a parameter × parameters of a rank",
            f"({each}) × {here / 1e9:.2f}·10⁹",
            numbers.decimal_bytes(held),
        ),
    ]
    if t > 1:
        layers, parts = model.num_layers / p, exchange.tensor(recipe, machine, rates)
        how = "4 AG, 4 RS and 2 AG again" if layout.sequence_parallel else "4 AR"
        rows.append(
            (
                f"TP: {how} a layer",
                "L m × their bytes ÷ B/s",
                f"{layers:g} × {m} × {numbers.duration_ms(sum(parts))}",
                numbers.duration_ms(layers * m * sum(parts)),
            )
        )
    if d * layout.context_parallel > 1:
        sent, received, _ = exchange.data(recipe, machine, rates, *accounting.rank_parameters(model, layout))
        rows.append(
            (
                "DP: gradients, and weights back",
                "once a step, bytes ÷ B/s",
                f"{numbers.duration_ms(sent)} + {numbers.duration_ms(received)}",
                numbers.duration_ms(sent + received),
            )
        )
    if p > 1:
        bubble = (p - 1) / (m * layout.virtual_pipeline_chunks)
        rows.append(
            (
                "pipeline bubble",
                "(p − 1) ÷ (m v) of the work",
                f"{p - 1} ÷ ({m} × {layout.virtual_pipeline_chunks}) = {bubble:.0%}",
                numbers.duration_ms(bubble * work),
            )
        )
    return pd.DataFrame(rows, columns=["what", "formula", "with numbers", "a step"]).set_index("what")

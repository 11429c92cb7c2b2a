"""What a step costs, on a napkin: three numbers of a machine, four of a model."""

from helpers.machine import Machine
from helpers.planner.plans import rates_of
from helpers.recipes import Recipe, accounting
from helpers.recipes.costs import gemms
from helpers.show import numbers
from helpers.show.arguments import checked


@checked
def step(recipe: Recipe, machine: Machine):
    """The four sums that decide a layout, each written out (pandas): work, states, what travels, what waits.

    N parameters, T tokens a step, G ranks, h width, L layers, d, t, p data-, tensor- and pipeline-parallel ranks, m
    micro-batches.
    """
    import pandas as pd

    rates, model, layout, batch = rates_of(machine), recipe.model, recipe.layout, recipe.batch
    count = sum(accounting.parameter_counts(model).values())
    ranks, t, p, d = layout.world_size, layout.tensor_parallel, layout.pipeline_parallel, layout.data_parallel
    tokens = batch.global_batch_size * model.sequence_length
    rate = rates.products[gemms.format_of(recipe)].flops
    m = max(1, batch.global_batch_size // (batch.micro_batch_size * d))
    work = 6 * count * tokens / (ranks * rate)
    said = numbers.prefixed
    states = count / (t * p) * (6 + 12 / d if layout.distributed_optimizer else 18)
    rows = [
        (
            "GEMMs",
            "6 N T ÷ (G × FLOP/s)",
            f"6 × {count / 1e9:.2f}·10⁹ × {tokens:,} ÷ ({ranks} × {said(rate, 'FLOP/s')})",
            numbers.duration_ms(work),
        ),
        (
            "weights, gradients, Adam",
            "N (6 + 12 / d) ÷ (t p)" if layout.distributed_optimizer else "18 N ÷ (t p)",
            f"{count / 1e9:.2f}·10⁹ ÷ ({t} × {p}), d = {d}",
            numbers.decimal_bytes(states),
        ),
    ]
    if t > 1:
        link = rates.link(t)
        once = gemms.tokens(recipe) * model.hidden_size * 2 * (t - 1) / t / link.bandwidth
        rows.append(
            (
                "TP, 8 transfers a layer",
                "8 L m × tokens h 2 (t − 1)/t ÷ B/s",
                f"8 × {model.num_layers // p} × {m} × {numbers.duration_ms(once)}",
                numbers.duration_ms(8 * model.num_layers / p * m * once),
            )
        )
    if d > 1:
        link = rates.link(d)
        sent = 4 * count / (t * p) * (d - 1) / d / link.bandwidth
        rows.append(
            (
                "DP, once a step",
                "4 N (d − 1)/d ÷ (t p B/s)",
                f"4 × {count / 1e9:.2f}·10⁹ × {d - 1}/{d} ÷ ({t} × {p} × {said(link.bandwidth, 'B/s')})",
                numbers.duration_ms(sent),
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

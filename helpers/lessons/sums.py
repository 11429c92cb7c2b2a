"""Sums a learner can check with a pencil: FLOPs of a token, MFU of a run, one run's speed over another's."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from helpers.corpus import Corpus, data_split
from helpers.plots.training import difference
from helpers.recipes import Recipe, accounting, preflight
from helpers.recipes.preflight import ranges
from helpers.recipes.settings import Model
from helpers.runs.micro_batches import MicroBatches
from helpers.runs.results import Results
from helpers.show.arguments import checked
from helpers.show.message import Absence
from helpers.show.tables import whole_sentences

GPU_ROOM = {"24 GB": 25.8, "80 GB (H100)": 85, "141 GB (H200)": 151, "192 GB (B200)": 192}  # as sold → 10⁹ bytes


@checked
def parameters(model: Model):
    """Parameters part by part, their share, and the formula that counts them (pandas)."""
    import pandas as pd

    ranges.require(model)
    parts = accounting.parameters(model)
    total = parts["parameters"].sum()
    rows = [(part, f"{row.parameters:,}", f"{row.share:.1%}", row.formula) for part, row in parts.iterrows()]
    rows.append(("together", f"{total:,}", "100%", ""))
    return whole_sentences(pd.DataFrame(rows, columns=["part", "parameters", "share", "formula"]).set_index("part"))


@checked
def first_loss(model: Model, run: Results | None = None, data: Corpus | None = None):
    """The loss before anything is learned, ln V + ½ σ² h, term by term, beside a run's first one (pandas).

    A logit is the product of h activations, whose squares the final norm makes 1 on average, with h weights of spread
    σ: over the vocabulary the logits have the variance σ² h, and the mean of exp lies e^(½ σ² h) above 1. What the
    label's own logit adds is 0 on average over first weights. In one model it is chance: its hidden states mostly point
    one way, and few tokens are labels often. Its spread is σ √h · √Σp², if p are the tokens' shares and all hidden
    states are alike; measured in GPTs of 4 to 24 layers, they are so for 20 % (h = 128) to 80 % (1024).

    Args:
        run: whose first loss is measured; left out, the sum ends at what is expected.
        data: a `corpus.Corpus` of the same text, for that spread.
    """
    import numpy as np
    import pandas as pd

    ranges.require(model)
    guessing = math.log(model.vocab_size)
    spread = model.init_method_std**2 * model.hidden_size / 2
    sigma, rows = f"{model.init_method_std:g}", [("ln V", guessing, f"V = {model.vocab_size:,} tokens, all alike")]
    rows.append(
        ("+ ½ σ² h", spread, f"logits of h = {model.hidden_size:,} products with weights of spread σ = {sigma}")
    )
    rows.append(("= expected", guessing + spread, "the mean over many first weights"))
    if data is not None:
        counts = data.open_index().token_counts()
        often = float(np.sqrt(((counts / counts.sum()) ** 2).sum()))
        chance = math.sqrt(2 * spread) * often
        why = f"spread from seed to seed, at most: σ √h × {often:.3f} (that is √Σp², p a token's share of the labels)"
        rows.append(("± by chance", chance, why))
    if run is not None:
        first = run.measured("first loss")
        rows.append(("measured", first, f"first step of {run.recipe_name}"))
        rows.append(
            (
                "measured − expected",
                first - guessing - spread,
                "up to twice “± by chance” is usual",
            )
        )
    table = pd.DataFrame(rows, columns=["", "nats", "where it comes from"]).set_index("")
    return whole_sentences(table.round({"nats": 3}))


@checked
def epochs(recipe: Recipe, data: Corpus):
    """How often a recipe's steps go through the training part of a corpus, from its batch and its split (pandas)."""
    import pandas as pd

    preflight.require_values(recipe)
    batch, schedule, length = recipe.batch, recipe.schedule, recipe.model.sequence_length
    train = data_split.parts(data.prefix, schedule.split, length)[0]
    samples = batch.global_batch_size * schedule.train_iters
    rows = [
        ("samples of the run", f"{samples:,}", f"{schedule.train_iters:,} steps × {batch.global_batch_size} samples"),
        ("tokens of the run", f"{samples * length:,}", f"× {length:,} tokens"),
        (
            "tokens of the training part",
            f"{train['tokens']:,}",
            f"--split {schedule.split} of {data.documents:,} documents",
        ),
        ("epochs", f"{samples * length / train['tokens']:.2f}", "how often each token is seen"),
    ]
    return whole_sentences(pd.DataFrame(rows, columns=["", "value", "where it comes from"]).set_index(""))


@checked
def flops_of_a_token(model: Model):
    """FLOPs one training token costs, forward and backward, part by part, beside the rule of thumb 6N (pandas)."""
    import pandas as pd

    ranges.require(model)
    parts = accounting.flops_by_part(model)
    total, parameters = sum(parts.values()), int(accounting.parameters(model)["parameters"].sum())
    rows = [(part, flops / 1e6, f"{flops / total:.0%}") for part, flops in parts.items()]
    rows.append(("together", total / 1e6, "100%"))
    rows.append((f"6 × {parameters:,} parameters", 6 * parameters / 1e6, f"{6 * parameters / total:.0%}"))
    return pd.DataFrame(rows, columns=["part", "MFLOP per token", "share"]).set_index("part").round(1)


@checked
def output_layer(*recipes: Recipe):
    """What a vocabulary costs: FLOPs of a training token, and the output layer's share of them, a row a recipe."""
    import pandas as pd

    rows = {}
    for recipe in recipes:
        preflight.require_values(recipe)
        m, parts = recipe.model, accounting.flops_by_part(recipe.model)
        name = f"{m.num_layers} layers × {m.hidden_size}, {m.vocab_size:,} ids"
        total = sum(parts.values())
        rows[name] = {"MFLOP per token": round(total / 1e6, 1), "in the output layer": f"{parts['logits'] / total:.0%}"}
    return pd.DataFrame.from_dict(rows, orient="index")


@checked
def mfu(run: Results):
    """A run's MFU step by step, from its tokens a second to the share of the GPU's peak (pandas).

    On a CPU, or on a GPU whose peak is not known, the sum ends at FLOP/s: no MFU is better than a wrong one.
    """
    import pandas as pd

    speed = run.measured("tokens/s/GPU")
    flops = accounting.flops_per_token(run.model)
    where = "GPU" if run.gpu else "CPU rank"
    rows = [
        (f"tokens per second, one {where}", f"{speed:,.0f}", "median after warm-up"),
        ("× FLOP per token", f"{flops / 1e9:.4g} GFLOP", "the table above, for this model"),
        ("= FLOP per second", f"{speed * flops / 1e12:,.4g} TFLOP/s", "what the model needed"),
    ]
    if run.gpu and run.gpu.peak_bf16_flops:
        peak = run.gpu.peak_bf16_flops
        rows.append(("÷ peak", f"{peak / 1e12:,.0f} TFLOP/s", f"{run.gpu.name}, dense bf16, data sheet"))
        rows.append(("= MFU", f"{speed * flops / peak:.1%}", "the share that did useful work"))
    else:
        rows.append(("÷ peak", "not known", f"no data sheet gives one for this {where}: no MFU"))
    return whole_sentences(pd.DataFrame(rows, columns=["", "value", "where it comes from"]).set_index(""))


@checked
def launching(*several: MicroBatches | Absence):
    """What launching alone would take, launches × the price of one, beside the floor that was measured (pandas).

    `several` are `runs.micro_batches.MicroBatches`; one that is not recorded is passed over.

    Raises:
        ValueError: none of them is recorded.
    """
    import pandas as pd

    rows = [
        {
            "machine": one.machine,
            "launches": f"{one.launches:,}",
            "one launch (µs)": round(one.launch_microseconds, 1),
            "together (ms)": round(one.launching_milliseconds, 1),
            "floor measured (ms)": round(one.floor, 1),
            "floor ÷ launches (µs)": round(1e3 * one.floor / one.launches, 1),
        }
        for one in several
        if isinstance(one, MicroBatches)
    ]
    if not rows:
        raise ValueError("sums.launching: there is nothing measured to add up. lessons.experiments.floor measures it.")
    return pd.DataFrame(rows).set_index("machine")


@checked
def speed_up(slow: Results, fast: Results) -> float:
    """How many times the tokens a second (all ranks together) of one run another run reaches."""

    def together(run) -> float:
        return run.measured("tokens/s/GPU") * run.layout.world_size

    return together(fast) / together(slow)


@checked
def scaling(several: Iterable[Results]):
    """How well more ranks pay, one row per run, against the first (pandas).

    `efficiency` is the share of the ideal: model FLOP/s of all ranks over ranks × those of the first run's rank. It
    holds for strong scaling (the same model on more ranks) and for weak scaling (a model that grows with the ranks).
    """
    import pandas as pd

    rows, base = [], None
    for run in several:
        ranks = run.layout.world_size
        speed = run.measured("tokens/s/GPU") * ranks
        flops = speed * accounting.flops_per_token(run.model)
        base = base or flops / ranks
        parameters = int(accounting.parameters(run.model)["parameters"].sum())
        step = run.tokens_per_step / speed * 1e3
        rows.append((run.layout.name, ranks, parameters / 1e6, step, speed, f"{flops / ranks / base:.0%}"))
    columns = ["layout", "ranks", "million parameters", "step ms", "tokens/s together", "efficiency"]
    return pd.DataFrame(rows, columns=columns).set_index("layout").round(1)


@checked
def memory_plan(recipe: Recipe, *changes: Mapping[str, Any], megatron: bool = True):
    """GB on the fullest rank for several changes of a recipe, part by part, and which GPUs hold that (pandas).

    `Megatron` is its own estimate (`training/theoretical_memory_usage.py`), which takes bf16 for granted and knows
    neither context parallelism nor FP8; "–" where it does not apply; `megatron=False` leaves it out. "other" is CUDA's
    context and work space.

    Raises:
        PreflightError: a layout does not divide the model, or the batch, evenly.
    """
    import pandas as pd

    rows = {}
    for change in changes:
        changed = recipe.with_(**change)
        preflight.require(changed)
        parts = {part: size / 1e9 for part, size in accounting.memory(changed).items()}
        total = sum(parts.values())
        row = {"GPUs": changed.layout.world_size, **{part: round(size, 1) for part, size in parts.items()}}
        row["together"] = round(total, 1)
        if megatron:
            applies = changed.layout.context_parallel == 1
            row["Megatron"] = f"{sum(accounting.megatron_memory(changed).values()) / 1e9:.1f}" if applies else "–"
        row["fits"] = next((name for name, room in GPU_ROOM.items() if total < 0.95 * room), "none of these")
        besides = [key.replace("_", " ") for key in change if not hasattr(changed.layout, key)]
        rows[", ".join([changed.layout.name, *besides])] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("layout")


@checked
def largest_difference(one: Results, other: Results) -> float:
    """The largest absolute difference of two runs' losses over the steps both have, in nats."""
    return float((one.losses - other.losses).abs().max())


@checked
def loss_gaps(pairs: Mapping[str, tuple[Results | None, Results | None]], last: int):
    """What is left of each difference of two runs' losses over their last steps, with its sign (pandas).

    `mean` is in nats; `scatter of the mean` is the standard error that it would have if its ten parts, each of a tenth
    of the steps, were independent: a mean within twice that says nothing.

    Args:
        pairs: as for `plots.signed_differences`; a pair of which a run is not recorded has dashes.
    """
    import numpy as np
    import pandas as pd

    rows = {}
    for name, (one, other) in pairs.items():
        gap = difference(one, other)
        if gap is None:
            rows[name] = {"steps": "not recorded yet", "mean": "–", "scatter of the mean": "–", "above 0": "–"}
            continue
        end = gap.iloc[-last:]
        tenths = [part.mean() for part in np.array_split(end.to_numpy(), 10)]
        rows[name] = {
            "steps": f"{end.index[0]} to {end.index[-1]}",
            "mean": f"{end.mean():+.4f}",
            "scatter of the mean": f"{np.std(tenths, ddof=1) / math.sqrt(10):.4f}",
            "above 0": f"{(end > 0).sum()} of {len(end)}",
        }
    return whole_sentences(pd.DataFrame.from_dict(rows, orient="index").rename_axis("difference"))


@checked
def in_percent(table: "pd.DataFrame"):  # noqa: F821
    """A table of shares of 1 with its values as percentages, two digits after the point (pandas)."""
    return table.map(lambda share: f"{share:.2%}")


@checked
def faster(several: Mapping[str, Results]) -> str:
    """The name of the run with the most tokens a second, all ranks together.

    Raises:
        ValueError: there is no run, or one that was never timed.
    """
    if not several:
        raise ValueError('sums.faster: there is no run to choose from: {"TP1": one, "TP2": two}, say.')
    return max(several, key=lambda name: several[name].measured("tokens/s/GPU") * several[name].layout.world_size)

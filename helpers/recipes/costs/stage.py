"""One micro-batch on one stage of the pipeline: the seconds of each part, forward and backward, on one rank."""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from helpers.machine import Machine
from helpers.recipes.costs import exchange, gemms, passes
from helpers.recipes.costs.passes import Passes
from helpers.recipes.costs.rates import Rates

if TYPE_CHECKING:
    from helpers.recipes.recipe import Recipe

TILE = 128  # a causal mask cuts attention's scores along its diagonal in tiles of this many tokens
# A score's exponential takes a kernel as long as the products of so many channels (Shah et al. 2024, FlashAttention-3,
# section 3.2: half of the cycles at 128 channels, of which the other half are the products).
EXPONENTIAL = 64
OUTSIDE_LAYERS = 40  # kernels of embedding, final norm and loss, forward and backward
# Megatron's training loop around a micro-batch takes Python longer than forward and backward alone (two pairs on an
# H200's host: 94.1 against 80.8 ms, 140.2 against 116.0), and forward more than backward, which autograd launches from
# C++ (a layer of the 345M launched one by one: 2.59 ms of 4.8 ms forward, where its kernels need 2.13).
LOOP, FORWARD_SHARE = 1.18, 0.54
CUT_SLOWER = 0.17  # products cut to pieces by `--tp-comm-overlap`: 17 % longer on two H200 (1.2B, sum of a layer's)


@dataclass(frozen=True)
class Stage:
    """`forward` and `backward`: seconds by part for one micro-batch; they are exposed, one after the other.

    `launching` is what Python takes to launch the kernels of both one by one.
    """

    forward: Counter
    backward: Counter
    launching: tuple[float, float]

    @property
    def busy(self) -> float:
        return sum(self.forward.values()) + sum(self.backward.values())


def stage(recipe: "Recipe", machine: Machine, rates: Rates, rank: int, layer: tuple[Counter, Counter]) -> Stage:
    """The stage `rank` of the pipeline (all of its chunks), of layers such as `layer`."""
    layout, model = recipe.layout, recipe.model
    layers = layout.layers(model.num_layers, rank)
    first, last = rank == 0, rank == layout.pipeline_parallel - 1
    forward, backward = (_times(one, layers) for one in layer)
    if recipe.batch.recompute == "full":
        backward["recomputation"] += sum(forward.values())
    elif recipe.batch.recompute == "selective":
        backward["recomputation"] += forward["attention"]
    if last:
        output = gemms.logits(recipe)
        once = gemms.seconds(output, rates, "fp32" if recipe.precision.dtype == "fp32" else "bf16")
        forward["GEMMs"] += once
        backward["GEMMs"] += 2 * once
        lost = passes.loss(recipe, machine) / rates.bandwidth
        forward["loss"] += lost / 2
        backward["loss"] += lost / 2
    if first:  # the embedding's rows: read and written forward, their gradients added up in fp32 backward
        rows = gemms.tokens(recipe) * model.hidden_size
        forward["norms, elementwise"] += _seconds(Passes(6 * rows, rows * (model.dropout > 0)), rates)
        backward["norms, elementwise"] += 10 * rows / rates.bandwidth
    count = layers * (passes.kernels(recipe, "forward") + passes.kernels(recipe, "backward")) + OUTSIDE_LAYERS
    ahead = LOOP * FORWARD_SHARE * count * rates.launch
    back = LOOP * (1 - FORWARD_SHARE) * count * rates.launch
    return Stage(forward, backward, (ahead, back + ahead * (recipe.batch.recompute == "full")))


def layer(recipe: "Recipe", machine: Machine, rates: Rates) -> tuple[Counter, Counter]:
    """Seconds by part of one layer's micro-batch on one rank, forward and backward."""
    format = gemms.format_of(recipe)
    products = gemms.layer(recipe)
    once = sum(gemms.seconds(one, rates, format) for one in products)
    scored, scored_back = _attention(recipe, machine, rates)
    sent, sent_back, hidden = exchange.tensor(recipe, machine, rates)
    around, around_back = exchange.context(recipe, machine, rates, (scored, scored_back))
    there = exchange.experts(recipe, machine, rates)
    casts = _seconds(passes.casts(recipe), rates) + passes.MORE_IN_FP8 * rates.kernel * (format == "fp8")
    if recipe.speed.overlap_tensor_parallel:
        sent, sent_back, hidden = _overlapped(once, sent, sent_back, hidden)
    slowed = exchange.ON_A_CPU if machine.device == "cpu" else exchange.SLOWED
    gaps = {way: passes.kernels(recipe, way) * rates.kernel for way in ("forward", "backward")}
    weights = sum(one.n * one.k * one.count for one in products)
    unfused = passes.unfused_gradients(recipe, machine, weights) / rates.bandwidth
    ahead = Counter(
        {
            "GEMMs": once,
            "attention": scored,
            "norms, elementwise": _seconds(passes.forward(recipe, machine), rates) + gaps["forward"],
            "FP8 casts": casts / 3,
            "TP collectives": sent,
            "CP exchange": around,
            "EP all-to-all": there,
        }
    )
    back = Counter(
        {
            "GEMMs": 2 * once,
            "attention": scored_back,
            "norms, elementwise": _seconds(passes.backward(recipe, machine), rates) + gaps["backward"] + unfused,
            "FP8 casts": casts * 2 / 3,
            "TP collectives": sent_back + slowed * hidden,
            "CP exchange": around_back,
            "EP all-to-all": there,
        }
    )
    return ahead, back


def _attention(recipe: "Recipe", machine: Machine, rates: Rates) -> tuple[float, float]:
    """Seconds of one layer's attention core: its scores, half of s × s under a causal mask, and a tile on the diagonal.

    Backward computes five products where forward has two (Dao 2023, FlashAttention-2, section 3.1).
    """
    model, layout = recipe.model, recipe.layout
    s, t = model.sequence_length, layout.tensor_parallel
    wide = width(model.head_size, machine)
    if passes.machine_has_engine(machine):
        count = gemms.tokens(recipe) * model.num_attention_heads / t * (s + TILE) / 2
    else:  # the plain attention computes the masked half, too
        count = gemms.tokens(recipe) * model.num_attention_heads / t * s
    random = rates.random_score * (model.dropout > 0)
    return count * (wide * rates.scores + random), count * (wide * rates.scores_backward + random)


def width(channels: int, machine: Machine | None) -> float:
    """The channels of a head, and those that a score's exponential takes as long as."""
    if passes.machine_has_engine(machine):
        return (channels + 2 * EXPONENTIAL) / 2
    return channels + 2 * EXPONENTIAL if machine.device == "cpu" else channels


def _overlapped(once: float, sent: float, sent_back: float, hidden: float):
    """`--tp-comm-overlap`: collectives run beside the products next to them, so that only what is longer is exposed.
    `once`: seconds of a layer's products forward, and of its dgrads: those are cut to pieces, and slower for it."""
    pieces = 4 * exchange.PIECES_SECONDS + CUT_SLOWER * once
    return max(0.0, sent - once) + pieces, max(0.0, sent_back + hidden / 2 - once) + pieces, hidden / 2


def _seconds(work: Passes, rates: Rates) -> float:
    return work.bytes / rates.bandwidth + work.random * rates.random + work.seconds


def _times(parts: Counter, number: float) -> Counter:
    return Counter({name: value * number for name, value in parts.items()})

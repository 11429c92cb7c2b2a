"""The rates of a GPU from its recorded timelines: where it was profiled, and nobody can calibrate it now."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from helpers.planner import lines
from helpers.recipes.costs import Link, Products, Rates, gemms
from helpers.recipes.costs.stage import EXPONENTIAL, TILE
from helpers.runs import micro_batches, records, timeline
from helpers.runs.timeline import Kernel, Timeline, Window

EAGER, RECORDED, SPLIT, LARGE, EIGHT_BITS = (
    "gpt3_345m_profile_plain",
    "gpt3_345m_profile_graph",
    "gpt_1_2b_20_tp2_sp_profile",
    "llama3_8b_bf16_profile",
    "llama3_8b_profile",
)
RUNS = (EAGER, RECORDED, SPLIT, LARGE, EIGHT_BITS)
START = 30e-6  # seconds before a collective's first byte, with those for which one rank waits for another
SHORT = 5.0  # µs: kernels whose time is that of starting them
DIRECTIONS = {"forward": 1, "backward": 2}


@dataclass(frozen=True)
class Profile:
    """A recorded run and its timeline."""

    recipe: object
    timeline: Timeline

    @property
    def windows(self) -> Iterator[tuple[str, Window]]:
        return ((way, getattr(self.timeline, way)) for way in DIRECTIONS)


def rates(label: str = "h200") -> Rates:
    """The rates of a machine with the five timelines named above, and its micro-batches."""
    found = {name: _profile(label, name) for name in (RECORDED, SPLIT, LARGE, EIGHT_BITS)}
    recorded, split, large = found[RECORDED], found[SPLIT], found[LARGE]
    bandwidth = _bandwidth(recorded)
    per_score = {way: _scores(large, way) for way in DIRECTIONS}
    launches = micro_batches.recorded(label, "gpt3_345m_stock")
    on_floor = [s for s in launches.sizes if s.busy_milliseconds < 0.7 * s.milliseconds]
    return Rates(
        machine=launches.machine,
        products={
            "bf16": _products([recorded, split, large]),
            "fp8": _products([found[EIGHT_BITS]]),
        },
        bandwidth=bandwidth,
        scores=per_score["forward"],
        scores_backward=per_score["backward"],
        random=_random(recorded, bandwidth),
        random_score=_random_score(recorded, per_score),
        kernel=_kernel(recorded),
        launch=median(s.milliseconds / s.launches for s in on_floor) * 1e-3,
        step=_step(recorded),
        links=_links(split),
        sources=(f"timelines of {label}: {', '.join(found)}", f"micro_batches of {label}: gpt3_345m_stock"),
        versions=records.recorded(label, RECORDED).environment["versions"],
    )


def _profile(label: str, name: str) -> Profile:
    return Profile(records.recorded(label, name).recipe, timeline.recorded(label, name))


def _undisturbed(window: Window) -> list[Kernel]:
    """Kernels that no collective runs beside."""
    others = [k for k in window.kernels if k.category == "collectives"]
    return [k for k in window.kernels if not any(o.start < k.end and k.start < o.end for o in others) or k in others]


def _products(profiles: list[Profile]) -> Products:
    """FLOP/s and start of the products: the start from the profile with the shortest, by a straight line of time
    against FLOPs (relative least squares), the rate from the sum of all, in which the long ones, for which the GPU
    runs out of power, have their weight."""
    points = [_points(profile) for profile in profiles]
    start = lines.start(min(points, key=lambda some: min(seconds for _, seconds in some)))
    return Products(lines.rate([one for some in points for one in some], start), start)


def _points(profile: Profile) -> list[tuple[float, float]]:
    """FLOPs and seconds of a layer's products that no collective runs beside."""
    names = {"qkv": "QKV", "proj": "projection", "fc1": "FC1", "fc2": "FC2"}
    sizes = {one.name: one.flops for one in gemms.layer(profile.recipe)}
    return [
        (sizes[names[k.part]], k.duration * 1e-6)
        for _, window in profile.windows
        for k in _undisturbed(window)
        if k.part
    ]


def _bandwidth(profile: Profile) -> float:
    """Bytes ÷ time of the kernels whose bytes are certain: norms and GELU, forward and backward."""
    model, count = profile.recipe.model, gemms.tokens(profile.recipe)
    moved = seconds = 0.0
    for way, window in profile.windows:
        for kernel in window.kernels:
            width = {"ln_": model.hidden_size, "triton_poi_fused_add_mul": model.ffn_size}
            size = next((n for word, n in width.items() if kernel.name.startswith(word)), None)
            if size is None or "finalize" in kernel.name:
                continue
            moved += (2 if way == "forward" else 3) * 2 * size * count
            seconds += kernel.duration * 1e-6
    return moved / seconds


def _kernel(profile: Profile) -> float:
    """Seconds that a kernel takes by being one: the gap before it, and the whole of those that do next to nothing."""
    windows = [window for _, window in profile.windows]
    short = sum(k.duration for window in windows for k in window.kernels if k.duration < SHORT)
    return (short + sum(window.idle for window in windows)) / sum(len(window.kernels) for window in windows) * 1e-6


def _scores(profile: Profile, way: str) -> float:
    """Seconds for one score and channel, of a model without dropout."""
    model = profile.recipe.model
    taken = sum(k.duration for k in getattr(profile.timeline, way).kernels if k.category == "attention") * 1e-6
    return taken / _count(profile) / _width(model)


def _width(model) -> float:
    return (model.head_size + 2 * EXPONENTIAL) / 2


def _count(profile: Profile) -> float:
    model, layout = profile.recipe.model, profile.recipe.layout
    heads = model.num_attention_heads / layout.tensor_parallel
    return gemms.tokens(profile.recipe) * heads * (model.sequence_length + TILE) / 2


def _random_score(profile: Profile, per_score: dict[str, float]) -> float:
    """Seconds that dropout adds to a score, the mean of both directions."""
    model = profile.recipe.model
    extra = []
    for way, window in profile.windows:
        taken = sum(k.duration for k in window.kernels if k.category == "attention") * 1e-6
        extra.append(taken / _count(profile) - _width(model) * per_score[way])
    return sum(extra) / len(extra)


def _random(profile: Profile, bandwidth: float) -> float:
    """Seconds that a random number adds to the kernels that drop residual entries: they move 7 bytes an element."""
    elements = gemms.tokens(profile.recipe) * profile.recipe.model.hidden_size
    kernels = [k for k in profile.timeline.forward.kernels if k.name.startswith("triton_poi_fused_add_native_dropout")]
    return median(k.duration for k in kernels) * 1e-6 / elements - 7 / bandwidth


def _step(profile: Profile) -> float:
    """What a step waits outside its layers."""
    inside = sum(window.idle for _, window in profile.windows) * profile.timeline.layers
    return profile.timeline.milliseconds["idle"] * 1e-3 - inside * 1e-6


def _links(profile: Profile) -> dict[int, Link]:
    """The all-gathers and reduce-scatters of sequence parallelism that nothing else runs beside."""
    recipe = profile.recipe
    n = recipe.layout.tensor_parallel
    sent = (n - 1) / n * gemms.tokens(recipe) * recipe.model.hidden_size * 2
    alone = []
    for _, window in profile.windows:
        for one in window.kernels:
            others = [k for k in window.kernels if k is not one and k.duration > SHORT]
            if one.category == "collectives" and not any(k.start < one.end and one.start < k.end for k in others):
                since = max((k.end for k in others if k.end <= one.start), default=one.start)
                alone.append((one.end - since) * 1e-6)
    return {n: Link(START, sent / (median(alone) - START))}

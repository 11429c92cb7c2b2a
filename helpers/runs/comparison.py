"""Several runs side by side, named by what tells them apart."""

from collections.abc import Iterable

from helpers.recipes import Recipe
from helpers.runs.results import Results
from helpers.show.arguments import checked

PARTS = ("model", "speed", "batch", "schedule")  # of a recipe.json, for labels; layout and precision have names
DIGITS = {"tokens/s/GPU": 0, "TFLOP/s/GPU": 1, "MFU": 3, "peak memory GB": 1, "wall time s": 1}  # of a comparison
MAX_WORDS = 3


@checked
def compare(several: Iterable[Results | None]):
    """The summaries of several runs in one table, one row per run, named by what tells them apart (see `labels`)."""
    import pandas as pd

    several = [run for run in several if run is not None]
    if not several:
        return pd.DataFrame()
    table = pd.concat([run.summary() for run in several]).round(DIGITS)
    table.index = pd.Index(labels(several), name="run")
    if len({run.machine for run in several}) > 1:
        table.insert(0, "machine", [run.machine for run in several])
    return table


@checked
def labels(several: Iterable[Results]) -> list[str]:
    """A name for each run: the settings in which these runs differ, else the recipe; recorded: its machine."""
    settings = [settings_of(run.described) for run in several]
    every_key = dict.fromkeys(key for values in settings for key in values)
    keys = [key for key in every_key if len({repr(values.get(key)) for values in settings}) > 1]
    told_by_settings = len({run.recipe_name for run in several}) == 1 and 0 < len(keys) <= MAX_WORDS
    sizes = len({run.model for run in several}) > 1
    found = []
    for run, values in zip(several, settings, strict=True):
        words = [_setting(key, values.get(key)) for key in keys] if told_by_settings else [run.recipe_name]
        if sizes and not told_by_settings and run.model:  # one recipe, scaled to two machines
            words.append(f"{run.model.num_layers} × {run.model.hidden_size}")
        found.append(", ".join(words) + (f" (recorded on {run.recorded_on})" if run.recorded_on else ""))
    return [
        label if found.count(label) == 1 else f"{label}, {run.path.stem}"
        for label, run in zip(found, several, strict=True)
    ]


def settings_of(described: dict) -> dict:
    """The settings of a recipe.json that decide a run: name → value; layout, precision and our changes in words."""
    flat = {key: value for part in PARTS for key, value in described.get(part, {}).items()}
    flat |= {"corpus": described.get("corpus")}
    if "model" in described:
        recipe = Recipe.from_json(described)
        flat |= {"layout": recipe.layout.name, "precision": recipe.precision.name}
        left_out = f"without {', '.join(recipe.without)}" if recipe.without else "ours"
        flat["changes"] = "stock" if recipe.stock else left_out
    return flat


def _setting(key: str, value) -> str:
    return str(value) if key in ("layout", "precision", "corpus", "changes") else f"{key} {value}"

"""Records for tests of figures: what a GPU machine would have recorded for a recipe, as fast as the test says."""

from dataclasses import replace

from test_runs import H200, curves, make_run

from helpers import runs


def recorded(folder, recipe, seconds: float, peak: float = 1e9):
    """`recipe` as a run recorded on H200s: `seconds` a step, `peak` bytes of memory."""
    scalars = curves(seconds=seconds)
    scalars["mem-max-allocated-bytes"] = dict.fromkeys(scalars["lm loss"], peak)
    machine = replace(H200, gpus=H200.gpus[:1] * recipe.layout.world_size)
    run = make_run(folder / recipe.name / "live", recipe, machine, scalars)
    return runs.read_result(runs.record(run, recipe.name, folder / "recorded"))

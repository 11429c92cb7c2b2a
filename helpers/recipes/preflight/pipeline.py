"""What Megatron demands of a pipeline: which stage holds which layers, and how its schedule can be recorded.

The demands are those of `arguments.py:validate_args`, `transformer_config.py` and `pipeline_parallel_layer_layout.py`
of megatron-core 0.19.2, said before any process starts.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from helpers.machine import Machine
from helpers.recipes import pipeline_layout
from helpers.recipes.preflight.problem import Problem, error, nearest_multiple
from helpers.recipes.preflight.sizes import divisors
from helpers.show.numbers import cut

if TYPE_CHECKING:
    from helpers.recipes.recipe import Recipe

ALONE = "Layers are dealt out to the stages of a pipeline, and there is no pipeline."
TWO = "pipeline_parallel=2 or more."


def stages(recipe: "Recipe") -> Iterator[Problem]:
    """Layers against the stages of the pipeline and their chunks."""
    lay, layers = recipe.layout, recipe.model.num_layers
    pp, chunks = lay.pipeline_parallel, lay.virtual_pipeline_chunks
    if lay.pipeline_layout is not None:
        yield from _laid_out(recipe)
        return
    counted = {"account_for_embedding": lay.account_for_embedding, "account_for_loss": lay.account_for_loss}
    extra = [name for name, asked in counted.items() if asked]
    if pp == 1:
        if chunks > 1:
            why = "Chunks are taken in turn by the ranks of a pipeline, and there is no pipeline."
            yield error(f"virtual_pipeline_chunks={chunks} with pipeline_parallel=1", why, TWO)
        if extra and layers > 0:
            yield error(f"{' and '.join(extra)} with pipeline_parallel=1", ALONE, TWO)
        return
    pieces, count = pp * chunks, layers + len(extra)
    if count % pieces == 0:
        return
    asked = f"pipeline_parallel={pp}" + (f" with virtual_pipeline_chunks={chunks}" if chunks > 1 else "")
    if extra:
        counts = f"{layers} + {len(extra)}"
        why = f"There are {counts} layers to deal out to {pieces} pieces, and {count} / {pieces} is not whole."
        change = f"pipeline_parallel × virtual_pipeline_chunks = {divisors(count)}."
        yield error(f"{asked}, {' and '.join(extra)}, and num_layers={layers}", why, change)
        return
    why = f"Each of the {pieces} pieces has as many layers as the next, and {layers} / {pieces} is not whole."
    change = f"num_layers={nearest_multiple(layers, pieces)}"
    change += f", or pipeline_parallel × virtual_pipeline_chunks = {divisors(layers)}"
    if (layers + 1) % pieces == 0:
        change += ", or account_for_loss=True"
    if (layers + 2) % pieces == 0:
        change += ", or account_for_embedding=True and account_for_loss=True"
    if layers >= pieces:
        change += f', or pipeline_layout="{_example(layers, pieces)}"'
    yield error(f"{asked} and num_layers={layers}", why, f"{change}.")


def _laid_out(recipe: "Recipe") -> Iterator[Problem]:
    """What `--pipeline-model-parallel-layout` says, against the model and the other flags."""
    lay, layers = recipe.layout, recipe.model.num_layers
    pp, chunks = lay.pipeline_parallel, lay.virtual_pipeline_chunks
    asked = f'pipeline_layout="{cut(lay.pipeline_layout)}"'
    try:
        pieces = pipeline_layout.pieces(lay.pipeline_layout)
    except ValueError as odd:
        yield error(asked, str(odd), f'pipeline_layout="{_example(layers, pp * chunks)}", say.')
        return
    example = f'pipeline_layout="{_example(layers, pp * chunks)}", say.'
    plain = "".join(pieces)
    if pp == 1:
        yield error(f"{asked} with pipeline_parallel=1", ALONE, f"{TWO[:-1]}, or pipeline_layout=None.")
    elif len(pieces) != pp * chunks:
        why = f"It has {len(pieces)} pieces, and there are {pp} stages × {chunks} chunks = {pp * chunks}."
        change = f"virtual_pipeline_chunks={len(pieces) // pp}" if len(pieces) % pp == 0 else example[:-6]
        yield error(f"{asked} with pipeline_parallel={pp}", why, f"{change}.")
    if lay.account_for_embedding or lay.account_for_loss:
        why = "The layout says already which stage holds what; Megatron takes one or the other."
        yield error(f"{asked} with account_for_embedding or account_for_loss", why, "Leave those out.")
    if plain[:1] != "E" or plain.count("E") != 1:
        yield error(asked, "It begins with the embedding, E, and has one of them.", example)
    if plain[-1:] != "L" or plain.count("L") != 1:
        yield error(asked, "It ends with output and loss, L, and has one of them.", example)
    if "m" in plain:
        yield error(asked, "m is a layer that predicts a further token, and a recipe's model has none.", example)
    if plain.count("t") != layers:
        yield error(f"{asked} with num_layers={layers}", f"It deals out {plain.count('t')} layers.", example)


def _example(layers: int, pieces: int) -> str:
    """A layout of so many layers, "Ett|ttL": even, or the last with fewer, since it has the logits, too."""
    most = -(-layers // pieces)
    counts = [most] * (pieces - 1) + [layers - most * (pieces - 1)]
    if counts[-1] < most / 2:
        counts = [layers // pieces + (number < layers % pieces) for number in range(pieces)]
    return "|".join(
        "E" * (number == 0) + (f"t*{count}" if count > 3 else "t" * count) + "L" * (number == pieces - 1)
        for number, count in enumerate(counts)
    )


def recording(recipe: "Recipe", machine: Machine, our_script: bool) -> Iterator[Problem]:
    """What keeps a schedule from being recorded."""
    if not recipe.logging.record_schedule:
        return
    if recipe.speed.cuda_graph and machine.device == "cuda":
        why = "A recorded step is launched as one: no forward or backward of it can be told from the next."
        yield error("record_schedule with cuda_graph", why, "cuda_graph=False.")
    if not our_script:
        why = "Our entry script records it, and another one is asked for."
        yield error("record_schedule with entry_script", why, "entry_script=None, or record_schedule=False.")

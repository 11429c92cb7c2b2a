"""On GPUs that CI does not have, preflight lets through whatever the notebooks start, and Megatron knows its flags.

The cells run, but nothing is trained: a start is checked as `launch.train` checks it, and a recorded run is handed on.
That a GPU then trains it can only be seen on one.
"""

import ast

import matplotlib.pyplot as plt
import megatron_parser
import pytest
from machines import H200, RTX_2080, RTX_3090
from notebook_pages import NOTEBOOKS, code_cells

from helpers import cluster, corpus, launch, machine, runs
from helpers.lessons import experiments
from helpers.machine import cuda_libraries, hardware, here
from helpers.recipes import preflight

MACHINES = {  # GPUs, Transformer Engine
    "2 × H200": ((H200, H200), True),
    "H200": ((H200,), True),
    "2 × RTX 3090": ((RTX_3090, RTX_3090), True),
    "2 × RTX 3090 without Transformer Engine": ((RTX_3090, RTX_3090), False),
    "RTX 2080": ((RTX_2080,), True),
}


class NotHere(Exception):
    """What only a real run gives."""


@pytest.fixture
def started(monkeypatch, small_corpus):
    """The recipes that were let through, in order. Stock is refused in 03 on GPUs, where it has no weights to place."""
    monkeypatch.delenv("MEGATRON_TOUR_STOCK", raising=False)
    recipes = []

    def train(recipe, data, machine=None, **_):
        where = machine or here()
        assert (data is None) == (recipe.tokenizer == "gpt2"), f"{recipe.name} is handed another tokenizer's tokens"
        preflight.refuse(preflight.check(recipe.with_(pretrained=None), data, where))  # beside a record lie no weights
        assert {word for word in recipe.flags(data, where) if word.startswith("--")} <= megatron_parser.flags()
        recipes.append(recipe)
        return runs.recorded("h200", "gpt3_345m_300_bf16")

    def ranks(*_, **__):
        raise NotHere

    def prepare(*_, tokenizer="gpt2", **__):
        return None if tokenizer == "gpt2" else small_corpus

    monkeypatch.setattr(launch, "train", train)
    monkeypatch.setattr(launch, "ranks", ranks)
    monkeypatch.setattr(launch, "one_of_many", ranks)
    monkeypatch.setattr(launch, "replay_pipeline", ranks)
    monkeypatch.setattr(cluster, "two_hosts", ranks)
    monkeypatch.setattr(cluster, "OwnSlurm", ranks)
    monkeypatch.setattr(corpus, "prepare", prepare)
    monkeypatch.setattr(experiments, "pull_the_plug", lambda recipe, data, step: train(recipe, data))
    yield recipes
    machine.here.cache_clear()


def run(cell: str, names: dict, unborn: set[str]) -> None:
    """Every statement of it, and what hangs on the results of a real run left out: `unborn` are the names of those."""
    tree = ast.parse(cell)
    try:
        for statement in tree.body:
            exec(compile(ast.Module([statement], []), "cell", "exec"), names)
    except NotHere:
        pass
    except NameError as error:
        assert error.name in unborn
    except TypeError as error:
        assert "a recorded run" in str(error)  # where a page wants one that was trained here
    except (AttributeError, ValueError) as error:  # made-up tokens have no corpus, a recorded run has no log
        assert (
            "'NoneType' object" in str(error)
            or "'Recorded' object" in str(error)
            or "keeps its curves" in str(error)
            or "No CPU was measured yet" in str(error)
        )
    except FileNotFoundError as error:
        assert "gpt3_345m_300_bf16" in str(error)  # no checkpoint, W&B files or passes lie beside a recorded run
    unborn |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    unborn -= names.keys()
    plt.close("all")


# 09 starts nothing, 10 what others have trained
STARTS = [page for page in NOTEBOOKS[2:] if page.stem[:2] not in ("09", "10")]


@pytest.mark.parametrize("gpus", MACHINES)
@pytest.mark.parametrize("notebook", STARTS, ids=lambda path: path.stem)
def test_what_a_notebook_starts_passes_preflight(notebook, gpus, started, monkeypatch):
    visible, transformer_engine = MACHINES[gpus]
    monkeypatch.setattr(hardware, "visible_gpus", lambda: visible)
    monkeypatch.setattr(cuda_libraries, "transformer_engine_installed", lambda: transformer_engine)
    monkeypatch.delenv("MEGATRON_CPU", raising=False)
    monkeypatch.chdir(notebook.parent)
    names, unborn = {}, set()
    machine.here.cache_clear()
    for cell in code_cells(notebook):
        run(cell.source, names, unborn)
    assert len(started) >= {"02": 4, "03": 4, "04": 1, "05": 2, "06": 6, "11": 1}[notebook.stem[:2]]

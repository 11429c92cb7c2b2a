"""How weights on disk are loaded by another machine than the one that wrote them."""

from dataclasses import replace

import checkpoint_files
import pytest
from machines import TWO_H200
from records import make_run

from helpers import formats, recipes, weights
from helpers.machine import CPU
from helpers.processes import checkpoints, trust
from helpers.recipes import Layout, preflight
from helpers.weights import checkpoint
from helpers.weights.checkpoint import Checkpoint

STRICTNESS = ["--dist-ckpt-strictness", "log_unexpected"]


def test_transformer_engine_loads_weights_that_were_written_without_it(tmp_path):
    """On two H200s a published model, converted on the CPU, failed with "Missing key in checkpoint state_dict:
    decoder.final_layernorm._extra_state"."""
    recipe = recipes.gpt3_345m().with_(pretrained=tmp_path)
    bare = replace(TWO_H200, transformer_engine=False)
    saved = Checkpoint(recipe, tmp_path, 0, None)
    for flags in (lambda machine: recipe.flags(None, machine), lambda machine: saved.flags(Layout(), machine)):
        words = flags(TWO_H200)
        assert words[words.index(STRICTNESS[0]) :][:2] == STRICTNESS
        assert STRICTNESS[0] not in flags(CPU)
        assert STRICTNESS[0] not in flags(bare)
    assert STRICTNESS[0] not in recipe.with_(pretrained=None).flags(None, TWO_H200)


@pytest.mark.parametrize(("held", "told"), [("banana", "'banana'"), ("", "'nothing'")])
def test_a_spoilt_name_of_the_newest_step_is_told(tmp_path, held, told):
    """Megatron ends without a word there, and a text of no token came back."""
    run = make_run(tmp_path / "run")
    checkpoint_files.write(run.path / "checkpoints", 10)
    (run.path / "checkpoints" / checkpoints.TRACKER).write_text(held)
    with pytest.raises(weights.WeightsError, match=f"{checkpoints.TRACKER} holds {told}.* Write 10 into it"):
        weights.generate(run, "hi", tokens=2)


CUT, GARBLED = "__1_0.distcp has 500 of 1,000 bytes", "__1_0.distcp holds other bytes than were written to it"
SPOIL = {
    CUT: checkpoint_files.cut_in_half,
    GARBLED: lambda shard: checkpoint_files.garble(shard, bytes(64), 0.1),
}


@pytest.fixture
def run(tmp_path):
    made = make_run(tmp_path / "run")
    for step in (10, 20, 30):
        checkpoint_files.write(made.path / "checkpoints", step)
    trust.trust(made.path)
    return made


def spoil(run, step: int, why: str) -> None:
    SPOIL[why](checkpoints.path_of(run.path / "checkpoints", step) / "__1_0.distcp")


@pytest.mark.parametrize("why", SPOIL)
def test_a_damaged_newest_checkpoint_is_told_where_the_one_before_is_taken(run, why, capsys):
    """The text of step 20 came back as if it were that of the newest."""
    assert checkpoint.of(run).step == 30 and capsys.readouterr().out == ""
    spoil(run, 30, why)
    assert checkpoint.of(run).step == 20
    told = f"The checkpoint of step 30 is damaged: {why}. Step 20 is taken, the newest that is whole.\n"
    assert capsys.readouterr().out == told
    spoil(run, 20, why)
    assert checkpoint.of(run).step == 10 and capsys.readouterr().out.count("is damaged") == 2


@pytest.mark.parametrize("why", SPOIL)
def test_a_damaged_checkpoint_that_is_asked_for_is_not_told_as_missing(run, why, capsys):
    spoil(run, 20, why)
    assert checkpoint.of(run).step == 30 and checkpoint.of(run, 10).step == 10 and capsys.readouterr().out == ""
    with pytest.raises(weights.WeightsError) as refused:
        checkpoint.of(run, 20)
    assert str(refused.value) == f"step=20: the checkpoint of step 20 is damaged: {why}. There are: 10, 30."
    with pytest.raises(weights.WeightsError, match="step=21: .* has no checkpoint of that step. There are: 10,"):
        checkpoint.of(run, 21)


def test_without_a_whole_checkpoint_the_damage_is_told(run):
    for step in (10, 20, 30):
        spoil(run, step, CUT)
    for ask, error in ((checkpoint.of, weights.WeightsError), (formats.of_run, FileNotFoundError)):
        with pytest.raises(error, match=f"The checkpoint of step 10 is damaged: {CUT}. .*of step 30"):
            ask(run)


def test_training_that_is_to_begin_with_a_damaged_checkpoint_is_told_what_is_wrong(run):
    spoil(run, 30, CUT)
    (problem,) = preflight.directory.pretrained(run.recipe.with_(pretrained=run.path))
    assert f"The checkpoint of step 30 is damaged: {CUT}." in str(problem)


@pytest.mark.parametrize(("layout", "threads"), [(Layout(), "8"), (Layout(pipeline_parallel=3), "2")])
def test_ranks_that_only_read_share_all_cores_out(monkeypatch, layout, threads):
    """On two cores SmolLM2 was judged by one of them."""
    told = []
    monkeypatch.setattr(checkpoint.programs, "ranks", lambda *words, **options: told.append(options["variables"]))
    checkpoint.ranks("generate", layout, machine=replace(CPU, cpu_count=8), recipe=recipes.gpt3_345m().scaled_to("cpu"))
    checkpoint.ranks("generate", layout, machine=TWO_H200, recipe=recipes.gpt3_345m())
    assert told[0]["OMP_NUM_THREADS"][0] == threads and "OMP_NUM_THREADS" not in told[1]

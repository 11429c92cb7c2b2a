"""How weights on disk are loaded by another machine than the one that wrote them."""

from dataclasses import replace

import checkpoint_files
import pytest
from machines import TWO_H200
from records import make_run

from helpers import recipes, weights
from helpers.machine import CPU
from helpers.processes import checkpoints
from helpers.recipes import Layout
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

"""What a rank starts anew has the device as well: checkpoints written by another process, for somebody's own script."""

import pytest
import real_runs
from real_runs import STEPS, train, words

SOMEBODY_ELSES = """
import torch
placed = torch.zeros(1, device="cuda")  # at the top: the process that writes checkpoints imports this script too
from helpers.ranks import pretrain_gpt
if __name__ == "__main__":
    pretrain_gpt.main()
"""


@pytest.mark.train
def test_checkpoints_written_beside_the_training(tmp_path):
    """Megatron's persistent writer asks its device for its number; a writer without one dies, and the rank waits."""
    real_runs.write_corpus(tmp_path)
    (tmp_path / "script.py").write_text(SOMEBODY_ELSES)
    script = ("-m", "helpers.ranks.cpu.device", str(tmp_path / "script.py"))
    flags = words("--num-layers 2 --async-save --use-persistent-ckpt-worker --async-strategy mcore --save-interval 6")
    losses = train(tmp_path, "beside", 1, *flags, "--save", str(tmp_path / "saved"), script=script)
    assert len(losses) == STEPS
    assert (tmp_path / "saved" / "latest_checkpointed_iteration.txt").read_text() == str(STEPS)

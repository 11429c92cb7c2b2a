"""What Megatron says of loading, held against what it was to load."""

import checkpoint_files
import pytest

from helpers.processes import checkpoints, loading

# Megatron 0.19.2 on one CPU rank; the folders are put in.
MISSING = """
WARNING: could not find the metadata file {folder}/latest_checkpointed_iteration.txt
    will not load any checkpoints and will start from random
"""
LOADED = """
 loading distributed checkpoint from {folder} at iteration {step}
  successfully loaded checkpoint from {folder} [ t 1/1, gtp_remat 1/1, p 1/1 ] at iteration {step}
"""


def test_a_new_run_finds_nothing_in_its_own_folder(tmp_path):
    assert loading.wrong_start(MISSING.format(folder=tmp_path), tmp_path, None) is None


def test_a_resume_that_finds_nothing_is_wrong(tmp_path):
    assert "started from random weights, where step 50 was to be loaded" in loading.wrong_start(
        MISSING.format(folder=tmp_path), tmp_path, 50
    )


@pytest.mark.parametrize("step", [None, 50])
def test_a_checkpoint_that_somebody_gave_must_be_found(tmp_path, step):
    words = loading.wrong_start("[rank 0] " + MISSING.strip().format(folder="/data/gpt"), tmp_path, step)
    assert "could not find the metadata file /data/gpt/latest_checkpointed_iteration.txt and started" in words


def test_the_step_that_was_loaded_is_the_one_to_go_on_after(tmp_path):
    assert loading.wrong_start(LOADED.format(folder=tmp_path, step=50), tmp_path, 50) is None
    assert loading.wrong_start(LOADED.format(folder="/data/gpt", step=0), tmp_path, None) is None
    words = loading.wrong_start(LOADED.format(folder="/data/gpt", step=7), tmp_path, 50)
    assert words == "Megatron loaded step 7 from /data/gpt, where step 50 of this run was to be loaded"


UNREADABLE = "PytorchStreamReader failed reading zip archive: unsupported multidisk archive"


def test_what_torch_cannot_open_is_set_aside_though_its_bytes_are_those_that_were_written(tmp_path):
    checkpoint_files.write(tmp_path, 40)
    checkpoint_files.write(tmp_path, 50)
    assert loading.set_aside(f"[rank0]: RuntimeError: {UNREADABLE}. This is", tmp_path, 50) == [
        f"the checkpoint of step 50 is damaged: torch cannot read it ({UNREADABLE}). "
        "It is set aside as damaged_iter_0000050",
        "the last whole checkpoint is that of step 40",
    ]


@pytest.mark.parametrize(
    "log", ["ValueError: Global shape mismatch", LOADED.format(folder="x", step=50) + f"RuntimeError: {UNREADABLE}"]
)
def test_a_whole_checkpoint_is_not_blamed_for_a_changed_model_or_another_archive(tmp_path, log):
    checkpoint_files.write(tmp_path, 50)
    assert loading.set_aside(log, tmp_path, 50) == [] and checkpoints.saved(tmp_path) == [50]


@pytest.mark.train
def test_the_words_are_megatrons(tiny_run):
    log = (tiny_run.path / "log.txt").read_text()
    own = tiny_run.path / "checkpoints"
    assert loading.MISSING.findall(log) == [str(own / "latest_checkpointed_iteration.txt")]
    assert loading.wrong_start(log, own, None) is None and "where step 10 was" in loading.wrong_start(log, own, 10)

"""A run killed at any moment goes on as if nothing had happened; a full disk costs one checkpoint, not the run."""

import contextlib
import os
import pickle
import random
import shutil
import subprocess
import threading
from pathlib import Path

import checkpoint_files
import psutil
import pytest
import tiny_ranks
import torch
from patience import wait_for

from helpers import launch, runs
from helpers.machine import CPU
from helpers.processes import checkpoints, control, damage, logs, programs

STEPS = 60


def test_an_unfinished_checkpoint_is_removed_and_the_whole_one_stays(tmp_path):
    checkpoint_files.write(tmp_path, 10)
    checkpoint_files.write(tmp_path, 20, whole=False)
    assert checkpoints.repair(tmp_path) == ["removed the unfinished checkpoint of step 20"]
    assert checkpoints.latest(tmp_path) == 10 and checkpoints.saved(tmp_path) == [10]
    assert checkpoints.repair(tmp_path) == []


@pytest.mark.parametrize("tracker", ["", "30"])
def test_a_tracker_cut_off_by_a_kill_points_to_the_newest_whole_checkpoint(tmp_path, tracker):
    """Megatron empties the file before it writes it; with an empty one it ends without a word."""
    checkpoint_files.write(tmp_path, 10)
    checkpoint_files.write(tmp_path, 20)
    (tmp_path / checkpoints.TRACKER).write_text(tracker)
    checkpoints.repair(tmp_path)
    assert checkpoints.latest(tmp_path) == 20


def test_without_a_tracker_the_newest_whole_checkpoint_is_taken_and_not_step_1(tmp_path):
    checkpoint_files.write(tmp_path, 10)
    (tmp_path / checkpoints.TRACKER).unlink()
    assert checkpoints.repair(tmp_path) == ["the last whole checkpoint is that of step 10"]
    assert checkpoints.latest(tmp_path) == 10


def test_without_a_whole_checkpoint_the_run_starts_over(tmp_path):
    checkpoint_files.write(tmp_path, 10, whole=False)
    (tmp_path / checkpoints.TRACKER).write_text("")
    checkpoints.repair(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_copy_that_the_learner_made_beside_a_checkpoint_is_left_alone(tmp_path):
    whole = checkpoint_files.write(tmp_path, 40)
    shutil.copytree(whole, tmp_path / "iter_0000040_mine")
    (tmp_path / "iter_old").mkdir()
    assert checkpoints.saved(tmp_path) == [40] and checkpoints.repair(tmp_path) == []
    assert (tmp_path / "iter_0000040_mine" / "metadata.json").exists() and (tmp_path / "iter_old").is_dir()


def test_a_checkpoint_cut_in_half_is_named_and_the_one_before_is_taken(tmp_path):
    checkpoint_files.write(tmp_path, 40)
    damaged = checkpoint_files.write(tmp_path, 50)
    checkpoint_files.cut_in_half(damaged / "__1_0.distcp")
    assert checkpoints.saved(tmp_path) == [40]
    assert checkpoints.repair(tmp_path) == [
        "the checkpoint of step 50 is damaged: __1_0.distcp has 500 of 1,000 bytes. "
        "It is set aside as damaged_iter_0000050",
        "the last whole checkpoint is that of step 40",
    ]
    assert checkpoints.latest(tmp_path) == 40 and (tmp_path / "damaged_iter_0000050").is_dir()


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda path: (path / "__0_0.distcp").unlink(), "__0_0.distcp is missing"),
        (lambda path: (path / ".metadata").unlink(), ".metadata, the list of what lies where, is missing"),
        (lambda path: checkpoint_files.cut_in_half(path / ".metadata"), "cannot be read"),
        (lambda path: (path / "metadata.json").write_text("{}"), "metadata.json cannot be read"),
        (lambda path: (path / "metadata.json").unlink(), "never finished"),
    ],
)
def test_damage_is_told_in_words(tmp_path, break_it, words):
    path = checkpoint_files.write(tmp_path, 10)
    assert damage.of(path) is None
    break_it(path)
    assert words in damage.of(path)


def test_a_checkpoint_that_torch_wrote_by_itself_is_kept(tmp_path):
    """--ckpt-format torch_dcp and fsdp_dtensor have no metadata.json: they passed for unfinished, and were removed."""
    path = checkpoint_files.write(tmp_path, 10, torchs=True)
    assert checkpoints.repair(tmp_path) == [] and checkpoints.saved(tmp_path) == [10]
    checkpoint_files.cut_in_half(path / "__1_0.distcp")
    assert damage.of(path) == "__1_0.distcp has 500 of 1,000 bytes"
    (path / ".metadata").unlink()
    assert damage.of(path) == "it was never finished"


def test_a_foreign_common_pt_is_damage_and_the_one_before_is_taken(tmp_path):
    """Megatron read it in the place of its own state, and every start ended in "holds Python objects"."""
    checkpoint_files.write(tmp_path, 10)
    torch.save(tmp_path, checkpoint_files.write(tmp_path, 20) / "common.pt")
    step, wrong = checkpoints.loaded_next(tmp_path)
    assert step == 10 and "common.pt was not written with it" in checkpoints.passed_over(step, wrong)
    assert checkpoints.repair(tmp_path)[0].endswith("It is set aside as damaged_iter_0000020")
    assert checkpoints.latest(tmp_path) == 10


def test_a_common_pt_of_an_earlier_megatron_is_its_own(tmp_path):
    path = checkpoint_files.write(tmp_path, 10, common=False)
    torch.save({"iteration": 10}, path / "common.pt")
    assert damage.of(path) is None


def test_a_legacy_checkpoint_cut_in_half_is_damaged(tmp_path):
    file = tmp_path / "iter_0000010" / "mp_rank_00" / "model_optim_rng.pt"
    file.parent.mkdir(parents=True)
    torch.save({"weight": torch.zeros(8)}, file)
    assert checkpoints.saved(tmp_path) == [10]
    checkpoint_files.cut_in_half(file)
    assert damage.of(tmp_path / "iter_0000010") == "mp_rank_00/model_optim_rng.pt is cut off"


GARBLED = {
    "what it holds": (b"\0" * 64, 0.1),
    "the end of an archive": (os.urandom(40), 0.47),
    "the start of an archive": (b"\0" * 40, 0.5),
}


@pytest.mark.parametrize(("what", "at"), GARBLED.values(), ids=GARBLED)
def test_a_garbled_shard_is_named_and_the_one_before_is_taken(tmp_path, what, at):
    checkpoint_files.write(tmp_path, 40)
    checkpoint_files.garble(checkpoint_files.write(tmp_path, 50) / "__1_0.distcp", what, at)
    assert checkpoints.saved(tmp_path) == [40, 50], "their lengths tell nothing"
    assert checkpoints.repair(tmp_path) == [
        "the checkpoint of step 50 is damaged: __1_0.distcp holds other bytes than were written to it. "
        "It is set aside as damaged_iter_0000050",
        "the last whole checkpoint is that of step 40",
    ]
    assert checkpoints.latest(tmp_path) == 40 and checkpoints.repair(tmp_path) == []


def test_without_time_to_read_all_the_frames_are_looked_at(tmp_path):
    shard = checkpoint_files.write(tmp_path, 10) / "__0_0.distcp"
    checkpoint_files.garble(shard, b"\0" * 64, 0.1)
    assert damage.inside(shard.parent, 0) is None and "other bytes" in damage.inside(shard.parent, 60)
    checkpoint_files.garble(shard, b"\0" * 20, 0.48)
    assert "other bytes" in damage.inside(shard.parent, 0)


def test_a_launch_that_cannot_load_a_garbled_checkpoint_sets_it_aside_and_says_so(tmp_path):
    """torch may raise whatever it likes over it: the files are asked."""
    folder = tmp_path / "checkpoints"
    checkpoint_files.write(folder, 40)
    checkpoint_files.garble(checkpoint_files.write(folder, 50) / "__0_0.distcp", b"garbled")
    tiny_ranks.write_run(tmp_path, "raise ModuleNotFoundError(\"No module named 'collect_ons'\")", 1)
    with contextlib.closing(tiny_ranks.start(tmp_path, 1)):
        status = tiny_ranks.end_of(tmp_path)
    assert "the checkpoint of step 50 is damaged: __0_0.distcp holds other bytes" in status["reason"]
    assert checkpoints.saved(folder) == [40] and checkpoints.latest(folder) == 40
    with pytest.raises(programs.TrainingFailed) as failed:
        programs.raise_if_failed(tmp_path, "it")
    assert "step 50 is damaged" in failed.value.cause and "damaged_iter_0000050" in failed.value.fix
    assert str(failed.value).endswith("Starting the same cell again picks the run up after step 40.")


class RunsCode:
    def __init__(self, there: Path):
        self.there = there

    def __reduce__(self):
        return Path.touch, (self.there,)


def test_nothing_that_lies_in_a_checkpoint_runs(tmp_path):
    path = checkpoint_files.write(tmp_path, 10)
    (path / ".metadata").write_bytes(pickle.dumps(RunsCode(tmp_path / "it ran")))
    assert "cannot be read" in damage.of(path) and not (tmp_path / "it ran").exists()
    pickle.loads((path / ".metadata").read_bytes())
    assert (tmp_path / "it ran").exists(), "the test's own pickle must be a dangerous one"


@pytest.mark.train
def test_the_files_of_a_real_checkpoint_are_whole(tiny_run, tmp_path):
    assert len(checkpoints.saved(tiny_run.path / "checkpoints")) == 2
    (shard, *_) = (tiny_run.path / "checkpoints" / "iter_0000030").glob("*.distcp")
    needed = damage._needed_bytes(shard.with_name(".metadata"))
    assert needed == {shard.name: shard.stat().st_size}
    assert damage.inside(shard.parent, 60) is None
    copy = shutil.copytree(shard.parent, tmp_path / "copy")
    checkpoint_files.garble(copy / shard.name, b"\0" * 4096)
    assert damage.inside(copy, 60) == f"{shard.name} holds other bytes than were written to it"


def test_a_checkpoint_that_came_to_the_limit_on_files_is_told(tmp_path, file_size_limit):
    checkpoint_files.write(tmp_path, 10)
    half = checkpoint_files.write(tmp_path, 20, whole=False)
    assert checkpoints.no_room(tmp_path) is None
    file_size_limit(1001)
    assert checkpoints.no_room(tmp_path) is None
    file_size_limit(1000)
    with pytest.raises(OSError, match="File too large"):
        (half / "__2_0.distcp").write_bytes(b"x" * 1001)
    assert checkpoints.no_room(tmp_path) == "File too large: one came to the limit of 1,000 bytes that `ulimit -f` sets"
    checkpoints.repair(tmp_path)
    assert checkpoints.saved(tmp_path) == [10] and checkpoints.no_room(tmp_path) is None


def test_a_full_disk_is_told_without_a_half_written_checkpoint_too(tmp_path, monkeypatch):
    """On a disk that was full before, Megatron writes not even the folder."""
    assert checkpoints.no_room(tmp_path) is None and checkpoints.no_room(tmp_path / "nowhere") is None
    monkeypatch.setattr(checkpoints, "FULL_DISK_BYTES", 2**60)
    assert checkpoints.no_room(tmp_path).startswith("No space left on device")


@pytest.mark.parametrize(("keep", "left"), [(1, [40]), (2, [30, 40]), (9, [10, 20, 30, 40])])
def test_old_checkpoints_go_and_the_current_one_stays(tmp_path, keep, left):
    for iteration in (10, 20, 30, 40):
        checkpoint_files.write(tmp_path, iteration)
    checkpoint_files.write(tmp_path, 50, whole=False)  # being written
    checkpoints.prune(tmp_path, keep)
    assert checkpoints.saved(tmp_path) == left
    assert checkpoints.path_of(tmp_path, 50).exists()


def test_the_tracker_decides_what_is_current(tmp_path):
    """A whole checkpoint whose number is not yet in the tracker does not count against the older ones."""
    for iteration in (10, 20):
        checkpoint_files.write(tmp_path, iteration)
    (tmp_path / checkpoints.TRACKER).write_text("10")
    assert checkpoints.prune(tmp_path, keep=1) == []


def kill_at(root: Path, step: int) -> threading.Thread:
    """SIGKILL for the supervisor, torchrun and every rank, all at once, as soon as that step is taken."""

    def kill() -> bool:
        for path in root.glob("*/*/ranks/*/*/attempt_0/0/stdout.log"):
            taken = [found.step for line in path.read_text().splitlines() if (found := logs.parse_step(line))]
            if taken and taken[-1] >= step and (members := control.members(path.parents[5])):
                for process in members:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
                return True
        return False

    thread = threading.Thread(target=wait_for, args=(kill, f"step {step}"), kwargs={"pause": 0.005}, daemon=True)
    thread.start()
    return thread


@pytest.mark.train
def test_three_kills_leave_no_trace_in_the_losses(tiny_recipe, small_corpus, tmp_path, capsys):
    """fp32 on the CPU: the losses of the run that was killed three times equal the other's to the last bit."""
    recipe = tiny_recipe.with_(train_iters=STEPS, eval_interval=1000, save_interval=4)
    untouched = launch.train(recipe, small_corpus, runs_dir=tmp_path / "untouched", machine=CPU)

    seed = int(os.environ.get("KILL_SEED", "20260101"))
    points = sorted(random.Random(seed).sample(range(2, STEPS - 2), 3))
    for point in points:
        killer = kill_at(tmp_path / "killed", point)
        with pytest.raises(launch.TrainingFailed):
            launch.train(recipe, small_corpus, runs_dir=tmp_path / "killed", machine=CPU)
        killer.join()
    killed = launch.train(recipe, small_corpus, runs_dir=tmp_path / "killed", machine=CPU)

    assert len(list((tmp_path / "killed" / recipe.name).iterdir())) == 1, "every launch took the same directory up"
    assert (killed.path / "log.txt").read_text().count(logs.LAUNCH_MARK) == 4
    assert list(killed.losses.index) == list(range(1, STEPS + 1))
    assert killed.losses.to_dict() == untouched.losses.to_dict(), f"seed {seed}, killed at {points}"
    assert "Picking up the unfinished run" in capsys.readouterr().out


@pytest.mark.train
def test_a_run_whose_last_checkpoint_is_cut_in_half_goes_on_from_the_one_before(
    tiny_run, tiny_recipe, small_corpus, tmp_path, capsys
):
    copy = tmp_path / "tiny" / tiny_run.path.name
    shutil.copytree(tiny_run.path, copy)
    control.write_status(copy, state="failed")
    checkpoint_files.cut_in_half(copy / "checkpoints" / "iter_0000030" / "__0_0.distcp")
    runs.trust(copy)
    run = launch.train(tiny_recipe.with_(save_interval=10), small_corpus, runs_dir=tmp_path, machine=CPU)
    out = capsys.readouterr().out
    assert f"Picking up the unfinished run {copy} after step 20." in out
    assert "the checkpoint of step 30 is damaged: __0_0.distcp has " in out
    assert run.path == copy and run.state == "finished"
    assert run.losses.to_dict() == tiny_run.losses.to_dict()


@pytest.mark.train
def test_command_sh_by_hand_mends_a_half_written_index_cache(tiny_recipe, small_corpus, tmp_path):
    """Megatron only looks whether the cached files are there; every further start would fail."""
    recipe = tiny_recipe.with_(train_iters=6, lr_warmup_iters=0)
    run = launch.train(recipe, small_corpus, runs_dir=tmp_path, machine=CPU)
    (cached,) = (run.path / "index_cache").glob("*-train-shuffle_index.npy")
    content = cached.read_bytes()
    cached.write_bytes(content[: len(content) // 2])
    again = subprocess.run(["bash", run.path / "command.sh"], capture_output=True, text=True)
    assert again.returncode == 0, again.stdout[-2000:] + again.stderr[-2000:]
    assert losses(again.stdout) == losses((run.path / "log.txt").read_text())
    assert cached.read_bytes() == content


def losses(log: str) -> dict[int, float]:
    return {step.step: step.loss for line in log.splitlines() if (step := logs.parse_step(line))}


@contextlib.contextmanager
def small_disk(directory: Path, megabytes: int):
    """A disk of its own for `directory`; skips where this user may not mount one."""
    directory.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(directory)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small disk takes root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


@pytest.mark.train
def test_a_full_disk_is_named_and_the_previous_checkpoint_loads(tiny_recipe, small_corpus, tmp_path):
    """Somebody else fills the disk between two checkpoints; after making room the same cell goes on."""
    recipe = tiny_recipe.with_(train_iters=400, save_interval=20, num_layers=4, hidden_size=128, keep=1)
    disk = tmp_path / "disk"
    with small_disk(disk, 60):

        def fill():
            found = wait_for(lambda: [p for p in disk.glob("*/*/checkpoints") if checkpoints.latest(p)], pause=0.02)
            free = shutil.disk_usage(found[0]).free
            (disk / "somebody-elses").write_bytes(b"x" * (free - 3 * 2**20))

        threading.Thread(target=fill, daemon=True).start()
        with pytest.raises(launch.TrainingFailed) as failed:
            launch.train(recipe, small_corpus, runs_dir=disk, machine=CPU)
        message = str(failed.value)
        assert "No space left on device" in message and failed.value.cause and "disk" in failed.value.cause.lower()
        directory = failed.value.run_directory
        step = checkpoints.latest(directory / "checkpoints")
        assert step and f"after step {step}" in message
        assert checkpoints.saved(directory / "checkpoints") == [step]

        (disk / "somebody-elses").unlink()
        run = launch.train(recipe.with_(exit_interval=step + 20), small_corpus, runs_dir=disk, machine=CPU)
        assert run.path == directory.resolve() and run.state == "finished"
        assert f"successfully loaded checkpoint from {directory}/checkpoints" in (directory / "log.txt").read_text()
        assert runs.load(directory).losses.index[-1] == step + 20

"""The life and death of a run's processes: real torchrun, ranks that are ten lines long."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import types
from pathlib import Path

import checkpoint_files
import psutil
import pytest
import tiny_ranks
from patience import HANG_SECONDS, wait_for
from tiny_ranks import STEP_LINE, all_ranks, end_of, listening, log_of, nobody_lives, start, write_run

from helpers.processes import control, hang, logs, programs, run_directory
from helpers.processes import supervisor as supervising


@pytest.fixture
def run(tmp_path):
    """Start runs by (script, count, options); whatever a test leaves is ended."""
    started = []

    def go(script: str, count: int = 2, **options):
        directory = write_run(tmp_path / f"run{len(started)}", script, count)
        started.append((directory, start(directory, count, **options)))
        return started[-1]

    yield go
    for directory, supervisor in started:
        supervisor.close()
        control.stop(directory)
        supervisor.process.wait(HANG_SECONDS)


def test_a_run_that_ends_well_is_finished_and_its_log_is_whole(run):
    directory, _ = run("for i in range(500): print('line', i)\nsys.stderr.write('no newline at the end')")
    status = end_of(directory)
    assert status["state"] == "finished" and status["exit_code"] == 0
    for rank in range(2):
        mine = [line for line in log_of(directory).splitlines() if line.startswith(f"[rank {rank}] ")]
        assert sum("] line " in line for line in mine) == 500
        assert f"[rank {rank}] no newline at the end" in mine


def test_one_rank_alone_has_no_prefix(run):
    directory, _ = run("print('alone')", 1)
    end_of(directory)
    assert "alone" in log_of(directory).splitlines()


def test_ranks_keep_what_they_compiled_for_the_next_start(run, monkeypatch):
    """Otherwise each start compiles torch and Megatron anew, which doubles its time."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    directory, _ = run("print('compiled code is written:', not sys.dont_write_bytecode)", 1)
    end_of(directory)
    assert "compiled code is written: True" in log_of(directory)


def test_ranks_of_one_machine_listen_on_no_network(run, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    script = "import torch, torch.distributed as dist\ndist.init_process_group('gloo')\n"
    directory, _ = run(script + "dist.all_reduce(torch.ones(1))\nsteps()")
    all_ranks(directory)
    heard_on = {where.laddr.ip for process in control.members(directory) for where in listening(process)}
    assert heard_on == {"127.0.0.1"}


def test_the_failing_rank_is_named_with_its_own_traceback(run):
    """The first rank falls over the second one's end: it is a victim and must not be blamed."""
    directory, _ = run(
        """
        import torch.distributed as dist
        dist.init_process_group("gloo")
        if rank == 1:
            time.sleep(0.2)
            raise ValueError("the learning rate is a duck")
        dist.barrier()
        """
    )
    status = end_of(directory)
    assert (status["state"], status["failing_rank"]) == ("failed", 1)
    assert status["traceback"].startswith("Traceback") and "the learning rate is a duck" in status["traceback"]
    assert "barrier" not in status["traceback"]


def test_the_rank_that_could_not_read_is_named_not_the_one_that_heard_of_it(tmp_path):
    """torch raises a CheckpointException on every rank, with the traceback of those that failed."""
    heard = (
        "CheckpointException ranks:dict_keys([0])\nTraceback (most recent call last): (RANK 0)\n  read_data\nEOFError"
    )
    for rank, second in ((0, 1700000001), (1, 1700000000)):
        folder = tmp_path / "torchrun" / "attempt_0" / str(rank)
        folder.mkdir(parents=True)
        error = {"message": {"extraInfo": {"py_callstack": heard, "timestamp": str(second)}}}
        (folder / "error.json").write_text(json.dumps(error))
    failure = logs.find_failure(logs.RankLogs(tmp_path, tmp_path / "log.txt", 2), "", 1)
    assert failure.rank == 0


def test_a_rank_that_torchrun_ended_while_it_was_falling_is_named_not_the_one_that_lost_it(tmp_path):
    """It takes a moment to end after its exception; the other one, which lost it, is faster."""
    for rank, stack in ((0, "OSError: [Errno 28] No space left"), (1, "RuntimeError: Connection closed by peer")):
        folder = tmp_path / "torchrun" / "attempt_0" / str(rank)
        folder.mkdir(parents=True)
        error = {"message": {"extraInfo": {"py_callstack": stack, "timestamp": str(1700000000 - rank)}}}
        (folder / "error.json").write_text(json.dumps(error))
    summary = "Sending process 70 closing signal SIGTERM\n"
    summary += "".join(f" rank      : {r} (local_rank: {r})\n exitcode  : 1 (pid: 7{r})\n" for r in (1, 0))
    failure = logs.find_failure(logs.RankLogs(tmp_path, tmp_path / "log.txt", 2), summary, 1)
    assert failure.rank == 0 and "No space left" in failure.traceback and failure.reason == "ended with exit code 1"


def test_the_first_rank_to_fail_is_named_though_its_nodes_clock_is_ahead(tmp_path):
    for node, second in ((0, 1700000007), (1, 1700000600)):
        folder = tmp_path / f"node{node}" / "torchrun" / "attempt_0" / "0"
        folder.mkdir(parents=True)
        error = {"message": {"extraInfo": {"py_callstack": f"ValueError: {node}", "timestamp": str(second)}}}
        (folder / "error.json").write_text(json.dumps(error))
    rank_logs = logs.RankLogs(tmp_path, tmp_path / "log.txt", 2, 1)
    assert logs.find_failure(rank_logs, "", 1).rank == 0
    rank_logs.ahead[1] = 598.0
    assert logs.find_failure(rank_logs, "", 1).rank == 1


def test_a_torchrun_that_was_ended_by_a_signal_is_told_so(tmp_path):
    """It catches SIGTERM and ends with exit code 1: the status told of that, and the cell of the signal."""
    name = "torch.distributed.elastic.multiprocessing.api.SignalException"
    failure = logs.find_failure(
        logs.RankLogs(tmp_path, tmp_path / "log.txt", 2), f"{name}: Process 14588 got signal: 15", 1
    )
    assert (failure.rank, failure.reason) == (None, "torchrun was killed by SIGTERM")


def test_a_killed_rank_is_named(run):
    directory, _ = run(
        "import torch.distributed as dist\ndist.init_process_group('gloo')\nsteps(20)\ndist.barrier()\nsteps()"
    )
    ranks = all_ranks(directory)
    ranks[1].kill()
    status = end_of(directory)
    assert (status["state"], status["failing_rank"]) == ("failed", 1)
    assert "SIGKILL" in status["reason"]
    assert nobody_lives(directory, [p.pid for p in ranks])


def test_stop_ends_every_process(run):
    directory, _ = run(
        """
        Path = __import__("pathlib").Path
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(Path(f"{__file__}.{rank}").touch()))
        steps()
        """
    )
    pids = [p.pid for p in control.members(directory)] + [p.pid for p in all_ranks(directory)]
    assert control.stop(directory) == "stopped"
    assert nobody_lives(directory, pids)
    assert len(list(directory.glob("rank.py.*"))) == 2, "each rank was asked, and ended by itself"
    assert control.stop(directory) == "stopped"  # a second time changes nothing


def test_ranks_that_ignore_sigterm_are_killed_in_time(run):
    directory, _ = run("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nsteps()")
    ranks = all_ranks(directory)
    assert control.stop(directory) == "stopped"
    assert nobody_lives(directory, [p.pid for p in ranks])


def test_ranks_that_ignore_sigterm_when_another_one_dies(run):
    directory, _ = run("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nsteps()")
    ranks = all_ranks(directory)
    ranks[0].kill()
    status = end_of(directory)
    assert status["failing_rank"] == 0 and "SIGKILL" in status["reason"]
    assert nobody_lives(directory, [p.pid for p in ranks])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_supervisor_stops_the_run(run, number):
    directory, supervisor = run("steps()")
    ranks = all_ranks(directory)
    supervisor.process.send_signal(number)
    status = end_of(directory)
    assert status["state"] == "stopped" and number.name in status["reason"]
    assert nobody_lives(directory, [p.pid for p in ranks])


def test_nothing_outlives_a_killed_supervisor(run):
    directory, supervisor = run("steps()")
    ranks = all_ranks(directory)
    supervisor.process.kill()
    supervisor.process.wait()
    assert nobody_lives(directory, [p.pid for p in ranks])
    assert control.state(directory) == "failed"
    died = time.time()
    time.sleep(0.1)
    control.bury(directory)
    status = control.read_status(directory)
    assert status["started"] < status["ended"] <= died  # when it last wrote something, not when somebody came to look
    assert status["wall_seconds"] == pytest.approx(status["ended"] - status["started"])
    last = [step.step for line in log_of(directory).splitlines() if (step := logs.parse_step(line))]
    written = max(path.read_text().count("consumed") for path in (directory / "ranks/1").rglob("stdout.log"))
    assert max(last) == written  # what was not yet merged when the supervisor died came in afterwards
    checkpoint_files.write(directory / "checkpoints", 50)
    with pytest.raises(programs.TrainingFailed) as failed:
        programs.raise_if_failed(directory, "it")
    assert "was killed without warning" in failed.value.cause and "Start the same cell again" in failed.value.fix
    assert str(failed.value).endswith("Starting the same cell again picks the run up after step 50.")


def test_no_run_lasts_less_than_nothing_where_a_file_server_has_another_clock(tmp_path):
    said = tmp_path / "ranks" / "1" / "x" / "attempt_0" / "0" / "stdout.log"
    said.parent.mkdir(parents=True)
    said.write_text("a line\n")
    control.write_status(tmp_path, state="running", launch=1, started=time.time() + 600)
    control.bury(tmp_path)
    assert control.read_status(tmp_path)["wall_seconds"] == 0


def test_a_run_that_somebody_has_started_anew_is_not_buried(tmp_path):
    marked = os.environ | {control.MARK: str(tmp_path)}
    with control.held(tmp_path), subprocess.Popen(["sleep", "3600"], env=marked) as member:
        wait_for(lambda: control.members(tmp_path))
        control.bury(tmp_path)
        assert member.poll() is None
        member.kill()


def test_a_killed_supervisor_and_torchrun_leave_what_stop_finds(run):
    directory, supervisor = run("steps()")
    ranks = all_ranks(directory)
    torchrun = psutil.Process(control.read_status(directory)["torchrun_pid"])
    supervisor.process.send_signal(signal.SIGSTOP)  # so that it cannot clean up
    torchrun.kill()
    supervisor.process.kill()
    supervisor.process.wait()
    assert control.stop(directory) == "failed"
    assert nobody_lives(directory, [p.pid for p in ranks])


def test_a_supervisor_that_is_stopped_is_told_and_ends_when_it_is_asked_to(run):
    directory, supervisor = run("signal.signal(signal.SIGTERM, lambda *_: (print('goodbye'), sys.exit(1)))\nsteps()")
    ranks = all_ranks(directory)
    assert not control.suspended(directory) and control.standstill(directory) is None
    for rank in ranks:
        rank.send_signal(signal.SIGSTOP)
    told = wait_for(lambda: control.standstill(directory), "words on the ranks' stop")
    assert told.startswith(f"rank 0 (process {ranks[0].pid}), rank 1 (process {ranks[1].pid}): stopped by SIGSTOP")
    for process in [psutil.Process(control.read_status(directory)["torchrun_pid"]), supervisor.process]:
        process.send_signal(signal.SIGSTOP)
    wait_for(lambda: control.suspended(directory), "the supervisor's stop")
    assert control.state(directory) == "running"
    assert control.stop(directory) == "stopped", "it was woken and ended the run itself"
    assert log_of(directory).count("goodbye") == 2, "the stopped ranks were woken, too, and heard of it"
    assert nobody_lives(directory, [p.pid for p in ranks])


@pytest.mark.parametrize(
    ("state", "reason", "logged"),
    [("stopped", "asked to by SIGTERM", "=== stopped: asked to by SIGTERM ===\n"), ("finished", None, "")],
)
def test_the_log_and_the_status_say_the_same_of_the_end(tmp_path, state, reason, logged):
    """Of a run that ended while its supervisor was stopped by a signal the log said that it was stopped, too."""
    control.write_status(tmp_path, state="running", launch=1, started=time.time())
    options = supervising.parser().parse_args(["--run-directory", str(tmp_path), "--processes", "1"])
    options.detached = True
    run = supervising.Run(options)
    run.torchrun, run.stop_asked = types.SimpleNamespace(code=0), "asked to by SIGTERM"
    run._conclude(state, None)
    status = control.read_status(tmp_path)
    assert (status["state"], status["reason"], log_of(tmp_path)) == (state, reason, logged)


def test_a_killed_torchrun_leaves_no_rank(run):
    directory, _ = run("steps()")
    ranks = all_ranks(directory)
    psutil.Process(control.read_status(directory)["torchrun_pid"]).kill()
    status = end_of(directory)
    assert status["state"] == "failed" and "torchrun was killed by SIGKILL" in status["reason"]
    assert nobody_lives(directory, [p.pid for p in ranks])


HANG = """
import torch.distributed as dist
dist.init_process_group("gloo")

def the_loader_waits_for_a_file():
    while True:
        time.sleep(1)

steps(5)
if rank == 1:
    the_loader_waits_for_a_file()
dist.barrier()
"""


def test_a_hanging_rank_is_found_with_its_stack(run):
    directory, _ = run(HANG, hang_timeout_seconds=5)
    ranks = all_ranks(directory)
    status = end_of(directory)
    assert (status["state"], status["failing_rank"]) == ("failed", 1)
    assert "no step for" in status["reason"] and "the_loader_waits_for_a_file" in status["traceback"]
    assert nobody_lives(directory, [p.pid for p in ranks])


def test_a_stopped_rank_is_a_hanging_rank(run):
    script = "import torch.distributed as dist\ndist.init_process_group('gloo')\n"
    directory, _ = run(script + "while True:\n    steps(1)\n    dist.barrier()", hang_timeout_seconds=5)
    ranks = all_ranks(directory)
    ranks[0].suspend()
    status = end_of(directory)
    assert status["failing_rank"] == 0 and "stopped" in status["reason"]
    assert nobody_lives(directory, [p.pid for p in ranks])


DONE_LINE = "[after training is done] datetime: 2026-01-01 00:00:00"
STAY = f"""
from pathlib import Path
folder = Path(__file__).parent / "checkpoints" / "iter_0000005"
steps(5)
print({DONE_LINE!r})
"""


def test_ranks_that_do_not_end_after_training_are_ended_and_the_run_is_finished(run):
    """So it was with NCCL, which waited forever while the interpreter shut down."""
    directory, _ = run(STAY + "time.sleep(3600)", hang_timeout_seconds=2)
    ranks = all_ranks(directory)
    status = end_of(directory)
    assert (status["state"], status["reason"], status["failing_rank"]) == ("finished", None, None)
    assert log_of(directory).count("=== training was done, but the ranks did not end: ") == 1
    assert nobody_lives(directory, [p.pid for p in ranks])


def test_a_rank_alone_that_does_not_end_is_enough(run):
    directory, _ = run(STAY + "time.sleep(3600 * rank)", hang_timeout_seconds=2)
    assert end_of(directory)["state"] == "finished"


def test_a_checkpoint_that_grows_after_training_is_not_cut_off(run):
    """An asynchronous save writes its files long after the last word."""
    write = """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"__{rank}_0.distcp", "wb") as file:
        for part in range(20):
            file.write(b"x")
            file.flush()
            time.sleep(0.5)
    (folder / "metadata.json").write_text('{"sharded_backend": "torch_dist"}')
    time.sleep(3600)
    """
    directory, _ = run(STAY + textwrap.dedent(write), hang_timeout_seconds=5)
    assert end_of(directory)["state"] == "finished"
    assert [file.stat().st_size for file in directory.glob("checkpoints/*/*.distcp")] == [20, 20]


@pytest.mark.parametrize("ahead", [-3600, 3600])
def test_a_file_server_with_another_clock_changes_nothing_about_a_hang(tmp_path, ahead):
    control.write_status(tmp_path, state="running", launch=1, started=time.time())
    options = supervising.parser().parse_args(["--run-directory", str(tmp_path), "--processes", "1"])
    options.detached, options.hang_timeout_seconds = True, 1
    run = supervising.Run(options)
    run.watch.hear(STEP_LINE.format(1) + "\n" + STEP_LINE.format(2), time.monotonic())
    part = tmp_path / "checkpoints" / "iter_0000001" / "__0_0.distcp"
    part.parent.mkdir(parents=True)

    def hangs_within(seconds: float, grows: bool) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not run._hangs():
            if grows or not part.exists():
                part.write_bytes(b"x" * (1 + part.stat().st_size if part.exists() else 1))
                os.utime(part, (time.time() + ahead,) * 2)
            time.sleep(0.05)
        return time.monotonic() < end

    assert not hangs_within(2.5, grows=True)
    assert hangs_within(30, grows=False)


KERNEL = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import tiny_ranks
directory = tiny_ranks.write_run(Path({directory!r}), "steps()")
tiny_ranks.start(directory, detach={detach})
time.sleep(3600)
"""


def kernel(directory: Path, detach: bool) -> subprocess.Popen:
    code = KERNEL.format(tests=str(Path(tiny_ranks.__file__).parent), directory=str(directory), detach=detach)
    return subprocess.Popen([sys.executable, "-c", code], start_new_session=True)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_kernel_takes_its_run_with_it(tmp_path, number):
    """As jupyter_client does it: the signal goes to the kernel's whole process group."""
    notebook = kernel(tmp_path / "run", detach=False)
    ranks = all_ranks(tmp_path / "run")
    os.killpg(notebook.pid, number)
    notebook.wait()
    assert end_of(tmp_path / "run")["reason"] == "the notebook's kernel ended"
    assert nobody_lives(tmp_path / "run", [p.pid for p in ranks])


def test_a_detached_run_outlives_the_kernel(tmp_path):
    notebook = kernel(tmp_path / "run", detach=True)
    ranks = all_ranks(tmp_path / "run")
    os.killpg(notebook.pid, signal.SIGKILL)
    notebook.wait()
    before = log_of(tmp_path / "run").count("iteration ")
    wait_for(lambda: log_of(tmp_path / "run").count("iteration ") > before + 20, "further steps")
    assert control.state(tmp_path / "run") == "running"
    assert control.stop(tmp_path / "run") == "stopped"
    assert nobody_lives(tmp_path / "run", [p.pid for p in ranks])


def test_a_held_directory_is_refused(tmp_path):
    with control.held(tmp_path), pytest.raises(control.Busy), control.held(tmp_path):
        pass
    with control.held(tmp_path):
        assert control.is_alive(tmp_path)
    assert not control.is_alive(tmp_path)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_users_lock_is_named_and_keeps_nothing_waiting():
    runs = Path(tempfile.mkdtemp(prefix="lock-"))  # where another user can get at it
    runs.chmod(0o755)
    directory = run_directory.new_directory(runs)
    control.write_status(directory, state="running", launch=1, processes=1)
    (directory / ".lock").touch(0o644)  # as an older version left it
    reading, writing = os.pipe()
    other = os.fork()
    if other == 0:
        os.setuid(65534)
        fcntl.flock(os.open(directory / ".lock", os.O_RDONLY), fcntl.LOCK_EX)
        os.write(writing, b"held")
        signal.pause()
    try:
        assert os.read(reading, 4) == b"held"
        assert not control.is_alive(directory) and control.state(directory) == "failed"
        before = time.monotonic()
        assert control.stop(directory) == "failed"
        assert time.monotonic() - before < control.TERM_SECONDS / 2
        refusal = f"user nobody .process {other}, .*holds its lock"
        with pytest.raises(control.Busy, match=refusal), control.held(directory):
            pass
        with pytest.raises(control.Busy, match=refusal + ".*fresh=True"), run_directory.claim(runs, {}, fresh=False):
            pass
    finally:
        os.kill(other, signal.SIGKILL)
        os.waitpid(other, 0)
    with control.held(directory):
        assert control.is_alive(directory)


def test_no_other_user_can_open_a_lock(tmp_path):
    (tmp_path / ".lock").touch(0o644)
    with control.held(tmp_path):
        assert (tmp_path / ".lock").stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_teacher_reads_a_learners_run_and_cannot_end_it():
    """Without root's rights: whether it runs is told by the supervisor's process, in whose place this test stands."""
    directory = Path(tempfile.mkdtemp(prefix="learner-"))
    directory.chmod(0o755)
    me = psutil.Process()
    control.write_status(directory, state="running", launch=1, pid=me.pid, create_time=me.create_time())
    with control.held(directory):
        assert as_nobody(control.state, directory) == "running"
        assert "belongs to user root, and only they can start or end it" in as_nobody(control.stop, directory)
        assert "belongs to user root" in as_nobody(control.held(directory).__enter__)


def as_nobody(look, *arguments) -> str:
    """What `look` returns, or raises, in a child that is another user."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgid(65534)
            os.setuid(65534)
            os.write(writing, str(look(*arguments)).encode())
        except control.Busy as refusal:
            os.write(writing, str(refusal).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        return answer.read()


def test_status_is_replaced_whole_and_survives_a_full_disk(tmp_path, monkeypatch):
    control.write_status(tmp_path, state="running", launch=1)
    control.write_status(tmp_path, reason="x")
    assert control.read_status(tmp_path) == {"state": "running", "launch": 1, "reason": "x"}
    (tmp_path / "status.tmp").mkdir()  # nothing new can be written
    control.write_status(tmp_path, state="failed")
    assert control.read_status(tmp_path)["state"] == "failed"


# ---- when silence is a hang ----------------------------------------------------------------------------------------
def watch_after(*heard: tuple[float, str], eval_interval: int = 0) -> hang.HangWatch:
    watch = hang.HangWatch(timeout_seconds=10, now=0, eval_interval=eval_interval)
    for now, text in heard:
        watch.hear(text, now)
    return watch


WRAPPED = """
  File "/env/torch/distributed/elastic/multiprocessing/errors/__init__.py", line 362 in wrapper
  File "/project/helpers/ranks/pretrain_gpt.py", line 170 in <module>"""


def test_the_rank_that_works_is_told_from_those_that_wait(tmp_path):
    reads = tmp_path / "clip_grads.py"
    reads.write_text("x = 1\nreturn total_norm.item()\n")
    feeder = 'Thread 0x1 (most recent call first):\n  File "/env/torch/distributed/distributed_c10d.py", line 9\n\n'
    main = "Current thread 0x2 (most recent call first):"
    collective = f'{main}\n  File "/env/torch/distributed/distributed_c10d.py", line 2978 in all_reduce{WRAPPED}'
    gpu = f'{main}\n  File "{reads}", line 2 in get_grad_norm{WRAPPED}'
    works = f'{main}\n  File "{reads}", line 1 in forward{WRAPPED}'
    assert hang.waits_for_others(collective) and hang.waits_for_others(gpu)
    assert not hang.waits_for_others(works) and not hang.waits_for_others(feeder + works)
    assert hang.main_thread(feeder + works) == works


def test_silence_between_steps_is_a_hang():
    watch = watch_after((100, STEP_LINE.format(1)), (101, STEP_LINE.format(2)), (102, STEP_LINE.format(3)))
    assert not watch.is_hanging(111) and watch.is_hanging(113)


def test_a_slow_start_is_no_hang():
    assert not watch_after().is_hanging(hang.QUIET_START_SECONDS - 1)
    assert not watch_after((60, STEP_LINE.format(1))).is_hanging(600)  # the first step compiles
    assert watch_after().is_hanging(hang.QUIET_START_SECONDS + 1)  # but it does not last forever


def test_steps_longer_than_the_timeout_are_no_hang():
    watch = watch_after(*((100.0 * step, STEP_LINE.format(step)) for step in range(1, 6)))
    assert not watch.is_hanging(700) and watch.is_hanging(801)


def test_saving_and_evaluating_are_no_hang():
    steps = ((1, STEP_LINE.format(1)), (2, STEP_LINE.format(2)))
    assert not watch_after(*steps, (3, "saving checkpoint at iteration 2 to x")).is_hanging(600)
    saved = watch_after(*steps, (3, "saving checkpoint at iteration"), (500, "  successfully saved checkpoint"))
    assert not saved.is_hanging(509) and saved.is_hanging(511)
    assert not watch_after(*steps, eval_interval=2).is_hanging(600)
    told = watch_after(*steps, (400, " validation loss at iteration 2 | lm loss value: 5.0"), eval_interval=2)
    assert not told.is_hanging(409) and told.is_hanging(411)
    assert not watch_after(*steps, (3, STEP_LINE.format(100))).is_hanging(600)  # the last step: evaluation, saving


def test_silence_after_training_is_short_once_all_is_written_and_evaluated():
    watch = hang.HangWatch(timeout_seconds=600, now=0)
    soon, late = hang.LINGER_SECONDS - 1, hang.LINGER_SECONDS + 1

    def told(text):
        watch.hear(text, 0)
        return watch.is_hanging(soon), watch.is_hanging(late), watch.is_over

    assert told(STEP_LINE.format(100)) == (False, False, False)
    assert told(DONE_LINE) == (False, True, True)
    assert told("saving checkpoint at iteration     100 to x") == (False, False, False)
    assert told("Evaluating on 8 samples") == (False, False, False)
    assert told(" validation loss at iteration 100 on validation set | ") == (False, False, False)
    assert told("  successfully saved checkpoint from iteration     100 to x") == (False, True, True)
    assert watch_after((1, DONE_LINE)).is_hanging(12)  # ten seconds are the timeout there


def test_closing_an_attached_run_waits_for_its_supervisor_to_be_gone():
    reading, lifeline = os.pipe()
    program = "import os, time; os.read(0, 1); time.sleep(0.5)"  # a supervisor: the last it does takes its time
    process = subprocess.Popen([sys.executable, "-c", program], stdin=reading)
    os.close(reading)
    control.Supervisor(process, lifeline).close()
    assert not psutil.pid_exists(process.pid)


@pytest.mark.parametrize("kept", ["[]", "null", '{"a": "x", "b": -5}', "[" * 99_999, "\0"])
def test_a_damaged_note_of_how_far_the_log_came_begins_it_anew(kept, tmp_path):
    said = tmp_path / "ranks" / "x" / "attempt_0" / "0" / "stdout.log"
    said.parent.mkdir(parents=True)
    said.write_text("a line\n")
    (tmp_path / "ranks" / "merged.json").write_text(kept)
    assert logs.RankLogs(tmp_path / "ranks", tmp_path / "log.txt", 1).merge() == "a line\n"

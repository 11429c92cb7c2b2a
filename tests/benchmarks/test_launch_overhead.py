"""`tests/benchmarks/launch_overhead.py` leaves nothing stopped, and waits for no run that has failed."""

import subprocess

import launch_overhead
import psutil
import pytest
from patience import wait_for


def test_processes_that_were_stopped_go_on_when_the_look_at_them_is_interrupted(monkeypatch):
    def interrupt(_seconds):
        wait_for(lambda: watcher.status() == psutil.STATUS_STOPPED)
        raise KeyboardInterrupt

    process = subprocess.Popen(["sleep", "3600"])
    watcher = psutil.Process(process.pid)
    try:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(launch_overhead.time, "sleep", interrupt)
            launch_overhead.stop_in_turn([watcher], 1)
        wait_for(lambda: watcher.status() != psutil.STATUS_STOPPED)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("program", "seconds"), [("false", 3600), ("sleep 3600", 0)], ids=["failed", "late"])
def test_a_run_without_a_step_is_not_waited_for(tmp_path, monkeypatch, program, seconds):
    monkeypatch.setattr(launch_overhead, "START_SECONDS", seconds)
    notebook = subprocess.Popen(program.split())
    try:
        with pytest.raises(RuntimeError, match="No step within"):
            launch_overhead.wait_for_first_step(tmp_path, notebook)
    finally:
        notebook.kill()
        notebook.wait()


def test_a_measurement_that_fails_ends_the_run(tmp_path, monkeypatch):
    stopped = []
    run = tmp_path / "watched" / "runs" / "overhead" / "now"
    monkeypatch.setattr(launch_overhead, "WATCHED", f"import pathlib; pathlib.Path({str(run)!r}).mkdir(parents=True)")
    monkeypatch.setattr(launch_overhead.control, "stop", stopped.append)
    with pytest.raises(RuntimeError, match="the run failed"):
        launch_overhead.cost_of_watching(None, None, tmp_path / "watched", 1)
    assert stopped == [run]

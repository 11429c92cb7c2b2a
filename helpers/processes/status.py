"""`status.json` of a run directory, and the log's line that a launch begins."""

import json
import time
from pathlib import Path

from helpers.processes import logs
from helpers.processes.run_files import read_json

STATUS_BYTES = 8192


def read_status(run_directory: Path) -> dict:
    """`status.json` as it is; empty before the first launch, and where it is damaged."""
    return read_json(Path(run_directory) / "status.json")


def write_status(run_directory: Path, **changes) -> None:
    """Change some fields of `status.json`, all at once or not at all.

    The file is padded: on a full disk it is written over in place, in the blocks that it already has.
    """
    path = Path(run_directory) / "status.json"
    fresh = path.with_suffix(".tmp")
    status = read_status(run_directory) | changes
    try:
        fresh.write_text(json.dumps(status, indent=1).ljust(STATUS_BYTES) + "\n")
        fresh.replace(path)
    except OSError:
        if not path.exists():
            raise
        if "traceback" in status:
            status["traceback"] = status["traceback"][-2000:]
        with open(path, "r+b") as file:
            file.write(json.dumps(status, indent=1).ljust(STATUS_BYTES).encode())
            file.truncate()


def begin(run_directory: Path, **described):
    """Write that a launch begins, in the log and in `status.json`; the log, open, is returned."""
    last = read_status(run_directory)
    log = open_append(Path(run_directory) / "log.txt")
    before = [int(path.name) for path in (run_directory / "ranks").glob("[0-9]*")]  # more than a damaged status knows
    launch = max([last.get("launch", 0), *before]) + 1
    now = time.time()
    log.write(f"{logs.LAUNCH_MARK}{launch} of {run_directory}, {time.strftime('%Y-%m-%d %H:%M:%S %z')} ===\n".encode())
    fresh = {"state": "running", "launch": launch, "log_start": log.tell(), "started": now, "ended": None, "pid": None}
    fresh |= {"exit_code": None, "reason": None, "failing_rank": None, "failing_node": None, "queued_again": None}
    write_status(run_directory, **fresh, **described, traceback="", disk_full=False)
    return log


def queued(run_directory: Path, **described) -> None:
    """Write that a launch was handed to a scheduler, which will begin it."""
    log = Path(run_directory) / "log.txt"
    fresh = {"state": "running", "detached": True, "reason": None}
    fresh |= {"started": time.time(), "ended": None, "pid": None, "exit_code": None, "traceback": ""}
    fresh |= {
        "log_start": log.stat().st_size if log.exists() else 0,
        "failing_rank": None,
        "failing_node": None,
        "queued_again": None,
    }
    write_status(run_directory, **fresh, **described)


def open_append(path: Path):
    return open(path, "ab", buffering=0)

"""What ranks write: growing files read piece by piece, one log out of many, steps, tracebacks, failures."""

import json
import re
import signal
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

STEP = re.compile(
    r"iteration +(\d{1,15})/ *(\d{1,15}) \|.*?elapsed time per iteration \(ms\): ([\d.]+) \|"
    r".*?global batch size: +(\d{1,15}) \|"
)
LOSS = re.compile(r"lm loss: (\S+) \|")
TRAINING_IS_DONE = ("[after training is done]", "[exiting program at iteration")  # the latter: --exit-interval
OF_RANKS = "**/attempt_*/*"  # torchrun's --log-dir: <node>/<id>/attempt_0/<rank on its node>
LAUNCH_MARK = "=== launch "

# torchrun's closing summary has these lines for each rank that failed; the others it ended itself.
FAILED_RANK = re.compile(r"rank +: (\d+) \(local_rank: \d+\)\s+exitcode +: (-?\d+) \(pid: (\d+)\)")
TORCHRUN_SIGNALLED = re.compile(r"SignalException: Process \d+ got signal: (\d+)")
ENDED_BY_TORCHRUN = re.compile(r"Sending process (\d+) closing signal")
OF_RANK = re.compile(r"\(RANK (\d+)\)")  # torch's CheckpointException, raised on all ranks for those that failed
TORCH_PREFIX = re.compile(r"^\[rank\d+\]: ?")  # torch.distributed's own excepthook puts it before each line
TRACEBACK_STARTS = ("Traceback (most recent call last)", "Fatal Python error")
CRASH_SIGNALS = {-4, -7, -8, -9, -11}  # exit codes: SIGILL, SIGBUS, SIGFPE, SIGKILL, SIGSEGV
# A rank that only lost the connection to one that died is a victim, not the cause.
LOST_PEER = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "remote process exited",
    "TCPStore",
)


@dataclass(frozen=True)
class Step:
    """Megatron's line for one iteration. `loss` is None where it printed none (NaN); `milliseconds` is that step's."""

    step: int
    train_iters: int
    milliseconds: float
    global_batch_size: int
    loss: float | None


@dataclass(frozen=True)
class Failure:
    """The rank that failed first, as its logs show; `rank` is None when torchrun itself crashed."""

    rank: int | None
    exit_code: int | None
    reason: str
    traceback: str = ""


def parse_step(line: str) -> Step | None:
    """The step a log line tells of, else None (format: Megatron `training_log` in megatron/training/training.py)."""
    if not (match := STEP.search(line)):
        return None
    step, train_iters, milliseconds, batch = match.groups()
    if (spent := number(milliseconds)) is None:
        return None
    loss = LOSS.search(line)
    return Step(int(step), int(train_iters), spent, int(batch), number(loss[1]) if loss else None)


def written_at(line: str) -> float:
    """When Megatron wrote a line, in seconds since 1970: "[2026-11-26 15:34:52.072593]"."""
    start = line.index("[20") + 1
    return datetime.strptime(line[start : line.index("]", start)], "%Y-%m-%d %H:%M:%S.%f").timestamp()


def number(text: str | None) -> float | None:
    """A number as a log has it; None for other words, which stand there where something wrote in between."""
    try:
        return float(text) if text else None
    except ValueError:
        return None


def last_step(log: Path, start: int = 0) -> int:
    """The step that a log told of last, after `start` (in bytes); 0 where there is none."""
    steps = [step.step for line in Tail(log, start).read().splitlines() if (step := parse_step(line))]
    return steps[-1] if steps else 0


class Tail:
    """Whole lines that a growing file gained since the last look; a line without its end waits for the next one."""

    def __init__(self, path: Path, offset: int = 0):
        self.path, self.offset = Path(path), offset

    def read(self, final: bool = False) -> str:
        """New whole lines as one text; with `final` an unfinished last line too."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                new = file.read()
        except FileNotFoundError:
            return ""
        if not final:
            new = new[: new.rfind(b"\n") + 1]
        self.offset += len(new)
        return new.decode(errors="replace")


class RankLogs:
    """The files torchrun keeps for each rank (`--log-dir --redirects 3`), merged into one log with one prefix per rank.

    Each line is written whole, in one append. How far the merge came is kept beside the files, so that whoever comes
    next (the supervisor was killed, say) goes on from there and loses nothing. One rank alone has no prefix.
    Of several hosts each writes into a folder of its own, `node0`, `node1`, …, where torchrun counts its own ranks.
    """

    def __init__(self, directory: Path, log: Path, processes: int, processes_per_node: int | None = None):
        self.directory, self.log, self.processes = Path(directory), Path(log), processes
        self.processes_per_node = processes_per_node or processes
        self.ahead: dict[int, float] = {}  # node → seconds that its clock is ahead of this one's, where it is
        self._progress = self.directory / "merged.json"
        self._tails: dict[str, Tail] = {}
        try:
            known = json.loads(self._progress.read_text())
        except (OSError, ValueError, RecursionError):
            known = {}
        for name, offset in known.items() if isinstance(known, dict) else ():
            if isinstance(offset, int) and offset >= 0:
                self._tails[name] = Tail(self.directory / name, offset)

    def merge(self, final: bool = False) -> str:
        """Append what is new to the log and return it; when the disk is full, try again at the next call."""
        self._discover()
        before = {name: tail.offset for name, tail in self._tails.items()}
        text = "".join(self._prefixed(name, chunk) for name, tail in self._tails.items() if (chunk := tail.read(final)))
        if not text:
            return ""
        try:
            with open(self.log, "ab", buffering=0) as log:
                start = log.tell()
                data = text.encode()
                if log.write(data) != len(data):
                    log.truncate(start)
                    raise OSError("short write")
            self._save_progress()
        except OSError:
            for name, tail in self._tails.items():
                tail.offset = before[name]
            return ""
        return text

    def rank_text(self, rank: int) -> str:
        """All that one rank wrote on stderr in this launch."""
        files = [file for file in sorted(self.directory.glob(f"{OF_RANKS}/stderr.log")) if self.rank(file) == rank]
        return "".join(file.read_text(errors="replace") for file in files)

    def errors(self) -> dict[int, dict]:
        """What ranks whose main is wrapped in torch's `record` left: rank → {"timestamp", "py_callstack"}.

        The timestamp, in seconds, is by the clock of this host.
        """
        found = {}
        for path in self.directory.glob(f"{OF_RANKS}/error.json"):
            try:
                rank, error = self.rank(path), json.loads(path.read_text())["message"]["extraInfo"]
                found[rank] = error | {
                    "timestamp": int(error["timestamp"]) - self.ahead.get(rank // self.processes_per_node, 0)
                }
            except (OSError, ValueError, KeyError, TypeError):
                continue  # half written: the rank died while it wrote
        return found

    def rank(self, path: Path) -> int:
        """Whose file it is: node × ranks on each + rank there."""
        node = re.match(r"node(\d+)/", str(path.relative_to(self.directory)))
        return (int(node[1]) * self.processes_per_node if node else 0) + int(path.parent.name)

    def _discover(self) -> None:
        if len(self._tails) < 2 * self.processes:
            found = self.directory.glob(f"{OF_RANKS}/std*.log")
            for path in sorted(found, key=lambda path: (self.rank(path), path.name)):
                name = str(path.relative_to(self.directory))
                self._tails.setdefault(name, Tail(path))

    def _prefixed(self, name: str, text: str) -> str:
        if not text.endswith("\n"):
            text += "\n"
        if self.processes == 1:
            return text
        prefix = f"[rank {self.rank(self.directory / name)}] "
        return "".join(prefix + line for line in text.splitlines(keepends=True))

    def _save_progress(self) -> None:
        fresh = self._progress.with_suffix(".tmp")
        fresh.write_text(json.dumps({name: tail.offset for name, tail in self._tails.items()}))
        fresh.replace(self._progress)


def last_traceback(text: str, torchruns_own: bool = False) -> str:
    """The last Python traceback (or fatal-error dump of all stacks) in a text; torchrun's own only when asked for."""
    lines = [TORCH_PREFIX.sub("", line) for line in text.splitlines()]
    starts = [i for i, line in enumerate(lines) if line.startswith(TRACEBACK_STARTS)]
    for start in reversed(starts):
        block = _traceback_block(lines[start:])
        if torchruns_own or ("ChildFailedError" not in block and "torch/distributed/run.py" not in block):
            return block
    return ""


def _traceback_block(lines: list[str]) -> str:
    """From the heading to the end of the exception's message; a fatal-error dump to the end of its last stack."""
    end = 1
    if lines[0].startswith("Fatal"):
        while end < len(lines) and not lines[end].startswith(("Extension modules", "[", "Traceback")):
            end += 1
    else:
        while end < len(lines) and lines[end].startswith("  "):
            end += 1
        message = end
        while end < min(len(lines), message + 20) and lines[end].strip() and not lines[end].startswith("["):
            end += 1
    return "\n".join(lines[:end]).strip()


def find_failure(rank_logs: RankLogs, summary: str, exit_code: int | None) -> Failure:
    """Which rank failed first, with its own last traceback.

    `summary` is this launch's log; torchrun's words in it tell the ranks that failed from those it then ended. Of
    the former, one that was killed or crashed comes first, then the earliest whose exception is not merely a lost peer.
    Where all of them have only lost a peer, one that torchrun ended while it was falling is the cause.
    """
    errors = rank_logs.errors()
    ended = set(ENDED_BY_TORCHRUN.findall(summary))
    codes = {int(rank): int(code) for rank, code, pid in FAILED_RANK.findall(summary) if pid not in ended}
    ranks = sorted(codes.keys() or errors.keys())
    if not ranks:
        reason = f"torchrun ended with exit code {exit_code} before any rank had failed"
        if signalled := TORCHRUN_SIGNALLED.search(summary):
            reason = f"torchrun was killed by {signal_name(int(signalled[1]))}"
        return Failure(None, exit_code, reason, _torchruns_traceback(summary))

    def traceback(rank: int) -> str:
        return errors.get(rank, {}).get("py_callstack", "").strip() or last_traceback(rank_logs.rank_text(rank))

    def is_victim(rank: int) -> bool:
        return any(words in traceback(rank) for words in LOST_PEER)

    def order(rank: int) -> tuple:
        timestamp = errors.get(rank, {}).get("timestamp", 0)
        return (codes.get(rank) not in CRASH_SIGNALS, is_victim(rank), timestamp, rank)

    first = min(ranks, key=order)
    if codes.get(first) not in CRASH_SIGNALS and is_victim(first):
        first = min([first, *errors], key=order)
    code = codes.get(first)
    if code is not None and code < 0:
        reason = f"was killed by {signal_name(-code)}"
    else:
        reason = f"ended with exit code {1 if code is None else code}"
    blamed = [int(rank) for rank in OF_RANK.findall(traceback(first))]
    return Failure(blamed[0] if blamed and first not in blamed else first, code, reason, traceback(first))


def signal_name(number: int) -> str:
    """ "SIGTERM"; of one between the real-time signals, which has no name, "signal 40"."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _torchruns_traceback(summary: str) -> str:
    return last_traceback(summary, torchruns_own=True) or "\n".join(summary.strip().splitlines()[-15:])

"""A run directory as the kernel writes it: which one a launch gets, and what lies in it before torchrun starts.

runs/<recipe>/<time>/  command.sh  recipe.json  environment.json  predictions.json   (log.txt, status.json,
tensorboard/, checkpoints/, result.json come from the run)
"""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
import re
import shlex
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from helpers.machine import PROJECT, Machine, cuda_libraries, driver_versions, runs_root, short_path
from helpers.processes import checkpoints, control, locks, trust
from helpers.processes.run_files import read_json, why_damaged
from helpers.ranks.repairs import table

NAME = re.compile(r"\w[\w.+-]{0,99}")
TIME = re.compile(r"\d{8}-\d{6}(?![^-])", re.ASCII)  # in the name of a run directory
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
PACKAGES = ("torch", "megatron-core", "transformer-engine", "transformers", "tokenizers", "numpy")


@contextlib.contextmanager
def claim(parent: Path, identity: dict, fresh: bool):
    """The run directory to train into, held: (directory, lock). The lock is None for a detached run that goes on.

    The newest run of the same identity is taken up if it is unfinished. One that another kernel is training is left
    alone: two learners with one recipe get a directory each.

    Raises:
        Busy: another user holds the lock of the run to take up.
    """
    if not fresh:
        _say_what_is_damaged(parent)
    old = None if fresh else _newest(parent, identity)
    if old is not None and control.state(old) == "running" and control.read_status(old).get("detached"):
        yield old, None
        return
    if old is not None and _is_unfinished(old):
        with contextlib.ExitStack() as stack:
            try:
                lock = stack.enter_context(control.held(old))
            except control.Busy as busy:
                if locks.stranger(old):
                    raise control.Busy(f"{busy} fresh=True starts another run.") from None
                print(f"{busy} This starts another one from step 1.")
                lock = None
            if lock is not None:
                control.bury_held(old)
                repaired = checkpoints.repair(old / "checkpoints")
                step = checkpoints.latest(old / "checkpoints")
                where = "from step 1: it has no checkpoint yet" if step is None else f"after step {step}"
                print(f"Picking up the unfinished run {short_path(old)} {where}. fresh=True would start another.")
                for words in repaired:
                    print(words)
                trust.written_here(old)  # what it holds was looked at by preflight
                yield old, lock
                return
    for other in _runs(parent, identity):
        if control.suspended(other):
            print(f"The run {other} does not end: its supervisor is stopped (SIGSTOP). runs.load(path).stop() ends it.")
    directory = new_directory(parent)
    trust.written_here(directory)
    with control.held(directory) as lock:
        yield directory, lock


def why_no_name(name) -> str | None:
    """Why a recipe cannot be called so, in a sentence; None for a good name."""
    if isinstance(name, str) and NAME.fullmatch(name) and len(name.encode()) < 200:  # a file system counts bytes
        return None
    return "It names a folder: up to 100 letters, digits and . _ + -, the first one a letter, a digit or _."


def why_no_word(word: str) -> str | None:
    """Why a text cannot be a word of a command line, in a sentence; None for one that can."""
    if "\0" in word:
        return "No word of a command line can have a NUL character in it."
    try:
        os.fsencode(word)
    except UnicodeEncodeError:
        return "It has half a character in it, which cannot be written."
    return None


def unfinished(parent: Path, identity: dict) -> Path | None:
    """The run that `claim` would pick up now; None where it would start another."""
    old = _newest(parent, identity)
    return old if old is not None and _is_unfinished(old) else None


def _say_what_is_damaged(parent: Path) -> None:
    """Of this user's runs: another's are theirs."""
    for directory in sorted(path for path in parent.glob("*") if path.is_dir()):
        if directory.stat().st_uid == os.getuid() and (why := why_damaged(directory)):
            print(f"{why} That run is not picked up; move its directory away and this line goes.")


def _is_unfinished(directory: Path) -> bool:
    return control.state(directory) in ("failed", "stopped")


def _newest(parent: Path, identity: dict) -> Path | None:
    """The latest run of the same recipe, corpus and entry script that is this user's and no other kernel's."""
    for directory in _runs(parent, identity):
        anothers = control.state(directory) == "running" and not control.read_status(directory).get("detached")
        if not anothers:
            return directory
    return None


def _runs(parent: Path, identity: dict) -> Iterator[Path]:
    """This user's runs of the same recipe, corpus and entry script, newest first."""
    for directory in sorted((p for p in parent.glob("*") if p.is_dir()), reverse=True):
        known = read_json(directory / "recipe.json")
        ours = directory.stat().st_uid == os.getuid() and not why_damaged(directory)
        if ours and all(known.get(key) == value for key, value in identity.items()):
            yield directory


def new_directory(parent: Path) -> Path:
    """`<parent>/<time>`, made here and now: two that ask in the same second get two directories.

    The newest run is the one whose name sorts last. Where the clock says less than a name that is there (another
    host's clock is ahead, summer time has ended), the new one takes the next name after it.

    Raises:
        OSError: it cannot be made; the message says where another place is named.
    """
    name = time.strftime("%Y%m%d-%H%M%S")
    try:
        name = max([name, *(match[0] for path in made(parent).iterdir() if (match := TIME.match(path.name)))])
    except OSError as refusal:
        raise _elsewhere(refusal, parent) from None
    for number in range(1, 1000):
        directory = parent / (name if number == 1 else f"{name}-{number:03d}")
        try:
            directory.mkdir(mode=0o755)  # others may read what a run left, and write nothing into it
            return directory
        except FileExistsError:
            continue
        except OSError as refusal:
            raise _elsewhere(refusal, parent) from None
    raise FileExistsError(f"a thousand directories in one second under {parent}")


def scratch(name: str) -> Path:
    """A directory for a program that is no training, made here and now under the runs.

    Raises:
        OSError: it cannot be made; the message says where another place is named.
    """
    place = runs_root() / ".ranks"
    try:
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=made(place)))
    except OSError as refusal:
        raise _elsewhere(refusal, place) from None


def other_place(folder: Path) -> str:
    """How a caller names another place for runs than the one that this folder is in."""
    if folder.is_relative_to(runs_root()):
        return "MEGATRON_TOUR_RUNS=<a folder of yours> in the environment puts it elsewhere."
    return "runs_dir=<a folder of yours> puts it elsewhere."


def _elsewhere(refusal: OSError, place: Path) -> OSError:
    return type(refusal)(f"Nothing can be written in {place}: {refusal.strerror}. {other_place(place)}")


def made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def write_command(
    directory: Path, title: str, program: Sequence[str], variables: dict, groups: dict, given: dict | None = None
) -> Path:
    """`command.sh`: the whole launch as a script that runs by itself, from anywhere, each flag with its reason.

    `program` is what is run, up to the flags; `variables` maps a name to (value, why), `groups` a subject to its flags.
    `given` maps a name to what it is: variables that are set by whoever starts it, on each of several hosts.
    What the learner has set in the environment stays as it is, but for the changes to Megatron, by which a run is
    known; no secret is written. The script mends its index cache itself: then it is mended whoever starts it.
    """
    require_names([*variables, *(given or {})])
    lines = ["#!/usr/bin/env bash", _comment(f"{title}. Runs by itself from a shell, too."), "set -eu"]
    project = shlex.quote(str(PROJECT))
    lines += [
        f"cd {project}",
        f"export PYTHONPATH={project}${{PYTHONPATH:+:$PYTHONPATH}}  # our helpers, not another's",
    ]
    for name, (value, why) in variables.items():
        lines.append(f"export {name}={_kept(name, value)}  {_comment(why)}")
    lines += [f': "${{{name}:?{_word(what)}}}"' for name, what in (given or {}).items()]
    if groups:
        lines.append("flags=(")
    for subject, flags in groups.items():
        lines.append(f"  {_comment(subject)}")
        lines += [f"  {shlex.join(flag.words):<40}" + (f"  {_comment(flag.why)}" if flag.why else "") for flag in flags]
    if groups:
        lines.append(")")
    lines += _mending(program[0], groups)
    if "--nproc-per-node" in program:
        lines.append("# torchrun --standalone, but for the networks that it listens on: none beyond this machine.")
    lines.append(f"exec {shlex.join(program)}" + (' "${flags[@]}"' if groups else ""))
    path = directory / "command.sh"
    path.write_text("\n".join(line.rstrip() for line in lines) + "\n")
    path.chmod(0o755)
    return path


def require_names(variables: Iterable[str]) -> None:
    """Refuse names that a shell would not take for a variable's: it would run them."""
    if wrong := [name for name in variables if not VARIABLE.fullmatch(name)]:
        raise ValueError(f"{wrong[0]!r} names no variable of a shell: letters, digits and _, the first no digit.")


def _comment(words: str) -> str:
    """One line, whatever the words are: a second one would be run."""
    return f"# {' '.join(words.split())}"


def _word(words: str) -> str:
    """A text inside a shell's quotes, without what would be run there."""
    return re.sub(r'["$`\\}]', "", " ".join(words.split()))


def _kept(name: str, value: str) -> str:
    """What a variable is set to: what the learner has in it stays, or is added to."""
    plain = re.fullmatch(r"[\w@%+=:,./ -]*", value)
    mark, value = ('"', value) if plain else ("", shlex.quote(value))  # no quotes of the shell's inside its quotes
    if name == table.VARIABLE:
        return f"{mark}{value}{mark}"
    if name.endswith("_PATH"):
        return f"{mark}{value}${{{name}:+:${name}}}{mark}"
    return f"{mark}${{{name}:-{value}}}{mark}"


def _mending(python: str, groups: dict) -> list[str]:
    caches = [flag.value for flags in groups.values() for flag in flags if flag.name == "--data-cache-path"]
    if not caches:
        return []
    why = "# Removes what a killed start left half-written: Megatron would take it for whole, and fail at every start."
    return [why, shlex.join([python, "-m", "helpers.ranks.index_cache", *caches])]


def provenance(machine: Machine, variables: dict[str, tuple[str, str]]) -> dict:
    """What a run ran on: versions, machine, date. Of the environment only the variables that the run needs, and NCCL's
    that the learner has set: they decide through which links the ranks talk."""
    merged = cuda_libraries.merged(variables)
    merged |= {name: value for name, (value, _) in variables.items() if name == table.VARIABLE}
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "versions": versions,
        "machine": dataclasses.asdict(machine) | {"name": machine.name, "label": machine.label},
        "driver": (driver_versions() or [None])[0],
        "variables": {name: merged[name] for name in variables}
        | {name: value for name, value in os.environ.items() if name.startswith("NCCL_")},
    }


def write_json(path: Path, value) -> None:
    """All at once: a kill in between leaves no half of it."""
    fresh = path.with_suffix(".tmp")
    fresh.write_text(json.dumps(value, indent=1, default=str) + "\n")
    fresh.replace(path)

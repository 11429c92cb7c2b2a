"""`uv run megatron-tour`: the first five notebooks, one after the other, on whatever this machine has.

Each runs in a kernel of its own, headless. Executed copies and one page of them all lie in `runs/tour/<time>/`, beside
the runs they made. A failing cell ends its notebook, not the tour. Ctrl-C and SIGTERM leave no process behind.
"""

import argparse
import asyncio
import os
import re
import signal
from datetime import datetime
from pathlib import Path

from helpers.lessons import catalogue
from helpers.machine import PROJECT, UnsupportedPlatform, cache_root, here, runs_root, switches
from helpers.processes.run_directory import new_directory, scratch
from helpers.tour import page
from helpers.tour.execute import Chapter, Interrupted, Screen, Tour

NOTEBOOKS = PROJECT / "notebooks"
COLUMNS = ("notebook", "minutes", "runs", "tokens", "first → last loss")  # with their rows they fit 80 columns
TOUR = ("00", "01", "02", "03", "04")  # later notebooks run by name, or with --all


def chosen(names: list[str], everything_asked: bool = False) -> list[Path]:
    """The notebooks to run: those of TOUR, or of `names` (`02`, `03_tensor…`: how a file name starts), or all.

    Raises:
        SystemExit: a name that no notebook has; the message lists them.
    """
    everything = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    asked = [] if everything_asked else [_start(name) for name in names] or TOUR
    for name, start in zip(names, asked, strict=False):
        if not start or not any(path.name.startswith(start) for path in everything):
            raise SystemExit(
                f"No notebook starts with {name!r}. There are: {', '.join(path.stem for path in everything)}."
            )
    return [path for path in everything if everything_asked or path.name.startswith(tuple(asked))]


def _start(name: str) -> str | None:
    """How the file name of the notebook begins that is called so, its number at least; None for one of elsewhere."""
    path = Path(name)
    elsewhere = path.name != name and path.absolute().parent.resolve() != NOTEBOOKS.resolve()
    return None if elsewhere or not re.match(r"\d\d", path.name) else path.name


async def travel(paths: list[Path], directory: Path, screen: Screen, in_place: bool) -> tuple[list[Chapter], bool]:
    """Run the notebooks; returns the chapters that ended and whether the learner stopped the tour."""
    import nbformat

    tour, chapters = Tour(directory, screen), []
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, tour.stop)
    machine = here()
    for path in paths:
        screen.line(f"\n{path.stem}")
        try:
            chapter = await tour.chapter(path)
        except Interrupted:
            return chapters, True
        minutes = round(chapter.seconds / 60, 2)
        measured = chapter.notebook.metadata.get("megatron_tour", {})
        chapter.notebook.metadata["megatron_tour"] = {**measured, catalogue.timed_as(machine): minutes}
        nbformat.write(chapter.notebook, directory / path.name)
        if in_place and not chapter.failure:
            nbformat.write(chapter.notebook, path)
        if chapter.failure:
            screen.line(f"  ✗ {path.stem}, cell [{chapter.failure.cell}]: {chapter.failure.error}")
            screen.line(f"    Fix: {chapter.failure.fix}")
        chapters.append(chapter)
        if tour.stopping.is_set():
            return chapters, True
    return chapters, False


def trained(chapter: Chapter) -> tuple[str, str, str]:
    """How many runs a chapter trained, their tokens together, and the loss of the longest one."""
    from helpers import runs

    loaded = [run for run in map(runs.load, chapter.runs) if len(run.losses)]
    if not loaded:
        return "–", "–", "–"
    tokens = {run.path: int(run.summary()["tokens"].iloc[0]) for run in loaded}
    longest = max(loaded, key=lambda run: tokens[run.path])
    first, last = longest.losses.iloc[0], longest.losses.iloc[-1]
    return str(len(loaded)), f"{sum(tokens.values()):,}", f"{first:.3f} → {last:.3f}"


def rows(chapters: list[Chapter]) -> list[tuple[str, ...]]:
    """One row per notebook, in the order of COLUMNS; the loss is of its longest run."""
    return [
        (f"{'✗' if chapter.failure else '✓'} {chapter.name}", f"{chapter.seconds / 60:.1f}", *trained(chapter))
        for chapter in chapters
    ]


def introduction(chapters: list[Chapter], table: list[tuple[str, ...]], machine_name: str) -> str:
    """The head of the page, in Markdown: where and when, the table, and what failed."""
    head = [f"Executed on a {machine_name}, {datetime.now():%Y-%m-%d %H:%M}."]
    lines = ["| " + " | ".join(row) + " |" for row in (COLUMNS, ("---",) * len(COLUMNS), *table)]
    failures = [
        f"**{chapter.name}**, cell [{failure.cell}]\n\n```\n{failure.error}\n```\n\nFix: {failure.fix}"
        for chapter in chapters
        if (failure := chapter.failure)
    ]
    return "\n\n".join([*head, "\n".join(lines), *failures])


def show(chapters: list[Chapter], directory: Path, machine_name: str) -> None:
    """The page, the table, and where to look."""
    from rich.console import Console
    from rich.table import Table

    lines = rows(chapters)
    notebooks = {chapter.name: chapter.notebook for chapter in chapters}
    title = "Megatron tour"
    written = page.write(
        directory / "tour.html", title, introduction(chapters, lines, machine_name), notebooks, NOTEBOOKS
    )
    table = Table(*COLUMNS)
    for line in lines:
        table.add_row(*line)
    console = Console()
    console.print()
    console.print(table)
    console.print(f"The whole tour as one page: {relative(written)}", soft_wrap=True)
    console.print(f"Executed notebooks and their runs: {relative(directory)}/", soft_wrap=True)
    console.print("By hand, cell by cell: uv run jupyter lab notebooks", soft_wrap=True)


def relative(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def check_machine() -> int:
    """The one-command check of a learner's machine: every finding, and two processes that add numbers up."""
    from rich.console import Console

    from helpers import environment

    console = Console()
    report = environment.check()
    console.print(report)
    try:
        added = environment.all_reduce()
    except RuntimeError as error:
        console.print(f"✗ Two processes could not work together. {error}", markup=False)
        return 1
    console.print(added)
    return 0 if report.ok and added.ok else 1


def main(arguments: list[str] | None = None) -> int:
    """`megatron-tour [notebook … | --all | --check] [--in-place]`.

    Returns:
        The exit code: 0, 1 after a failing cell, 130 when it was stopped.
    """
    parser = argparse.ArgumentParser(
        prog="megatron-tour", description="Run the notebooks on whatever this machine has."
    )
    parser.add_argument("notebooks", nargs="*", help="only these, by number or name: 02 03_tensor_parallelism")
    parser.add_argument("--all", action="store_true", help="every notebook, those after the first five as well")
    parser.add_argument("--check", action="store_true", help="check this machine and stop")
    parser.add_argument("--in-place", action="store_true", help="also write the outputs into notebooks/*.ipynb")
    options = parser.parse_args(arguments)
    if options.all and options.notebooks:
        parser.error(f"--all runs every notebook: leave it out to run {' '.join(options.notebooks)} alone")
    if options.check and (options.all or options.in_place or options.notebooks):
        parser.error("--check runs no notebook: give it alone")
    try:
        machine = here()
        for name in switches.SWITCHES:
            switches.is_on(name)
        root, _ = runs_root(), cache_root()  # what is wrong with them is told before anything takes time
        if options.check:
            scratch("check").rmdir()
            return check_machine()
        paths, directory = chosen(options.notebooks, options.all), new_directory(root / "tour")
    except (UnsupportedPlatform, ValueError, OSError) as error:
        print(error)
        return 2
    os.environ["JUPYTER_PREFER_ENV_PATH"] = (
        "1"  # this environment's kernel, not one of the same name in the home folder
    )
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # with that one set, every kernel would compile torch and Megatron
    count = f"{len(paths)} notebook{'s' * (len(paths) > 1)}"
    screen = Screen()
    screen.line(f"Megatron tour on a {machine.name}: {count}, kept in {relative(directory)}/")
    chapters, stopped = asyncio.run(travel(paths, directory, screen, options.in_place))
    if chapters:
        show(chapters, directory, machine.name)
    if stopped:
        screen.line("Stopped. No process of the tour is left.")
        return 130
    return 1 if any(chapter.failure for chapter in chapters) else 0

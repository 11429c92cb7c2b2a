"""Execute a notebook headless, in a kernel of its own, with one progress line per cell and no process left behind."""

import asyncio
import contextlib
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from helpers.tour import page

STOP_SECONDS = 40  # what an interrupted cell gets to stop its run; the run's own routine needs up to 35
STUBBORN_SECONDS = 40  # what is left of a kernel's family gets before it is killed
CELL_SECONDS = 6 * 3600


class Interrupted(Exception):
    """The learner stopped the tour."""


@dataclass(frozen=True)
class Failure:
    """Where a notebook stopped: `cell` is the number that Jupyter shows in brackets."""

    cell: int
    error: str
    fix: str


@dataclass(frozen=True)
class Chapter:
    """One notebook of the tour as it went. `runs`: directories of the training runs made meanwhile."""

    name: str
    seconds: float
    notebook: object
    failure: Failure | None
    runs: tuple[Path, ...]


class Screen:
    """Progress lines. On a terminal the running cell's line is written again and again; in a log each stands once."""

    def __init__(self, out=None):
        self.out = out or sys.stdout
        self.live = self.out.isatty()

    def line(self, text: str = "") -> None:
        self.out.write(("\r\x1b[2K" if self.live else "") + text + "\n")
        self.out.flush()

    def running(self, text: str) -> None:
        if self.live:
            width = os.get_terminal_size(self.out.fileno()).columns if self.out.isatty() else 80
            self.out.write("\r\x1b[2K" + text[: width - 1])
            self.out.flush()


class Tour:
    """Executes notebooks in order. `stop()` may be called from a signal handler of the running loop."""

    def __init__(self, directory: Path, screen: Screen):
        self.directory, self.screen = directory, screen
        self.runs_root = directory / "runs"
        self.stopping = asyncio.Event()

    def stop(self) -> None:
        if not self.stopping.is_set():
            self.screen.line("Stopping: the running cell ends its processes first …")
        self.stopping.set()

    async def chapter(self, path: Path) -> Chapter:
        """Execute one notebook with its folder as the working directory."""
        import nbformat
        from nbclient import NotebookClient

        notebook = nbformat.read(path, as_version=4)
        client = NotebookClient(notebook, timeout=CELL_SECONDS, kernel_name="python3")
        client.reset_execution_trackers()
        manager = client.create_kernel_manager()
        sockets = tempfile.TemporaryDirectory(prefix="megatron-tour-")
        # Unix sockets in a folder of our own: no port that another learner's kernel could take, or hear.
        manager.transport, manager.ip = "ipc", f"{sockets.name}/kernel"
        before, start, failed = set(run_directories(self.runs_root)), time.monotonic(), None
        environment = os.environ | {"MEGATRON_TOUR_HEADLESS": "1", "MEGATRON_TOUR_RUNS": str(self.runs_root)}
        kernel = None
        try:
            await client.async_start_new_kernel(cwd=str(path.parent), env=environment)
            kernel = psutil.Process(client.km.provisioner.pid)
            await client.async_start_new_kernel_client()
            failed = await self.cells(client)
        except RuntimeError as error:  # the kernel did not come up
            failed = failure(0, f"{type(error).__name__}: {error}", "")
        finally:
            made = sorted(set(run_directories(self.runs_root)) - before, key=lambda run: run.stat().st_mtime)
            await asyncio.shield(end_kernel(client, kernel, made))
            sockets.cleanup()
        page.tidy(notebook, self.runs_root)
        return Chapter(path.stem, time.monotonic() - start, notebook, failed, tuple(made))

    async def cells(self, client) -> Failure | None:
        from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

        code = [index for index, cell in enumerate(client.nb.cells) if cell.cell_type == "code" and cell.source.strip()]
        for cell in client.nb.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        for number, index in enumerate(code, start=1):
            cell = client.nb.cells[index]
            start, label = time.monotonic(), f"  [{number}/{len(code)}] {first_words(cell.source)}"
            try:
                await self.cell(client, cell, index, number, label)
            except CellExecutionError as error:
                if self.stopping.is_set():
                    raise Interrupted from None
                return failure(
                    number, f"{error.ename}: {error.evalue}", "\n".join(cell.outputs[-1].get("traceback", []))
                )
            except (DeadKernelError, CellTimeoutError) as error:
                return failure(number, f"{type(error).__name__}: {error}", "")
            finally:
                self.screen.line(f"{label:<72} {time.monotonic() - start:7.1f} s")
        return None

    async def cell(self, client, cell, index: int, number: int, label: str) -> None:
        """One cell; while it runs, its line shows the time and what it last said."""
        start = time.monotonic()
        executing = asyncio.ensure_future(client.async_execute_cell(cell, index, execution_count=number))
        stopped = asyncio.ensure_future(self.stopping.wait())
        try:
            while not executing.done() and not stopped.done():
                self.screen.running(f"{label} … {time.monotonic() - start:.0f} s  {last_words(cell)}")
                await asyncio.wait({executing, stopped}, timeout=1, return_when=asyncio.FIRST_COMPLETED)
            if stopped.done():
                if not executing.done():
                    await client.km.interrupt_kernel()
                    await asyncio.wait({executing}, timeout=STOP_SECONDS)
                raise Interrupted
            await executing
        finally:
            stopped.cancel()
            if not executing.done():
                executing.cancel()
            await asyncio.gather(executing, stopped, return_exceptions=True)


async def end_kernel(client, kernel: psutil.Process | None, made: list[Path]) -> None:
    """Shut the kernel down, then everything that it or its runs have left behind."""
    from helpers.processes import control

    family = descendants(kernel)
    if client.km is not None and client.km.has_kernel:
        with contextlib.suppress(RuntimeError):
            await client._async_cleanup_kernel()
    for run in made:
        if control.state(run) == "running":
            await asyncio.to_thread(control.stop, run)
    deadline = time.monotonic() + STUBBORN_SECONDS
    while (left := [process for process in family if is_alive(process)]) and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()


def descendants(process: psutil.Process | None) -> list[psutil.Process]:
    try:
        return process.children(recursive=True) if process else []
    except psutil.Error:
        return []


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def run_directories(root: Path) -> list[Path]:
    return [path.parent for path in root.glob("*/*/recipe.json")]


def first_words(source: str) -> str:
    """The line by which a reader knows the cell: the first that does something."""
    lines = [line.strip() for line in source.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    telling = [line for line in lines if not line.startswith(("import ", "from ", "%"))] or lines or [""]
    return telling[0] if len(telling[0]) <= 56 else telling[0][:55] + "…"


def last_words(cell) -> str:
    texts = [output.text for output in cell.get("outputs", ()) if output.output_type == "stream"]
    lines = texts[-1].replace("\r", "\n").split("\n") if texts else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def failure(cell: int, error: str, traceback: str) -> Failure:
    """Name the fix: the error's own words first, then the table of known symptoms."""
    from helpers.processes import diagnosis

    if "\nFix: " in error:
        fix = error.split("\nFix: ", 1)[1].split("\n")[0]
    else:
        known = diagnosis.diagnose(f"{traceback}\n{error}")
        fix = known.fix if known else "Run the notebook to this cell by hand; environment.md lists known symptoms."
    return Failure(cell, error, fix)

"""The tour with tiny notebooks and real kernels: what it writes, what it says of a failing cell, what a stop leaves."""

import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import nbformat
import psutil
import pytest
from patience import wait_for

from helpers import machine
from helpers.lessons import catalogue
from helpers.machine import PROJECT
from helpers.tour import command, execute, page

GOOD = "00_good"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="  # one pixel


def write_notebook(folder: Path, name: str, *cells: str) -> Path:
    """Cells that start with '#' and a space are Markdown."""
    made = [
        (nbformat.v4.new_markdown_cell if source.startswith("# ") else nbformat.v4.new_code_cell)(source)
        for source in cells
    ]
    path = folder / f"{name}.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=made), path)
    return path


@pytest.fixture
def notebooks(tmp_path, monkeypatch):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    monkeypatch.setattr(command, "NOTEBOOKS", folder)
    monkeypatch.setenv("MEGATRON_TOUR_RUNS", str(tmp_path / "runs"))
    return folder


def tour_directory(folder: Path) -> Path:
    (directory,) = (folder.parent / "runs" / "tour").iterdir()
    return directory


def test_every_notebook_runs_and_one_failing_cell_stops_only_its_own(notebooks, capsys, monkeypatch):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    write_notebook(
        notebooks,
        GOOD,
        "# Good\n\nThen [the last](03_last.ipynb).\n\n## A section with `code`",
        "import os, sys\nfrom helpers import machine\n"
        "print(os.environ['MEGATRON_TOUR_HEADLESS'], os.getcwd(), sys.dont_write_bytecode)",
        f"from IPython.display import Image, display\nimport base64\ndisplay(Image(base64.b64decode('{PIXEL}')))",
    )
    write_notebook(
        notebooks, "01_bad", "x = 1", "print('before')\nraise ValueError('the learner typed 7')", "print('never')"
    )
    write_notebook(notebooks, "02_dies", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    write_notebook(notebooks, "03_last", "print('the last one ran')")
    (notebooks / "scratch.ipynb").write_text("not a notebook of the tour")

    assert command.main([]) == 1

    said = capsys.readouterr().out
    directory = tour_directory(notebooks)
    assert "✗ 01_bad, cell [2]: ValueError: the learner typed 7" in said
    assert said.count("Fix: ") == 2 and "✗ 02_dies, cell [1]: DeadKernelError" in said
    assert re.search(r"\[1/2\] print\(os.environ.* s\n", said), said
    executed = [path.stem for path in sorted(directory.glob("*.ipynb"))]
    assert executed == ["00_good", "01_bad", "02_dies", "03_last"]
    good = nbformat.read(directory / "00_good.ipynb", as_version=4)
    assert good.cells[1].outputs[0].text == f"1 {notebooks} False\n"
    assert [cell.execution_count for cell in good.cells if cell.cell_type == "code"] == [1, 2]
    bad = nbformat.read(directory / "01_bad.ipynb", as_version=4)
    assert [cell.execution_count for cell in bad.cells] == [1, 2, None]
    assert bad.cells[2].outputs == []
    html = (directory / "tour.html").read_text()
    assert "the last one ran" in html and PIXEL in html and "the learner typed 7" in html
    assert f'href="#{GOOD}-0"' in html and f'id="{GOOD}-0"' in html
    assert '<a href="#03_last">the last</a>' in html and 'id="03_last"' in html
    assert not re.search(r"""(src|href)=["']https?://""", html), "the page must need nothing from the network"
    untouched = nbformat.read(notebooks / "00_good.ipynb", as_version=4)
    assert all(not cell.outputs for cell in untouched.cells if cell.cell_type == "code")


def test_chosen_notebooks_are_executed_in_place_and_say_how_long_they_took(notebooks):
    write_notebook(notebooks, GOOD, "print('not chosen')")
    path = write_notebook(notebooks, "01_chosen", "import time; time.sleep(1); print('written back')")
    before = nbformat.read(path, as_version=4)
    before.metadata["megatron_tour"] = {"NVIDIA H200": 5.5}
    nbformat.write(before, path)

    assert command.main(["01", "--in-place"]) == 0

    written = nbformat.read(path, as_version=4)
    assert written.cells[0].outputs[0].text == "written back\n"
    measured = written.metadata.megatron_tour
    assert measured.pop("NVIDIA H200") == 5.5, "what other machines took stays"
    assert list(measured) == [catalogue.timed_as(machine.here())] and min(measured.values()) > 1 / 60 - 0.005
    assert not (tour_directory(notebooks) / f"{GOOD}.ipynb").exists()
    nbformat.validate(written)


@pytest.mark.parametrize("name", ["07", "", ".", "..", "/", "0", "good", "/elsewhere/00_good.ipynb", "a/../00"])
def test_a_name_that_no_notebook_has_is_refused_with_those_there_are(name, notebooks):
    write_notebook(notebooks, GOOD, "1")
    with pytest.raises(SystemExit, match=rf"No notebook starts with {re.escape(repr(name))}. There are: 00_good"):
        command.main([name])
    assert not (notebooks.parent / "runs").exists()


def test_a_notebook_is_named_by_its_number_its_file_or_its_path(notebooks, monkeypatch):
    path = write_notebook(notebooks, GOOD, "1")
    monkeypatch.chdir(notebooks.parent)
    for name in ("00", GOOD, f"{GOOD}.ipynb", "notebooks/00", str(path)):
        assert command.chosen([name]) == [path]


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
    [
        (["--all", "03"], {}, "--all runs every notebook: leave it out to run 03 alone"),
        (["--check", "03"], {}, "--check runs no notebook"),
        (["--check", "--in-place"], {}, "--check runs no notebook"),
        ([], {"MEGATRON_TOUR_STOCK": "true"}, "MEGATRON_TOUR_STOCK='true' in the environment: it is 1 or 0."),
        ([], {"MEGATRON_CPU": "yes"}, "MEGATRON_CPU='yes' in the environment: it is 1 or 0."),
        ([], {"MEGATRON_TOUR_RUNS": __file__}, "test_tour.py is a file, and no folder can lie there."),
        ([], {"MEGATRON_TOUR_RUNS": "/proc"}, "Nothing can be written in /proc/tour"),
        (["--check"], {"MEGATRON_TOUR_RUNS": __file__}, "test_tour.py is a file, and no folder can lie there."),
        (["--check"], {"MEGATRON_TOUR_RUNS": "/proc"}, "Nothing can be written in /proc/.ranks"),
        (["--check"], {"MEGATRON_TOUR_CACHE": __file__}, "test_tour.py is a file, and no folder can lie there."),
    ],
)
def test_what_cannot_be_asked_for_is_told_before_a_notebook_starts(
    arguments, variables, words, notebooks, monkeypatch, capsys
):
    write_notebook(notebooks, GOOD, "raise SystemExit('it has started')")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    machine.here.cache_clear()
    try:
        assert command.main(arguments) == 2
    except SystemExit as error:
        assert error.code == 2
    finally:
        machine.here.cache_clear()
    said = capsys.readouterr()
    assert words in said.out + said.err and "it has started" not in said.out
    assert len(said.out.splitlines()) <= 1, "nothing else was done first"


def start_tour(notebooks: Path) -> subprocess.Popen:
    program = (
        "import sys; from pathlib import Path; from helpers.tour import command, execute;"
        f"command.NOTEBOOKS = Path({str(notebooks)!r}); execute.STUBBORN_SECONDS = 3; sys.exit(command.main([]))"
    )
    environment = os.environ | {"MEGATRON_CPU": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", program], cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True
    )


def told(condition, process: subprocess.Popen):
    """The first true answer while the tour goes on."""
    found = wait_for(lambda: condition() or process.poll() is not None)
    assert process.poll() is None
    return found


def alive(family: list[psutil.Process]) -> list[psutil.Process]:
    """Those still there; ended here, so that a failing test leaves none behind either."""
    left = [process for process in family if execute.is_alive(process)]
    for process in left:
        process.kill()
    return left


STUBBORN = """
import signal, subprocess, sys, time
child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(3600)"
process = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE, start_new_session=True)
process.stdout.readline()
open("pids", "w").write(f"{process.pid}")
time.sleep(3600)
"""


@pytest.mark.parametrize(("number", "before"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_a_stopped_tour_leaves_no_process(notebooks, number, before):
    if before:
        write_notebook(notebooks, GOOD, "print('done before')")
    write_notebook(notebooks, "01_long", STUBBORN)
    write_notebook(notebooks, "02_never", "print('never')")
    process = start_tour(notebooks)
    try:
        pids = notebooks / "pids"
        told(lambda: pids.exists() and pids.read_text(), process)
        family = psutil.Process(process.pid).children(recursive=True)
        assert int(pids.read_text()) in {child.pid for child in family}
        process.send_signal(number)
        said, _ = process.communicate()
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert "Stopped. No process of the tour is left." in said
    assert (f"✓ {GOOD}" in said) == before and "02_never" not in said
    assert alive(family) == []
    assert (tour_directory(notebooks) / "tour.html").exists() == before


@pytest.mark.train
def test_the_first_five_are_the_tour_and_later_ones_run_when_asked_for(notebooks):
    for name in ("00_a", "04_b", "05_c", "10_d"):
        (notebooks / f"{name}.ipynb").touch()

    def asked(*arguments):
        return [path.stem for path in command.chosen(*arguments)]

    assert asked([]) == ["00_a", "04_b"] and asked(["05"]) == ["05_c"]
    assert asked([], True) == ["00_a", "04_b", "05_c", "10_d"]


def test_the_closing_table_is_read_in_80_columns(monkeypatch, capsys, tmp_path):
    rows = [("✗ 02_gpt3_345m_one_gpu", "12.3", "12", "1,234,567,890", "11.164 → 10.760")]
    monkeypatch.setattr(command, "rows", lambda chapters: rows)
    monkeypatch.setattr(command.page, "write", lambda *_: tmp_path / "tour.html")
    monkeypatch.setenv("COLUMNS", "80")
    command.show([], tmp_path, "2-core CPU")
    printed = capsys.readouterr().out
    assert all(cell in printed for cell in rows[0]) and "…" not in printed


def test_the_table_tells_what_a_chapter_trained(tiny_run):
    chapter = execute.Chapter("02_x", 90.0, None, None, (tiny_run.path,))
    ((name, minutes, what, tokens, losses),) = command.rows([chapter])
    assert (name, minutes, what) == ("✓ 02_x", "1.5", "1")
    assert tokens == f"{30 * tiny_run.tokens_per_step:,}"
    first, last = map(float, losses.split(" → "))
    assert 5 < first < 7 and last < first
    assert command.rows([execute.Chapter("00_y", 6.0, None, None, ())]) == [("✓ 00_y", "0.1", "–", "–", "–")]


TRAINING = """
from helpers import corpus, launch, recipes
data = corpus.prepare({corpus!r}, tokenizer="bpe-512")
recipe = recipes.gpt3_345m().scaled_to("cpu").with_(
    name="endless", num_layers=2, hidden_size=64, sequence_length=64, vocab_size=512, tokenizer="bpe-512",
    processes=2, train_iters=100_000, save_interval=None, eval_interval=100_000, eval_iters=1,
)
launch.train(recipe, data)
"""


@pytest.mark.train
def test_a_tour_stopped_while_it_trains_leaves_no_rank(notebooks, small_jsonl):
    write_notebook(notebooks, "00_trains", TRAINING.format(corpus=str(small_jsonl)))
    process = start_tour(notebooks)
    try:
        log = told(lambda: next((notebooks.parent / "runs").glob("tour/*/runs/endless/*/log.txt"), None), process)
        told(lambda: "iteration" in log.read_text(), process)
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        process.communicate()
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert len(family) >= 5, "kernel, supervisor, torchrun and two ranks"
    assert alive(family) == []


def test_outputs_lose_the_paths_of_this_machine_and_the_state_of_widgets(tmp_path, monkeypatch):
    runs = tmp_path / "runs"
    outputs = [
        nbformat.v4.new_output(
            "stream",
            text=f"see {runs}/gpt/1/log.txt in {PROJECT}/helpers with {sys.prefix}/bin/python {tmp_path}/corpora/a",
        ),
        nbformat.v4.new_output(
            "display_data", data={page.WIDGET: {"model_id": "1"}, "text/html": f"<b>{Path.home()}/x {PROJECT}</b>"}
        ),
        nbformat.v4.new_output("display_data", data={page.WIDGET: {"model_id": "2"}}),
    ]
    cell = nbformat.v4.new_code_cell("1", outputs=outputs, metadata={"execution": {"iopub.status.idle": "now"}})
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": {"state": {}}})

    monkeypatch.setenv("MEGATRON_TOUR_CACHE", str(tmp_path / "corpora"))
    page.tidy(notebook, runs)

    assert cell.outputs[0].text == "see runs/gpt/1/log.txt in helpers with .venv/bin/python ~/.cache/megatron-tour/a"
    assert cell.outputs[1].data == {"text/html": "<b>~/x .</b>"}
    assert len(cell.outputs) == 2 and "execution" not in cell.metadata and "widgets" not in notebook.metadata
    nbformat.validate(notebook)


def test_a_line_stays_above_the_picture_that_it_announces():
    stream, picture = partial(nbformat.v4.new_output, "stream"), nbformat.v4.new_output("display_data", data={"a": "b"})
    outputs = [stream(text="one"), stream(text=":\n"), picture, stream(text="  5%|\r 50%|"), stream(text="\r100%|\n")]
    outputs += [stream(name="stderr", text="oh\n"), picture]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1", outputs=outputs)])

    page.tidy(notebook, Path("/nowhere"))

    shown = [(output.get("name"), output.get("text")) for output in notebook.cells[0].outputs]
    nothing = (None, None)
    assert shown == [("stdout", "one:\n"), nothing, ("stdout", "100%|\n"), ("stderr", "oh\n"), nothing]


@pytest.mark.filterwarnings("error")
def test_cells_of_one_name_in_two_notebooks_are_two_on_the_page():
    cell = nbformat.v4.new_markdown_cell("# words", id="cell-00")
    one, other = (nbformat.v4.new_notebook(cells=[cell]) for _ in range(2))
    names = [cell["id"] for cell in page.combine("Both", "Words.", {"one": one, "other": other}).cells]
    assert len(names) == len(set(names)) == 5


def test_the_command_is_installed_and_explains_itself():
    command = Path(sys.executable).with_name("megatron-tour")
    shown = subprocess.run([command, "--help"], capture_output=True, text=True, env=os.environ)
    assert shown.returncode == 0 and "--check" in shown.stdout and "--in-place" in shown.stdout

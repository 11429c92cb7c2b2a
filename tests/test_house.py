"""The house: who may import whom. A wing imports lower floors only, never its neighbour on the same floor."""

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
HELPERS = PROJECT / "helpers"
FLOORS = (  # from the ground up
    ("show", "ranks"),
    ("machine",),
    ("corpus", "processes"),
    ("recipes",),
    ("runs",),
    ("launch", "cluster", "formats", "weights"),
    ("planner",),
    ("plots",),
    ("lessons",),
    ("environment",),
    ("tour",),
)
FLOOR = {wing: number for number, wings in enumerate(FLOORS, start=1) for wing in wings}
FACES = (
    "machine",
    "corpus",
    "recipes",
    "runs",
    "launch",
    "cluster",
    "formats",
    "weights",
    "planner",
    "plots",
    "environment",
)
STARTED = re.compile(r"\bhelpers\.(\w+)")  # in `-m helpers.…` and in programs that are handed over as text
HEAVY = ("torch", "matplotlib", "pandas")
TESTS = PROJECT / "tests"
TESTS_IN_TEXT = re.compile(r"^\s*(?:from|import) (test_\w+)", re.MULTILINE)  # in programs that are handed over as text


def modules() -> list[Path]:
    return sorted(HELPERS.rglob("*.py"))


def wing_of(path: Path) -> str:
    return path.relative_to(HELPERS).parts[0]


def imported(tree: ast.AST) -> list[tuple[int, str]]:
    """(line, wing) of every import of ours, those inside functions and in strings that start a program too."""
    found = []
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "helpers":
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("helpers."):
            found.append((node.lineno, node.module.split(".")[1]))
        elif isinstance(node, ast.ImportFrom) and node.level:
            found.append((node.lineno, "a relative import"))
        elif isinstance(node, ast.Import):
            found += [(node.lineno, alias.name.split(".")[1]) for alias in node.names if alias.name[:8] == "helpers."]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            found += [(node.lineno, name) for name in STARTED.findall(node.value)]
    return found


def wrong_arrows(source: str, path: Path) -> list[str]:
    """A line each: file, line, and the arrow that does not point down."""
    wing = wing_of(path)
    return [
        f"{path.relative_to(PROJECT)}:{line}: {wing} (floor {FLOOR[wing]}) → {other} (floor {FLOOR.get(other, '?')})"
        for line, other in imported(ast.parse(source))
        if other != wing and FLOOR.get(other, len(FLOORS) + 1) >= FLOOR[wing]
    ]


def test_every_module_lies_in_a_wing():
    loose = [path.name for path in HELPERS.iterdir() if path.name not in {*FLOOR, "__init__.py", "__pycache__"}]
    assert not loose, f"helpers/ holds wings only; these have none: {loose}"
    assert not [wing for wing in FLOOR if not (HELPERS / wing / "__init__.py").is_file()]


def test_imports_point_down():
    wrong = [line for path in modules() if path.parent != HELPERS for line in wrong_arrows(path.read_text(), path)]
    assert not wrong, "A wing imports lower floors only:\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("wing", "source", "arrow"),
    [
        ("corpus", "from helpers.plots import loss", "1: corpus (floor 3) → plots (floor 8)"),
        ("processes", "def f():\n    from helpers import runs", "2: processes (floor 3) → runs (floor 5)"),
        ("launch", "from helpers import formats", "1: launch (floor 6) → formats (floor 6)"),
        ("show", "import helpers.machine", "1: show (floor 1) → machine (floor 2)"),
        ("runs", "x = ['-m', 'helpers.launch.live']", "1: runs (floor 5) → launch (floor 6)"),
        ("runs", "from helpers import nowhere", "1: runs (floor 5) → nowhere (floor ?)"),
        ("runs", "'''Started by helpers.launch.'''\nfrom helpers.recipes import Recipe", None),
    ],
)
def test_a_wrong_arrow_is_named_with_file_and_line(wing, source, arrow):
    path = HELPERS / wing / "module.py"
    assert wrong_arrows(source, path) == ([f"helpers/{wing}/module.py:{arrow}"] if arrow else [])


def test_no_circle_inside_a_wing():
    """Imports at the top of modules form no circle (those inside functions may look at their neighbours)."""
    needs: dict[str, set[str]] = {}
    for path in modules():
        if path.name != "__init__.py":
            tops = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ImportFrom)]
            names = {f"{node.module}.{alias.name}" for node in tops for alias in node.names}
            names |= {node.module for node in tops if node.module}
            needs["helpers." + ".".join(path.relative_to(HELPERS).with_suffix("").parts)] = names
    while leaves := [name for name, others in needs.items() if not others & needs.keys()]:
        for name in leaves:
            del needs[name]
    assert not needs, f"These import each other: {sorted(needs)}"


def test_faces_are_short_and_only_hand_on():
    for wing in FLOOR:
        text = (HELPERS / wing / "__init__.py").read_text()
        nodes = ast.parse(text).body
        if wing not in FACES:
            assert not nodes, f"helpers/{wing}/__init__.py stays empty: programs started with -m import it"
            continue
        assert len(text.splitlines()) < 40
        assert ast.get_docstring(ast.parse(text))
        assert all(isinstance(node, ast.ImportFrom) for node in nodes[1:]), f"the face of {wing} only hands names on"


SAY_IT_THEMSELVES = re.compile(  # in their own words
    "broken_log|diagnose|given|given_folder|identity|megatron_definitions|quietly|told"
)
INNER_FACES = ("recipes.accounting", "recipes.costs", "recipes.preflight", "plots.widgets")


def test_what_a_face_hands_on_tells_a_wrong_argument():
    """`show.arguments.checked` does, in one place, or `show.names.named`, and the rest is said in the function's words;
    a function without arguments has none that is wrong."""
    bare, lessons = [], (f"lessons.{path.stem}" for path in (HELPERS / "lessons").glob("[a-z]*.py"))
    for face in (*FACES, *INNER_FACES, *lessons):
        module = importlib.import_module(f"helpers.{face}")
        for name, function in vars(module).items():
            if not inspect.isfunction(function) or name.startswith("_") or SAY_IT_THEMSELVES.fullmatch(name):
                continue
            own = f"{function.__module__}.".startswith(f"helpers.{face}.")
            if own and inspect.signature(function).parameters and not hasattr(function, "__wrapped__"):
                bare.append(f"{face}.{name}")
    assert not bare, f"without @checked or @named: {bare}"


def test_no_module_is_named_like_a_name_that_its_face_hands_on():
    """Importing `corpus/prepare.py` would put the module in the place of `corpus.prepare`."""
    for face in HELPERS.rglob("__init__.py"):
        nodes = [node for node in ast.parse(face.read_text()).body if isinstance(node, ast.ImportFrom)]
        here = "helpers." + ".".join(face.parent.relative_to(HELPERS).parts)
        handed_on = {alias.asname or alias.name for node in nodes if node.module != here for alias in node.names}
        names = {path.stem for path in face.parent.iterdir() if not path.name.startswith("__")}
        assert not handed_on & names, f"{face}: {handed_on & names}"


def test_modules_stay_under_about_300_lines():
    long = {str(path.relative_to(PROJECT)): n for path in modules() if (n := len(path.read_text().splitlines())) > 320}
    assert not long, f"Is there a second noun inside? {long}"


def imported_tests(source: str, path: Path) -> list[str]:
    """A line each: file, line, and the test module that is imported there."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            found.append((node.lineno, node.module or ""))
        elif isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found += [(node.lineno, name) for name in TESTS_IN_TEXT.findall(node.value)]
    return [f"{path.relative_to(PROJECT)}:{line}: {name}" for line, name in found if ".test_" in f".{name}"]


def test_no_test_imports_another():
    others = [path for path in TESTS.rglob("*.py") if path != Path(__file__)]  # this one holds the examples below
    wrong = [line for path in others for line in imported_tests(path.read_text(), path)]
    assert not wrong, "What several tests need stands in a module of its own, beside conftest.py:\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("import json\nfrom test_a import curves", "2: test_a"),
        ("def f():\n    import json, test_a as t", "2: test_a"),
        ("from tests.runs.test_a import curves", "1: tests.runs.test_a"),
        ("PROGRAM = 'import sys\\nimport test_a as t'", "1: test_a"),
        ("from records import curves\n'Made for test_a.py: see import test_a there.'", None),
    ],
)
def test_an_import_of_a_test_is_named_with_file_and_line(source, named):
    assert imported_tests(source, TESTS / "module.py") == ([f"tests/module.py:{named}"] if named else [])


def test_tests_mirror_the_wings():
    """And no two files share a name, by which alone pytest knows those of folders that are no packages."""
    folders = {path.relative_to(TESTS).parts[0] for path in TESTS.glob("*/**/test_*.py")}
    assert folders <= {*FLOOR, "benchmarks", "notebooks"}
    names = [path.stem for path in TESTS.rglob("*.py")]
    assert sorted(names) == sorted(set(names))


def loaded_by(program: str) -> list[str]:
    """Which of HEAVY a new interpreter has loaded after `program`."""
    asked = f"{program}\nimport json, sys\nprint(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", asked], cwd=PROJECT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_environment_loads_nothing_heavy():
    assert loaded_by("import helpers.environment") == []


def test_the_check_of_a_machine_loads_nothing_heavy():
    """Its own process, that is: PyTorch is imported by the probe, in a child."""
    check = "from helpers.tour import command\ncommand.main(['--check'])"
    assert loaded_by(f"import os\nos.environ['MEGATRON_CPU'] = '1'\n{check}") == []

"""What lies in a run directory before torchrun starts: the script above all."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from other_users import NOBODY, as_nobody, only_root, open_folder

from helpers.machine import CPU, PROJECT
from helpers.processes import run_directory
from helpers.recipes.flag import Flag

NASTY = """a b$(touch ran)`touch ran`"'\\}~*;\n touch ran\n#é"""  # all that a shell may take for its own


@pytest.mark.parametrize("place", ["title", "value", "path", "why", "subject", "flag", "program"])
def test_nothing_that_is_given_is_run_by_the_shell(place, tmp_path):
    given = dict.fromkeys(("title", "value", "path", "why", "subject", "flag", "program"), "plain") | {place: NASTY}
    show = "import os, sys; print([sys.argv[1:], os.environ['VALUE'], os.environ['SOME_PATH']])"
    script = run_directory.write_command(
        tmp_path,
        given["title"],
        [sys.executable, "-c", show, given["program"]],
        {"VALUE": (given["value"], given["why"]), "SOME_PATH": (given["path"], "")},
        {given["subject"]: [Flag("--flag", given["flag"], given["why"])]},
    )
    text = script.read_text().replace(f"cd {PROJECT}\n", "")
    environment = {"SOME_PATH": "mine"}
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.stdout == f"{[[given['program'], '--flag', given['flag']], given['value'], given['path'] + ':mine']}\n"
    assert not (tmp_path / "ran").exists() and not done.stderr


def test_what_the_learner_has_set_stays(tmp_path):
    show = "import os; print(os.environ['VALUE'])"
    script = run_directory.write_command(tmp_path, "run", [sys.executable, "-c", show], {"VALUE": ("ours", "")}, {})
    for variables, seen in (({}, "ours"), ({"VALUE": "a 'b'  $c"}, "a 'b'  $c"), ({"VALUE": ""}, "ours")):
        done = subprocess.run(["bash", script], capture_output=True, text=True, env=variables)
        assert done.stdout == f"{seen}\n", done.stderr


def test_ranks_import_our_package_before_another_of_its_name(tmp_path):
    (tmp_path / "helpers").mkdir()
    (tmp_path / "helpers" / "__init__.py").write_text("raise SystemExit('the other package was imported')")
    rank = tmp_path / "elsewhere" / "rank.py"
    rank.parent.mkdir()
    rank.write_text("import helpers; print(helpers.__path__[0])")
    script = run_directory.write_command(tmp_path, "run", [sys.executable, str(rank)], {}, {})
    done = subprocess.run(["bash", script], capture_output=True, text=True, env={"PYTHONPATH": str(tmp_path)})
    assert done.stdout == f"{PROJECT / 'helpers'}\n", done.stderr


@pytest.mark.parametrize("name", ["gpt3_345m", "tiny", "lr_3e-4", "größe", "a.b+c", "語" * 60, "n" * 100])
def test_good_names_make_folders(name, tmp_path):
    assert run_directory.why_no_name(name) is None
    run_directory.new_directory(tmp_path / name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../x", "a b", "a\nb", "-rf", "$(x)", "n" * 101, "語" * 100, None, 5]
)
def test_other_names_are_refused(name):
    assert "names a folder" in run_directory.why_no_name(name)


def test_a_later_run_has_a_later_name_whatever_the_clock_says(tmp_path):
    """Another login node made the first one, or summer time ended since."""
    ahead = tmp_path / time.strftime("%Y%m%d-%H%M%S", time.localtime(time.time() + 600))
    ahead.mkdir()
    (tmp_path / "notes").mkdir()
    made = [run_directory.new_directory(tmp_path) for _ in range(2)]
    assert sorted([*made, ahead]) == [ahead, *made]


@only_root
def test_another_users_closed_run_beside_ones_own_is_passed_by():
    with open_folder() as folder:
        folder.chmod(0o777)
        theirs = run_directory.new_directory(folder)
        (theirs / "recipe.json").write_text("null")
        theirs.chmod(0o700)

        def claim():
            with run_directory.claim(folder, {}, fresh=False) as (directory, _):
                return directory

        mine = as_nobody(claim)
        assert Path(mine).parent == folder and Path(mine) != theirs and Path(mine).stat().st_uid == NOBODY


def test_a_place_where_no_run_can_be_made_is_told_with_the_way_out(tmp_path, monkeypatch):
    (tmp_path / "recipe").touch()
    with pytest.raises(OSError, match=r"Nothing can be written in .*/recipe: .*\. runs_dir=<a folder of yours>"):
        run_directory.new_directory(tmp_path / "recipe")
    monkeypatch.setenv("MEGATRON_TOUR_RUNS", "/proc")
    with pytest.raises(OSError, match="Nothing can be written in /proc/tour: .*MEGATRON_TOUR_RUNS=<a folder"):
        run_directory.new_directory(Path("/proc/tour"))


@only_root
def test_a_place_for_programs_that_another_user_keeps_is_told_with_the_way_out(monkeypatch):
    with open_folder() as folder:
        monkeypatch.setenv("MEGATRON_TOUR_RUNS", str(folder))
        run_directory.scratch("probe")
        refusal = as_nobody(lambda: run_directory.scratch("probe"))
    assert refusal == (
        f"PermissionError: Nothing can be written in {folder}/.ranks: Permission denied. "
        "MEGATRON_TOUR_RUNS=<a folder of yours> in the environment puts it elsewhere."
    )


def test_of_the_learners_environment_a_record_names_what_nccl_was_told(monkeypatch):
    monkeypatch.setenv("NCCL_NET", "Socket")
    monkeypatch.setenv("SECRET_TOKEN", "abc")
    kept = run_directory.provenance(CPU, {})["variables"]
    assert kept["NCCL_NET"] == "Socket" and "abc" not in kept.values()

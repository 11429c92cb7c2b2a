import os
import shutil

import pytest

from helpers import runs
from helpers.processes import run_directory, trust


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def test_what_a_run_here_writes_is_trusted_and_a_copy_of_it_is_not(tmp_path):
    with run_directory.claim(tmp_path / "recipe", {}, fresh=True) as (directory, _):
        pass
    assert trust.is_trusted(directory / "checkpoints") and trust.why_not(directory) is None
    (directory / "checkpoints" / "iter_0000010").mkdir(parents=True)
    copy = shutil.copytree(directory, tmp_path / "recipe" / "20200101-000000")
    assert not trust.is_trusted(copy) and "runs whatever its author put into it" in trust.why_not(copy)
    runs.trust(copy)
    assert trust.is_trusted(copy) and trust.is_trusted(directory)


def test_the_list_is_this_users_alone(tmp_path):
    (tmp_path / "iter_0000010").mkdir()
    runs.trust(tmp_path)
    runs.trust(tmp_path)
    (listed,) = (tmp_path / "state").rglob("trusted-checkpoints")
    assert listed.stat().st_mode & 0o777 == 0o600
    assert listed.read_text() == f"{os.getuid()} {tmp_path}\n"
    listed.write_text(f"{os.getuid() + 1} {tmp_path}\n")  # as if the folder were another user's by now
    assert not trust.is_trusted(tmp_path)


def test_a_folder_that_is_not_there_cannot_be_trusted(tmp_path):
    (tmp_path / "file").touch()
    for nothing in ("nowhere", "file", "x" * 300):
        with pytest.raises(FileNotFoundError, match="There is no folder"):
            runs.trust(tmp_path / nothing)
    with pytest.raises(TypeError, match=r"runs.trust\(None\): it takes a path"):
        runs.trust(None)
    with pytest.raises(ValueError, match="the home that ~ stands for is not known"):
        runs.trust("~nobody_of_that_name/run")


def test_a_folder_of_one_run_of_a_recipes_or_of_all_can_be_trusted(tmp_path):
    run = tmp_path / "runs" / "recipe" / "20200101-000000"
    (run / "checkpoints" / "iter_0000010").mkdir(parents=True)
    for folder in (run / "checkpoints", run, run.parent, run.parent.parent):
        runs.trust(folder)
        assert trust.is_trusted(folder)


@pytest.mark.parametrize("place", ["/", "/etc", "~", "/tmp", "/root/..", "/usr"])
def test_no_more_is_trusted_than_a_run(place):
    with pytest.raises(ValueError, match="anybody puts there would be loaded|no checkpoint lies in it"):
        runs.trust(place)
    assert not trust.is_trusted("/etc") and not trust.is_trusted("/tmp/run")


def test_a_folder_into_which_everybody_writes_is_not_trusted(tmp_path):
    (tmp_path / "iter_0000010").mkdir()
    tmp_path.chmod(0o777)
    with pytest.raises(ValueError, match="whatever anybody puts there would be loaded"):
        runs.trust(tmp_path)


def test_a_home_that_takes_nothing_is_told(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    trust.written_here(tmp_path)
    assert "XDG_STATE_HOME=" in capsys.readouterr().out
    assert not trust.is_trusted(tmp_path)

"""environment.md says what the project is: its tables are those of pyproject.toml and of the table of symptoms."""

import re

import pytest
from environment_page import PAGE, TABLES, purposes, said, table_of

from helpers.environment import host, software
from helpers.machine import PROJECT
from helpers.processes.symptoms import SYMPTOMS
from helpers.tour import command


@pytest.mark.parametrize("name", TABLES)
def test_the_table_is_the_current_one(name):
    assert table_of(name) == TABLES[name](), "write it again: uv run python tests/environment/environment_page.py"


def test_the_page_says_what_each_package_is_for():
    words = purposes()
    assert [name for name in software.pins() if not words.get(name, "").strip()] == []


def test_every_symptom_is_readable():
    for symptom in SYMPTOMS:
        words = said(symptom.pattern)
        assert len(words) > 5 and not re.search(r"[\\^]|\(\?", words), (symptom.name, words)


def test_the_three_ways_in_and_what_was_not_run_are_there():
    text = PAGE.read_text()
    for words in (host.CONTAINER, host.CONTAINER_FLAGS, "uv sync --extra gpu", "PEP 668", "f4fa7d6b", "2×B200"):
        assert words in text
    not_run = text[text.index("## Not run by us") :]
    for words in ("VS Code", "WSL2", "container", "Blackwell", "W&B"):
        assert words in not_run


def test_every_command_of_the_page_names_files_and_options_that_exist(capsys):
    with pytest.raises(SystemExit):
        command.main(["--help"])
    known = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
    text = PAGE.read_text()
    options = set(re.findall(r"megatron-tour (--[\w-]+)", text))
    assert options and options <= known, options - known
    for link in re.findall(r"\]\((?!https?://|#)([^)#]+)", text):
        assert (PROJECT / link).exists(), link

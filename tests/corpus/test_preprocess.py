"""Megatron-LM's tools/preprocess_data.py, as we tell it to run: it writes our bytes."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import corpus

VERSION = "core_v0.19.0"


def test_the_line_says_what_is_run(small_jsonl, small_corpus, tmp_path):
    command = corpus.preprocess_data(small_jsonl, small_corpus, tmp_path / "it's mine")
    assert command.argv[:2] == ("python", "tools/preprocess_data.py")
    shown = repr(command).replace("~", str(Path.home()))
    assert shlex.split(shown.replace("\\\n", " ")) == list(command.argv)
    assert command.table().loc["--append-eod", "value"] == "" and len(command.table()) == 7
    assert "&#x27;" in command._repr_html_()


def test_only_a_file_of_json_lines_is_given_to_nvidias_tool(tmp_path, small_corpus):
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "one.txt").write_text("To be, or not to be.\n" * 20)
    data = corpus.prepare(texts, tokenizer=small_corpus.tokenizer_path)
    with pytest.raises(ValueError, match="texts is a folder, and Megatron's preprocess_data.py opens one") as told:
        corpus.preprocess_data(texts, data)
    written = Path(str(told.value).split("give its path, ")[1].rstrip(".")).expanduser()
    (found,) = written.parents[1].glob(f"{written.parent.name}/{written.name}")
    assert str(found) in corpus.preprocess_data(found, data).argv
    for name in ("one.txt", "packed.jsonl.gz"):
        with pytest.raises(ValueError, match=f"{name} is a {Path(name).suffix} file"):
            corpus.preprocess_data(texts / name, data)


@pytest.fixture(scope="module")
def nvidias_tool(tmp_path_factory) -> Path:
    """NVIDIA's script alone in a folder: their clone's `megatron/` would stand beside the wheel's."""
    clone = os.environ.get("MEGATRON_LM")
    if not clone:
        pytest.skip("MEGATRON_LM names no clone of Megatron-LM (or bare git directory) to take preprocess_data.py from")
    shown = subprocess.run(
        ["git", "-C", clone, "show", f"{VERSION}:tools/preprocess_data.py"], capture_output=True, check=True
    )
    path = tmp_path_factory.mktemp("nvidia") / "tools" / "preprocess_data.py"
    path.parent.mkdir()
    path.write_bytes(shown.stdout)
    return path


@pytest.mark.parametrize("workers", [1, 2])
def test_nvidias_tool_run_with_that_line_writes_our_bytes(nvidias_tool, small_jsonl, small_corpus, tmp_path, workers):
    command = corpus.preprocess_data(small_jsonl, small_corpus, tmp_path / "theirs", workers=workers)
    done = subprocess.run(
        [sys.executable, nvidias_tool, *command.argv[2:]], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for ending in (".bin", ".idx"):
        theirs = Path(f"{tmp_path}/theirs_text_document{ending}").read_bytes()
        assert theirs == Path(f"{small_corpus.prefix}{ending}").read_bytes()

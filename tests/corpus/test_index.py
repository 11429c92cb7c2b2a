"""The .idx/.bin reader and writer, and Megatron's split worked out without Megatron."""

import struct
import subprocess
import sys

import numpy as np
import pytest

from helpers.corpus import data_split, index
from helpers.corpus.index import InvalidIndex

# Three documents: two sequences, none, one.
SEQUENCES = [[1, 2, 3], [4, 5], [6, 7, 8, 9]]


@pytest.fixture
def prefix(tmp_path):
    with index.Writer(tmp_path / "tiny_text_document", "uint16") as writer:
        writer.add(np.array([1, 2, 3, 4, 5], dtype=np.uint16).tobytes(), [3, 2], [2, 0])
        writer.add(np.array([6, 7, 8, 9], dtype=np.uint16).tobytes(), [4], [1])
    return tmp_path / "tiny_text_document"


def test_the_bytes_written(prefix):
    assert index.bin_path(prefix).read_bytes() == struct.pack("<9H", *range(1, 10))
    assert index.idx_path(prefix).read_bytes() == (
        b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 8, 3, 4) + struct.pack("<3i", 3, 2, 4)
        + struct.pack("<3q", 0, 6, 10) + struct.pack("<4q", 0, 2, 2, 3)
    )  # fmt: skip
    assert sorted(path.suffix for path in prefix.parent.iterdir()) == [".bin", ".idx"]


def test_reading_back(prefix):
    opened = index.inspect(prefix)
    assert (opened.sequences, opened.documents, opened.tokens, opened.dtype) == (3, 3, 9, "uint16")
    assert [opened.sequence(i).tolist() for i in range(3)] == SEQUENCES
    assert opened.document_lengths().tolist() == [5, 0, 4]
    assert opened.max_token_id() == 9


def test_many_blocks_give_the_pointers_of_one(tmp_path, monkeypatch):
    monkeypatch.setattr(index, "CHUNK", 7)
    lengths = np.random.default_rng(0).integers(1, 50, size=100)
    with index.Writer(tmp_path / "a", "int32") as writer:
        for length in lengths:
            writer.add(np.full(length, length, dtype=np.int32).tobytes(), [length], [1])
    opened = index.inspect(tmp_path / "a")
    assert opened.sequence_pointers.tolist() == [0, *(np.cumsum(lengths) * 4)[:-1]]
    assert all((opened.sequence(i) == lengths[i]).all() for i in range(100))
    assert opened.max_token_id() == lengths.max()


def test_a_writer_that_fails_leaves_no_index(tmp_path):
    with pytest.raises(RuntimeError), index.Writer(tmp_path / "a", "uint16") as writer:
        writer.add(b"\0\0", [1], [1])
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_fields_cover_every_byte_with_the_values_there(prefix):
    table = index.fields(prefix, first=9)
    raw = index.idx_path(prefix).read_bytes()
    assert table.offset.tolist() == [0, *table.bytes.cumsum().tolist()[:-1]]
    assert table.bytes.sum() == len(raw)
    codes = {"uint64": "<Q", "uint8": "<B", "int32": "<i", "int64": "<q"}
    for row in table.iloc[1:].itertuples():
        assert struct.unpack_from(codes[row.type], raw, row.offset)[0] == row.value, row
    assert table.value[0] == raw[:9].hex(" ")
    assert "two zero bytes" in table._repr_html_(), "sentences are shown whole"
    short = index.fields(prefix, first=1)
    assert short.field.tolist()[5:] == [
        "sequence length [0]", "sequence length [2]", "sequence pointer [0]", "sequence pointer [2]",
        "document index [0]", "document index [3]",
    ]  # fmt: skip


def rewrite(prefix, change) -> None:
    path = index.idx_path(prefix)
    raw = bytearray(path.read_bytes())
    change(raw)
    path.write_bytes(raw)


def at(offset, code, value):
    return lambda prefix: rewrite(prefix, lambda raw: struct.pack_into(code, raw, offset, value))


DAMAGES = {
    "no .bin": (lambda p: index.bin_path(p).unlink(), "does not exist"),
    "no .idx": (lambda p: index.idx_path(p).unlink(), "does not exist"),
    "truncated .bin": (lambda p: index.bin_path(p).write_bytes(b"\0" * 16), "has 16 bytes, .* 9 tokens .* 18 in all"),
    "half a token": (lambda p: index.bin_path(p).write_bytes(b"\0" * 17), "has 17 bytes"),
    "longer .bin": (lambda p: index.bin_path(p).write_bytes(b"\0" * 20), "has 20 bytes"),
    "empty .bin": (lambda p: index.bin_path(p).write_bytes(b""), "has 0 bytes"),
    "empty .idx": (lambda p: index.idx_path(p).write_bytes(b""), "not a Megatron index"),
    "wrong magic": (at(0, "<B", 0), "not a Megatron index"),
    "cut header": (lambda p: rewrite(p, lambda raw: raw.__delitem__(slice(20, None))), "34-byte header"),
    "truncated .idx": (lambda p: rewrite(p, lambda raw: raw.__delitem__(slice(-8, None))), "truncated or damaged"),
    "other version": (at(9, "<Q", 2), "version 2"),
    "float tokens": (at(17, "<B", 7), "dtype code 7 .float32."),
    "no such dtype": (at(17, "<B", 99), "dtype code 99 .unknown."),
    "int32 tokens": (at(17, "<B", 4), "holds int32 tokens, but this tokenizer needs uint16"),
    "huge counts": (at(18, "<Q", 2**62), "truncated or damaged"),
    "tokens below zero": (at(34 + 4, "<i", -1), "sequence 1 has -1 tokens"),
    "a length of another": (at(34, "<i", 2), "sequence 1 does not start where the one before it ends"),
    "a pointer astray": (at(34 + 12 + 8, "<q", 4), "sequence 1 does not start"),
    "documents backwards": (at(34 + 36 + 8, "<q", 3), "do not count upwards"),
    "documents too few": (at(34 + 12 * 3 + 8 * 3, "<q", 2), "last document index"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_told_in_words(prefix, damage):
    do, said = DAMAGES[damage]
    do(prefix)
    with pytest.raises(InvalidIndex, match=said):
        index.inspect(prefix, dtype="uint16")


def test_the_parts_of_the_speeches():
    """249 documents, --split 949,50,1: the share of test rounds to no document at all."""
    opened = index.Index("x", "uint16", np.full(249, 1000, np.int32), np.arange(249) * 2000, np.arange(250))
    train, valid, test = data_split.parts(opened, "949,50,1", 1024)
    assert (train["first"], train["last"], valid["last"], test["last"]) == (0, 236, 249, 249)
    assert (train["documents"], valid["documents"], test["documents"]) == (236, 13, 0)
    assert (train["tokens"], train["samples"], test["samples"]) == (236_000, 235_999 // 1024, 0)
    assert [part["problem"] for part in (train, valid, test)] == ["", "", "empty"]
    assert data_split.parts(opened, "100,0,0", 1024)[2]["problem"] == ""
    assert [p["problem"] for p in data_split.parts(opened, "245,2,2", 2048)] == ["", "too short", "too short"]
    assert [p["samples"] for p in data_split.parts(opened, "245,2,2", 1999)] == [122, 1, 1]


@pytest.mark.parametrize("split", ["", "a,b", "1,2,3,4", "0,0,0", "-1,1,1", "1,,2", "1..2,3", "nan", "1e3,1"])
def test_a_split_that_is_none_is_refused(split):
    with pytest.raises(ValueError, match="up to three numbers"):
        data_split.parse(split)


def test_parts_are_those_of_megatron():
    from megatron.core.datasets.blended_megatron_dataset_config import (
        convert_split_vector_to_split_matrix,
        parse_and_normalize_split,
    )

    rng = np.random.default_rng(1)
    splits = ["949,50,1", "969, 30, 1", "100", "1,1", "0,1,0", "0,0,3", "98,2,0", ".7,.2,.1", "99,0,1"]
    splits += [",".join(map(str, rng.integers(0, 1000, size=3))) for _ in range(200)]
    for split in splits:
        n = int(rng.integers(1, 5000))
        opened = index.Index("x", "uint16", np.ones(n, np.int32), np.arange(n) * 2, np.arange(n + 1))
        ours = [(p["first"], p["last"]) if p["documents"] else None for p in data_split.parts(opened, split, 1)]
        shares = convert_split_vector_to_split_matrix(parse_and_normalize_split(split))
        edges = [share and (int(round(share[0] * float(n))), int(round(share[1] * float(n)))) for share in shares]
        assert ours == [edge if edge and edge[1] > edge[0] else None for edge in edges], (split, n)


def test_index_and_corpus_import_nothing_heavy():
    code = "import sys, helpers.corpus; print({'torch', 'megatron', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

"""Corpus preparation against the method of Megatron-LM's tools/preprocess_data.py. Run by hand:

    uv run python tests/benchmarks/corpus_preparation.py [--megatron-lm PATH] [--workers N] [--repeats N]

Text: the packaged speeches (12.3 MB of JSON lines), GPT-2's vocabulary. Two tables:
1. Tokenization alone: CPU seconds of one process over a quarter of the lines, read and encoded. "one line at a time" is
   the method's inner loop with the same library; with transformers around it, it is what preprocess_data.py calls.
2. The whole process: wall seconds from the start of Python to both files written, the same number of workers. With
   --megatron-lm a clone's own preprocess_data.py is timed too. All write the same bytes, which is checked.
Repeats are interleaved and the best of each is shown, so that another program's burst does not decide.
"""

import argparse
import functools
import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from helpers import corpus
from helpers.corpus import encoding_process, index
from helpers.corpus.tokenizer import backend_file
from helpers.corpus.word_encoder import WordEncoder


def line_at_a_time(encode: Callable[[str], list[int]], eod_id: int, line: bytes) -> np.ndarray:
    """One JSON line → ids and end of document, as an Encoder of preprocess_data.py does it."""
    return np.array([*encode(json.loads(line)["text"]), eod_id], dtype=np.uint16)


def tokenization(data: corpus.Corpus, lines: list[bytes], repeats: int) -> dict[str, float]:
    """Best CPU seconds of one process for the same lines, by way of encoding. All give the same ids."""
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    backend = backend_file(data.prefix.parent / "tokenizer")
    wrapped = AutoTokenizer.from_pretrained(str(data.tokenizer_path))
    tokenizer = Tokenizer.from_file(str(backend))
    blocks = [b"".join(lines[i : i + 10]) for i in range(0, len(lines), 10)]  # about BLOCK_BYTES each

    def one_by_one(encode) -> bytes:
        return b"".join(line_at_a_time(encode, data.eod_id, line).tobytes() for line in lines)

    def batched() -> bytes:
        ids: list[int] = []
        for block in blocks:
            for encoding in tokenizer.encode_batch_fast([json.loads(line)["text"] for line in block.splitlines()]):
                ids += [*encoding.ids, data.eod_id]
        return np.array(ids, dtype=np.uint16).tobytes()

    def ours() -> bytes:
        words = WordEncoder(backend, "uint16")
        return b"".join(encoding_process.encode_block(words, block, data.eod_id, "text")[0] for block in blocks)

    ways = {
        "one line at a time, through transformers (preprocess_data.py's loop)": lambda: one_by_one(
            lambda text: wrapped(text).input_ids
        ),
        "one line at a time, tokenizers": lambda: one_by_one(lambda text: tokenizer.encode(text).ids),
        "in batches, tokenizers": batched,
        "ours: each word once": ours,
    }
    best: dict[str, float] = {}
    results = set()
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.process_time()
            results.add(hashlib.sha256(way()).hexdigest())
            best[name] = min(best.get(name, np.inf), time.process_time() - start)
    assert len(results) == 1, "the ways do not give the same ids"
    return best


def pool(jsonl: str, backend: str, prefix: str, workers: int) -> None:
    """The method, written compactly: a pool of processes, one line a time, results in order to one writer."""
    with (
        multiprocessing.Pool(workers, _load, (backend,)) as processes,
        open(jsonl, "rb") as lines,
        index.Writer(prefix, "uint16") as writer,
    ):
        for ids in processes.imap(_encode, lines, 32):
            writer.add(ids.tobytes(), [len(ids)], [1])


def _load(backend: str) -> None:
    from tokenizers import Tokenizer

    global _encode_line
    tokenizer = Tokenizer.from_file(backend)
    eod_id = tokenizer.token_to_id("<|endoftext|>")
    _encode_line = functools.partial(line_at_a_time, lambda text: tokenizer.encode(text).ids, eod_id)


def _encode(line: bytes) -> np.ndarray:
    return _encode_line(line)


def whole_process(data: corpus.Corpus, jsonl: Path, workers: int, repeats: int, megatron_lm: str | None) -> dict:
    """Best wall seconds of fresh processes, by way."""
    backend = str(backend_file(data.prefix.parent / "tokenizer"))
    me = "tests.benchmarks.corpus_preparation"
    ways = {
        "a pool, one line at a time (the method)": lambda d: (
            [sys.executable, "-c", f"from {me} import pool; pool({str(jsonl)!r}, {backend!r}, '{d}/x', {workers})"],
            None,
            f"{d}/x.bin",
        ),
        "corpus.prepare": lambda d: (
            [
                sys.executable, "-c",
                f"from helpers import corpus; corpus.prepare({str(jsonl)!r}, cache={str(d)!r}, workers={workers})",
            ],
            None,
            "tokens/*/*_text_document.bin",
        ),
    }  # fmt: skip
    if megatron_lm:
        ways["Megatron-LM's preprocess_data.py"] = lambda d: (
            [
                sys.executable, "-W", "ignore", "tools/preprocess_data.py", "--input", str(jsonl), "--append-eod",
                "--tokenizer-type", "HuggingFaceTokenizer", "--tokenizer-model", str(data.tokenizer_path),
                "--output-prefix", f"{d}/x", "--workers", str(workers),
            ],
            megatron_lm,
            f"{d}/x_text_document.bin",
        )  # fmt: skip
    best: dict[str, float] = {}
    results = set()
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    for _ in range(repeats):
        for name, way in ways.items():
            with tempfile.TemporaryDirectory() as directory:
                command, where, output = way(directory)
                start = time.perf_counter()
                subprocess.run(command, cwd=where, env=environment, check=True, capture_output=True)
                best[name] = min(best.get(name, np.inf), time.perf_counter() - start)
                (file,) = Path(directory).glob(output.removeprefix(f"{directory}/"))
                results.add(hashlib.sha256(file.read_bytes()).hexdigest())
    assert len(results) == 1, "the ways do not write the same bytes"
    return best


def show(title: str, seconds: dict[str, float], megabytes: float) -> None:
    print(f"\n{title}")
    first = next(iter(seconds.values()))
    for name, value in seconds.items():
        print(f"  {name:<64} {value:7.2f} s {megabytes / value:7.2f} MB/s {first / value:6.2f} ×")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megatron-lm", help="a clone of Megatron-LM, core_v0.19.0")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    data = corpus.prepare("sotu")
    jsonl = next((data.prefix.parents[2] / "text").glob("sotu-*/sotu.jsonl")).resolve()
    lines = jsonl.read_bytes().splitlines(keepends=True)[::4]
    show(
        f"Tokenization, one process, best of {arguments.repeats}, CPU time",
        tokenization(data, lines, arguments.repeats),
        sum(map(len, lines)) / 1e6,
    )
    show(
        f"The whole process, {arguments.workers} workers, best of {arguments.repeats}, wall time",
        whole_process(data, jsonl, arguments.workers, arguments.repeats, arguments.megatron_lm),
        jsonl.stat().st_size / 1e6,
    )


if __name__ == "__main__":
    main()

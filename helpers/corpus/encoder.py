"""JSON lines → token ids, in processes of their own (`encoding_process`).

This one hands out blocks of whole lines (about 0.5 MB) and takes back their ids in order. At most two blocks a
process are under way, so memory does not grow with the corpus. A process ends when its stdin ends, so none outlives
its parent. They are plain subprocesses and not `multiprocessing` ones, which import the caller's script again: a
script without `if __name__ == "__main__"` would start everything anew.
"""

import os
import queue
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.corpus import files
from helpers.corpus.encoding_process import REPLY, UnreadableText, documents
from helpers.corpus.files import TextFile
from helpers.machine.variables import python_path

PROGRAM = Path(__file__).with_name("encoding_process.py")


@dataclass(frozen=True)
class Encoded:
    """One block's result: ids as bytes, tokens per sequence, sequences per document, UTF-8 bytes, largest id."""

    source_bytes: int
    tokens: bytes
    sequence_lengths: np.ndarray
    sequences_per_document: np.ndarray
    text_bytes: int
    max_token_id: int


def encode_file(
    jsonl: TextFile, backend: Path, *, dtype: str, eod_id: int, text_key: str, workers: int
) -> Iterator[Encoded]:
    """Tokenize a .jsonl file, block by block, in the file's order.

    Args:
        backend: the tokenizer.json to encode with.
        eod_id: put after each document that has any token (`--append-eod`).
        workers: processes.

    Raises:
        UnreadableText: names the file and line.
        RuntimeError: a process was killed, for memory perhaps; names the file and line.
    """
    command = [sys.executable, "-P", str(PROGRAM), str(backend), dtype, str(eod_id), text_key]
    environment = os.environ | python_path() | {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    processes: list[subprocess.Popen] = []
    idle: queue.SimpleQueue = queue.SimpleQueue()

    def encode(first_line: int, block: bytes) -> Encoded:
        process = idle.get()
        try:
            return _ask(process, jsonl.path, first_line, block)
        finally:
            idle.put(process)

    threads = ThreadPoolExecutor(workers)
    under_way: deque = deque()
    try:
        for _ in range(workers):
            processes.append(subprocess.Popen(command, env=environment, **pipes))
            idle.put(processes[-1])
        for first_line, block in files.line_blocks(jsonl):
            under_way.append(threads.submit(encode, first_line, block))
            if len(under_way) >= 2 * workers:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()
            process.wait()
        threads.shutdown(wait=True)
        for process in processes:
            process.stdin.close()
            process.stdout.close()


def _ask(process: subprocess.Popen, jsonl: Path, first_line: int, block: bytes) -> Encoded:
    try:
        process.stdin.write(struct.pack("<Q", len(block)) + block)
        process.stdin.flush()
        sizes = REPLY.unpack(_read(process.stdout, REPLY.size))
        tokens, lengths, counts, text_bytes, max_token_id, error = sizes
        data = _read(process.stdout, tokens + lengths + counts + error)
    except (OSError, EOFError) as broken:
        code = process.poll()
        raise RuntimeError(
            f"a tokenizing process ended (exit code {code}) while reading {jsonl}, line {first_line} and after; "
            "was it killed for memory? Try fewer: corpus.prepare(..., workers=1)."
        ) from broken
    if error:
        raise files.located(jsonl, first_line, UnreadableText(data.decode()))
    return Encoded(
        source_bytes=len(block),
        tokens=data[:tokens],
        sequence_lengths=np.frombuffer(data[tokens : tokens + lengths], dtype=np.int32),
        sequences_per_document=np.frombuffer(data[tokens + lengths :], dtype=np.int64),
        text_bytes=text_bytes,
        max_token_id=max_token_id,
    )


def _read(stream, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


def texts(jsonl: TextFile, text_key: str) -> Iterator[str]:
    """Every text of a .jsonl file, in order. Raises UnreadableText, which names the file and line."""
    for first_line, block in files.line_blocks(jsonl):
        try:
            for document in documents(block, text_key):
                yield from document
        except UnreadableText as error:
            raise files.located(jsonl.path, first_line, error) from None

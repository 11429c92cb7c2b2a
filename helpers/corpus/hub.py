"""Text from the Hugging Face hub, given up on when it does not answer within ten seconds."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from helpers.corpus.files import SourceError
from helpers.machine.hub import HUB_SECONDS, answers
from helpers.machine.variables import hub_is_off


class HubSilent(SourceError):
    """The hub did not answer in time, or may not be asked (HF_HUB_OFFLINE)."""


def fetch(dataset: str, text_key: str, jsonl: Path) -> None:
    """Write a column of a dataset's `train` split to a .jsonl file.

    Raises:
        HubSilent: the hub did not answer in time, or may not be asked. SourceError: it answered, but not with text.
    """
    if hub_is_off():
        why = "HF_HUB_OFFLINE is set, so the Hugging Face hub was not asked."
    else:
        why = _fetch_in_child(dataset, text_key, jsonl)
    if why and _downloaded_before(dataset):
        why = _fetch_in_child(dataset, text_key, jsonl, offline=True)
    if why:
        raise HubSilent(why)


def _downloaded_before(dataset: str) -> bool:
    home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    datasets = Path(os.environ.get("HF_DATASETS_CACHE") or home / "datasets").expanduser()
    return (datasets / dataset.replace("/", "___")).is_dir()


def _fetch_in_child(dataset: str, text_key: str, jsonl: Path, offline: bool = False) -> str | None:
    """None when the file is written, else why the hub counts as silent."""
    program = Path(__file__).with_name("hub_process.py")
    answered, last, bar = False, {}, None
    asked = answers(program, dataset, text_key, str(jsonl), seconds=HUB_SECONDS, offline=offline)
    with contextlib.closing(asked), contextlib.ExitStack() as shown:
        for last in asked:
            answered = answered or last.get("answered", False)
            if "rows" in last:
                bar = bar or shown.enter_context(progress(f"Fetching {dataset}", last["of"], " documents"))
                bar.update(last["rows"] - bar.n)
    if last.get("done"):
        return None
    if answered:
        raise SourceError(f"{dataset} from the Hugging Face hub: {last.get('error', 'the download was cut off.')}")
    if "error" in last:
        return f"The Hugging Face hub cannot be reached ({last['error']})."
    return f"The Hugging Face hub did not answer within {HUB_SECONDS:.0f} s."


def progress(what: str, total: int | None, unit: str, delay: float = 0.0) -> tqdm:
    """A progress bar as text, on stdout: it stays readable in a saved notebook. `delay`: seconds until it is shown."""
    return tqdm(total=total, desc=what, unit=unit, unit_scale=True, file=sys.stdout, mininterval=0.5, delay=delay)


@contextlib.contextmanager
def ticking(bar: tqdm) -> Iterator[tqdm]:
    """The bar, drawn anew each second: its clock goes on while one long document is under way."""
    over = threading.Event()

    def tick() -> None:
        while not over.wait(1.0):
            bar.refresh()

    clock = threading.Thread(target=tick, daemon=True)
    clock.start()
    try:
        with bar:
            yield bar
    finally:
        over.set()
        clock.join()

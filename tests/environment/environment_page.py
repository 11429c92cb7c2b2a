"""The two tables of environment.md that follow from the project: `uv run python tests/environment/environment_page.py`
writes them again.

What each package is for is said on the page itself: there the words are kept, and a new package waits for them.
"""

import re

from helpers.environment import software
from helpers.machine import PROJECT
from helpers.processes.symptoms import SYMPTOMS

PAGE = PROJECT / "environment.md"
ROW = re.compile(r"^\| (\S+) \| \S+ \| (.*) \|$", re.MULTILINE)  # package, version, what it is for


def between(name: str) -> re.Pattern:
    return re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- end of {name} -->)", re.DOTALL)


def table_of(name: str) -> str:
    (found,) = between(name).findall(PAGE.read_text())
    return found.strip()


def purposes() -> dict[str, str]:
    """Package → what it is for, as the page says it."""
    return dict(ROW.findall(table_of("versions")))


def version_table() -> str:
    rows = [f"| {name} | {version} | {purposes().get(name, '')} |" for name, version in software.pins().items()]
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
    pattern = re.sub(r"\\n|\[\\s\\S\](?:\{[\d,]+\}|\*)\??|\\\.\+", " .* ", pattern[:end])
    pattern = re.sub(r"\)\{[\d,]+\}\??", ")", pattern)
    text = pattern.removeprefix("^").replace("\\(", "⟨").replace("\\)", "⟩")
    text = re.sub(r"\(\?:([^()|]*)\|[^()]*\)(?!\?)", r"\1", text)  # (?:one|other) → one
    while re.search(r"\([^()]*\)", text):
        text = re.sub(r"\((?:\?:)?[^()]*\)\?", "", text)  # optional
        text = re.sub(r"\([^()]*\)", "…", text)
    text = re.sub(r"(?:\\[SdwW]|(?<!\\)\.|\[[^\]]*\])[+*]\??", "…", text)
    text = re.sub(r"(?<!\\)\??$", "", re.sub(r"(?<=\s)\?", "", text))
    text = re.sub(r"\\s", " ", text).replace("\\", "").replace("⟨", "(").replace("⟩", ")")
    return re.sub(r"…[…\s]*…", "…", text).strip()


TABLES = {"versions": version_table, "symptoms": symptom_table}


def write() -> None:
    page = PAGE.read_text()
    for name, table in TABLES.items():
        before, after = between(name).split(page)
        page = f"{before}\n{table()}\n\n{after}"
    PAGE.write_text(page)


if __name__ == "__main__":
    write()

"""A launch script of a learner's own (bash), read without running it: the flags that its training would be given."""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from helpers.machine import given

NESTED = r"\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)"
INSIDE = r"(?:[^{}]|\{[^}]*\})*"
TOKEN = re.compile(
    rf"""(?P<joined>\\\n) | (?P<space>[ \t\r]+) | (?P<end>\n|;+|&&|&(?!>)|\|\|?)
    | (?P<redirection>[0-9]*&?[<>]+&?[0-9-]*) | (?P<bracket>[()])
    | (?P<single>'[^']*') | (?P<double>"(?:\\.|[^"\\])*") | (?P<escape>\\.)
    | (?P<left>\${NESTED}|`[^`]*`)
    | (?P<variable>\$\{{{INSIDE}\}}|\$\w+|\$[@*$]) | (?P<plain>[^\s;&|<>()'"\\$`]+|\$)""",
    re.VERBOSE | re.DOTALL,
)
REFERENCE = re.compile(rf"\$\{{(\w+)(?:\[[@*]\])?(?::?[-=]({INSIDE}))?\}}|\$(\w+)")
EVERY_ELEMENT = re.compile(r"\$\{(\w+)\[[@*]\]\}")
ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)(\+?)=(.*)", re.DOTALL)
DECLARES = ("export", "local", "declare", "readonly", "typeset")
TORCHRUN = re.compile(r"(^|/)torchrun$|^torch\.distributed\.(run|launch)$")
SHELL = re.compile(r"(^|/)(ba)?sh$")
PYTHON = re.compile(r"(^|/)python[\d.]*$")
FLAG = re.compile(r"--[A-Za-z]")
HERE_DOCUMENT = re.compile(r"(?<!<)<<-?\s*(['\"]?)([A-Za-z_]\w*)\1")
LONGEST = 1_000_000  # characters of a variable: one that grows with every line is no launch line

Word = list[tuple[str, str]]  # pieces: (kind of TOKEN, its text)


@dataclass(frozen=True)
class LaunchScript:
    """What a launch script starts: `entry_script` with `flags`, name → value as one text, None for a switch."""

    path: Path
    entry_script: str
    flags: dict[str, str | None]


@dataclass(frozen=True)
class _Launch:
    line: int
    by_torchrun: bool
    entry_script: str
    words: list[str]
    is_written: bool = False  # into another file, which may be started later


def read(path) -> LaunchScript:
    """The one training that a bash script starts: by torchrun, or by python where no line has torchrun.

    Variables, arrays, defaults (`${GPUS:-8}`), comments, quotes, `\\` at the end of a line, `bash -c "…"` and `eval`
    are followed from top to bottom; an `if` is read with all its branches. What only a shell can know, such as `$1` or
    `$(hostname)`, stays as it is written.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no bash script, or starts no training or several.
    """
    path = given(path, "recipe.diff({})")
    if not os.path.isfile(path):
        what = "is a folder" if os.path.isdir(path) else "is no file" if os.path.exists(path) else "does not exist"
        raise FileNotFoundError(f"{path} {what}. Give the whole path of the bash script that starts your training.")
    data = path.read_bytes()
    if b"\0" in data:
        raise ValueError(f"{path} is no text. Give the bash script that starts your training.")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    text = text.replace("\r\n", "\n")
    if path.suffix == ".py" or re.match(r"#!.*python", text):
        raise ValueError(f"{path} is a Python program. Give the bash script that starts it, with its flags.")
    try:
        launches = _launches(text, {}, path)
    except RecursionError:
        raise ValueError(
            f"{path} starts itself again without end, by eval or bash -c: it cannot be followed."
        ) from None
    launches = [launch for launch in launches if not launch.is_written] or launches
    launches = [launch for launch in launches if launch.by_torchrun] or launches
    if not launches:
        told = "No line of it starts torchrun or python with a .py file and flags."
        raise ValueError(f"{path} starts no training. {told}")
    if len({(launch.entry_script, *launch.words) for launch in launches}) > 1:
        lines = " and ".join(str(launch.line) for launch in launches)
        raise ValueError(
            f"{path} starts several trainings, in lines {lines}. Leave one of them in a copy, and give that."
        )
    return LaunchScript(path, launches[0].entry_script, _flags(launches[0].words))


def _launches(text: str, variables: dict, path: Path) -> list[_Launch]:
    found = []
    text, documents = _without_documents(text)
    for line, words in _statements(text, path):
        expanded = _run(words, variables, path)
        for index, word in enumerate(expanded[:-1]):
            if re.fullmatch("-l?c", word) and any(SHELL.search(before) for before in expanded[:index]):
                found += [replace(one, line=line) for one in _launches(expanded[index + 1], variables, path)]
            if word == "eval":
                found += [
                    replace(one, line=line) for one in _launches(" ".join(expanded[index + 1 :]), variables, path)
                ]
        starts = [i for i, word in enumerate(expanded) if TORCHRUN.search(word) or PYTHON.search(word)]
        scripts = [i for i, word in enumerate(expanded) if starts and i > starts[0] and word.endswith(".py")]
        if scripts and any(FLAG.match(word) for word in expanded[scripts[0] + 1 :]):
            by_torchrun = any(TORCHRUN.search(expanded[i]) for i in starts)
            found.append(_Launch(line, by_torchrun, expanded[scripts[0]], expanded[scripts[0] + 1 :]))
    for line, reader, document in documents:
        for one in _launches(document, dict(variables), path) if reader != ":" else ():
            found.append(replace(one, line=line + one.line, is_written=reader in ("cat", "tee") or one.is_written))
    return found


def _without_documents(text: str) -> tuple[str, list[tuple[int, str, str]]]:
    """A script without the lines of its here-documents, and these: (line of its <<, the command that reads it, text).

    `bash <<EOF` runs it, `cat <<EOF >run.sh` writes it into a file, `: <<EOF` is a comment.
    """
    lines, documents = text.split("\n"), []
    ends: dict[str, list[int]] = {}
    for number, line in enumerate(lines):
        ends.setdefault(line.strip(), []).append(number)
    number = 0
    while number < len(lines):
        match = None if lines[number].lstrip().startswith("#") else HERE_DOCUMENT.search(lines[number])
        after = [end for end in ends.get(match[2], ()) if end > number] if match else []
        if after:
            reader = lines[number].split()[0]
            documents.append((number + 1, reader, "\n".join(lines[number + 1 : after[0]])))
            lines[number + 1 : after[0] + 1] = [""] * (after[0] - number)
            number = after[0]
        number += 1
    return "\n".join(lines), documents


def _statements(text: str, path: Path) -> list[tuple[int, list]]:
    """(line, words) of each command; an array's words are a list behind the word that ends in "="."""
    statements, words, word, array, position, skip = [], [], [], None, 0, False
    line = first = 1

    def word_ends():
        nonlocal word, skip
        if word and not skip:
            (words if array is None else array).append(word)
        skip = skip and not word
        word = []

    while position < len(text):
        if text[position] == "#" and not word:
            end = text.find("\n", position)
            position = len(text) if end < 0 else end
            continue
        if not (token := TOKEN.match(text, position)):
            raise ValueError(f"{path}, line {line}: the quote that opens there is never closed.")
        kind, position = token.lastgroup, token.end()
        if kind == "bracket" and token[0] == "(" and array is None and word and word[-1][1].endswith("="):
            words.append(word)
            word, array = [], []
        elif kind in ("space", "end", "redirection", "bracket", "joined"):
            if kind != "joined" or not word:
                word_ends()
            skip = kind == "redirection" and not re.search(r"[\d-]$", token[0])
            if array is not None and token[0] == ")":
                words.append(array)
                array = None
            elif array is None and kind in ("end", "bracket"):
                statements.append((first, words))
                words = []
        else:
            first = line if not words and not word and array is None else first
            word.append((kind, token[0]))
        line += token[0].count("\n")
    word_ends()
    return [statement for statement in [*statements, (first, words)] if statement[1]]


def _run(words: list, variables: dict, path: Path) -> list[str]:
    """Do a command's assignments, and return the words of what it would start."""
    started, index = [], 0
    while index < len(words):
        word = words[index]
        kind, text = word[0] if word else ("plain", "")
        match = ASSIGNMENT.match(text) if kind == "plain" and not started else None
        if match:
            name, add, rest = match.groups()
            if index + 1 < len(words) and words[index + 1] and isinstance(words[index + 1][0], list):
                value = [field for element in words[index + 1] for field in _expand(element, variables)]
                index += 1
            elif index + 1 < len(words) and words[index + 1] == []:
                value, index = [], index + 1
            else:
                value = "".join(_expand([("plain", rest), *word[1:]], variables, split=False))
            before = variables.get(name, type(value)())
            if not _is_given(word):
                variables[name] = before + value if add and type(before) is type(value) else value
                if sum(map(len, variables[name])) > LONGEST:
                    raise ValueError(
                        f"{path}: {name} grows to more than {LONGEST:,} characters: no launch line has so many."
                    )
        elif not (not started and text in DECLARES):
            started += _expand(word, variables)
        index += 1
    return started


def _is_given(word: Word) -> bool:
    """Whether an assignment only names an argument of the script (`DATA_PATH=$5`): `$DATA_PATH` then says more."""
    pieces = [text.strip('"') for _, text in word[1:]]
    return len(pieces) == 1 and re.fullmatch(r"\$\d|\$\{\d+\}", pieces[0]) is not None and word[0][1].endswith("=")


def _expand(word: Word, variables: dict, split: bool = True) -> list[str]:
    """The words that bash makes of one word: an array becomes several, and so does an unquoted text with spaces."""
    fields, open_field = [], False

    def put(several: list[str], joined: bool = True):
        nonlocal open_field
        for number, text in enumerate(several):
            if number or not open_field or not joined:
                fields.append(text)
            else:
                fields[-1] += text
            open_field = True

    for kind, text in word:
        if kind == "double":
            inside = re.sub(r'\\(["\\$`])', r"\1", re.sub(r"\\\n", "", text[1:-1]))
            whole = EVERY_ELEMENT.fullmatch(inside)
            known = whole and variables.get(whole[1])
            put(known if isinstance(known, list) else [_filled(inside, variables)])
        elif kind == "variable" and split:
            whole = EVERY_ELEMENT.fullmatch(text)
            known = whole and variables.get(whole[1])
            value = " ".join(known) if isinstance(known, list) else _filled(text, variables)
            put([value] if value == text else value.split())
        elif kind == "variable":
            put([_filled(text, variables)])
        else:
            put([{"single": text[1:-1], "escape": text[1:]}.get(kind, text)])
    return fields


def _filled(text: str, variables: dict) -> str:
    """A text with the variables that are known filled in."""

    def value(match: re.Match) -> str:
        known = variables.get(match[1] or match[3])
        if isinstance(known, list):
            return (" ".join(known) if "[" in match[0] else known[0]) if known else ""
        if known is None and match[2] is not None:
            return _filled(match[2].strip("\"'"), variables)
        return match[0] if known is None else known

    return REFERENCE.sub(value, text)


def _flags(words: list[str]) -> dict[str, str | None]:
    flags: dict[str, str | None] = {}
    name = None
    for word in words:
        if FLAG.match(word):
            name, equals, value = word.partition("=")
            flags[name] = value if equals else None
        elif name:
            flags[name] = word if flags[name] is None else f"{flags[name]} {word}"
    return flags

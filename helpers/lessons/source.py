"""The code that a rank runs, ours and Megatron's, shown in a cell as it is."""

import ast

from IPython.display import Code

from helpers.machine import PROJECT, megatron_source
from helpers.show.arguments import checked


@checked
def functions(file: str, *names: str) -> Code:
    """Functions of a file of `helpers/ranks`, in the order asked for; nothing is imported.

    Raises:
        ValueError: there is no such file, or no function of that name in it.
    """
    folder = PROJECT / "helpers" / "ranks"
    known = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.py") if path.name != "__init__.py")
    if file not in known:
        raise ValueError(f"helpers/ranks has no file {file!r}. There are: {', '.join(known)}.")
    text = (folder / file).read_text()
    found = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}
    if unknown := [name for name in names if name not in found]:
        raise ValueError(f"{file} has no function {', '.join(unknown)}. There are: {', '.join(found)}.")
    lines = text.splitlines()
    parts = []
    for name in names:
        node = found[name]
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        parts.append("\n".join(lines[first - 1 : node.end_lineno]))
    return Code("\n\n\n".join(parts), language="python")


@checked
def megatron(file: str, *parts) -> Code:
    """Pieces of a file of the installed Megatron, with their line numbers; nothing is imported.

    Args:
        file: "core/pipeline_parallel/schedules.py", say.
        parts: pairs: the words that its first line holds, searched from the piece before on, and how many lines it has.

    Raises:
        ValueError: there is no such file, or no line with those words.
    """
    try:
        path = megatron_source(file)
    except ModuleNotFoundError:
        path = None
    if path is None or not path.is_file():
        raise ValueError(f"Megatron, as it is installed here, has no file {file!r}.")
    if not all(isinstance(part, tuple) and len(part) == 2 for part in parts):
        raise ValueError('source.megatron takes pairs after the file: ("words of a line", 4), say.')
    lines, at, shown = path.read_text().splitlines(), 0, [f"# megatron/{file}"]
    for words, count in parts:
        found = next((number for number in range(at, len(lines)) if words in lines[number]), None)
        if found is None:
            raise ValueError(f"{file} has no line with {words!r}" + f" after line {at}." * (at > 0))
        at = found + count
        shown += ["", *(f"{number + 1:5}  {lines[number]}" for number in range(found, at))]
    return Code("\n".join(shown), language="python")

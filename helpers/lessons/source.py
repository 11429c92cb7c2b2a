"""The code that a rank runs, shown in a cell as it is."""

import ast

from IPython.display import Code

from helpers.machine import PROJECT
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

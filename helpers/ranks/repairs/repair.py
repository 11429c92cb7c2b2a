"""One change to Megatron, Transformer Engine or torch: what it replaces, why, and whether it is still wanted."""

import ast
import hashlib
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

NEEDED, CHANGE = "needed to run", "change"
AS_SEEN, CHANGED, GONE, MENDED = "as seen", "changed since", "gone", "mended upstream"


@dataclass(frozen=True)
class Repair:
    """One row of the table.

    `module` (in this folder; "" where something else makes it) has `apply()`, and where they make sense `mended()`
    (whether upstream needs it no more) and `measure()` (microseconds on this GPU: what → (theirs, ours)). `replaces`
    are "module:name" with the digest of the source that was there in the versions of `seen`. `numbers` says what it
    does to losses, `speed` what it is worth, `records` names the recorded runs that show it. `only_with` is a package
    without which it does nothing.
    """

    name: str
    kind: str
    module: str
    replaces: dict[str, str]
    seen: dict[str, str]
    why: str
    numbers: str
    speed: str
    records: tuple[str, ...] = ()
    upstream: str = ""
    only_with: str | None = None

    def load(self):
        """Its module, None where it has none. Imports torch, but neither Megatron nor Transformer Engine."""
        return importlib.import_module(f"helpers.ranks.repairs.{self.module}") if self.module else None

    def standing(self) -> str:
        """AS_SEEN, CHANGED, GONE or MENDED: what stands there now, read from the sources without importing them."""
        found = {target: digest(target) for target in self.replaces}
        if not all(found.values()):
            return GONE
        if getattr(self.load(), "mended", bool)():
            return MENDED
        return AS_SEEN if found == self.replaces else CHANGED


@cache
def installed(package: str) -> str | None:
    """The version of a package without its local part ("2.20.2+cu13" → "2.20.2"); None where it is not installed."""
    try:
        return importlib.metadata.version(package).split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def source(target: str) -> str:
    """The source of "package.module:Class.name" as it lies on the disk; "" where there is none."""
    module, _, name = target.partition(":")
    top, *inner = module.split(".")
    spec = importlib.util.find_spec(top)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for path in (Path(folder, *inner).with_suffix(".py"), Path(folder, *inner, "__init__.py")):
            if path.is_file():
                text, tree = _read(path)
                node = _find(tree, name.split("."))
                return (ast.get_source_segment(text, node) or "") if node else ""
    return ""


@cache
def _read(path: Path) -> tuple[str, ast.Module]:
    text = path.read_text()
    return text, ast.parse(text)


def _find(node, names: list[str]):
    """The last definition of that name, inside `if` and `try` too."""
    if not names:
        return node
    found = [child for child in _definitions(node) if child.name == names[0]]
    return _find(found[-1], names[1:]) if found else None


def _definitions(node) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            yield child
        elif isinstance(child, ast.stmt | ast.excepthandler):
            yield from _definitions(child)


@cache
def digest(target: str) -> str:
    """Twelve hex digits of a target's source; "" where there is none."""
    text = source(target)
    return hashlib.sha256(text.encode()).hexdigest()[:12] if text else ""

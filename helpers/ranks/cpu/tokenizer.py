"""A tokenizer without the models: at each start transformers reads the 3,300 files of all of them, for their names."""

import importlib
import sys
from importlib.metadata import version
from importlib.util import find_spec, module_from_spec
from pathlib import Path

PACKAGES = ("transformers", "transformers.models")


def leave_the_models_for_later() -> None:
    """Let `import transformers` learn the names in models/auto alone, which a tokenizer needs: 1.3 s less a rank.

    Asked for another name, it reads all files after all. Its own tools are imported first, without the package, and
    changed; call it before the package is imported.
    """
    if "transformers" in sys.modules or not (spec := find_spec("transformers")):
        return
    bare = sys.modules["transformers"] = module_from_spec(spec)
    bare.__version__ = version("transformers")
    from transformers.utils import import_utils

    del sys.modules["transformers"]
    read, known = import_utils.create_import_structure_from_path, import_utils._LazyModule.__getattr__

    def read_few(path):
        folder = Path(path).parent if Path(path).name == "__init__.py" else Path(path)
        return {"auto": read(str(folder / "auto"))} if folder.name == "models" else read(path)

    def look_further(self, name: str):
        try:
            return known(self, name)
        except AttributeError:
            if self.__name__ not in PACKAGES or name.startswith("__"):
                raise
            import_utils.create_import_structure_from_path = read
            import_utils._LazyModule.__getattr__ = known
            import_utils.define_import_structure.cache_clear()
            for package in PACKAGES:
                _import_again(package)
            return getattr(self, name)

    import_utils.create_import_structure_from_path = read_few
    import_utils._LazyModule.__getattr__ = look_further


def _import_again(package: str) -> None:
    """Whoever has the module keeps it, with the new one's names."""
    before = sys.modules.pop(package, None)
    if before:
        vars(before).update(vars(importlib.import_module(package)))
        sys.modules[package] = before

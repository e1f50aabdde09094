"""Writes pages about the library, made from its docstrings by pdoc.

pip install -e '.[docs]'        once; pdoc is not in the default set-up
python docs/make_api.py [DIR]   into DIR, or docs/api/, which git ignores: open index.html
"""

import importlib
import pkgutil
import sys
from pathlib import Path

import repro_lib


def modules() -> list[str]:
    """The names of the packages, with what each loads late put into it: pdoc shows only what is there."""
    names = [f"repro_lib.{module.name}" for module in pkgutil.iter_modules(repro_lib.__path__) if module.name != "__main__"]
    for name in ("repro_lib", *names):
        module = importlib.import_module(name)
        vars(module).update({late: getattr(module, late) for late in dir(module)})
    # Some of them are among the names of the root, with which they are shown.
    return ["repro_lib", *(name for name in names if name.rpartition(".")[2] not in repro_lib.__all__)]


def main() -> None:
    """Write the pages, or say how to get pdoc."""
    try:
        import pdoc.render
    except ModuleNotFoundError:
        sys.exit("pdoc is not installed: pip install -e '.[docs]'")
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "api")
    pdoc.render.configure(show_source=False)
    pdoc.pdoc(*modules(), output_directory=folder)
    print(f"the pages are in {folder}/index.html")


if __name__ == "__main__":
    main()

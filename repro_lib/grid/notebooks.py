"""Notebooks run without a browser: their parameters are checked first, their kernels are private, their files whole."""

# The only module that knows papermill. What papermill 2.7 does badly is kept out here: unknown parameters are errors
# instead of warnings, kernels are private (see ``kernels``), files are written whole, and the output has another name until
# it is finished, because papermill marks the cells of dead and interrupted runs as completed.

import ast
import contextlib
import json
import os
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import repro_lib
from repro_lib.config import project_root
from repro_lib.grid.kernels import CUT_OUTPUT, START_SECONDS, KernelKilledError, private_kernel
from repro_lib.store.parts import digest_of
from repro_lib.store.store import digest_note
from repro_lib.system.environment import skip_url_grammars
from repro_lib.system.files import LARGEST_NOTEBOOK_BYTES, WriteError, read_bounded, write_atomically
from repro_lib.system.leases import LeaseHeldError

# How papermill finds out that a path is for _WholeFiles.
_SCHEME = "whole:"


class NotebookError(RuntimeError):
    """A notebook that cannot be run as asked, or that failed; the message says where to look."""


@dataclass(frozen=True)
class Parameter:
    """One line of a notebook's parameters cell: ``name: annotation = default  # help``."""

    annotation: str
    default: Any


def notebooks_dir() -> Path:
    """The folder of the notebooks that the grid runs; those in ``notebooks/`` are copies, which people may edit."""
    return Path(__file__).parent / "pristine"


def edited_notebooks() -> list[str]:
    """The names of those in ``notebooks/`` that have other words than those that the grid runs."""
    edited = []
    for ours in sorted(notebooks_dir().glob("*.ipynb")):
        copy, theirs = project_root() / "notebooks" / ours.name, None
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            theirs = notebook_digest(copy, {})
        # An installed package has no copies beside its results.
        if copy.exists() and theirs != notebook_digest(ours, {}):
            edited.append(ours.name)
    return edited


@cache
def declared_parameters(notebook: Path) -> dict[str, Parameter]:
    """The parameters of a notebook by name, read from the cell tagged ``parameters`` without running it."""
    cells = [cell for cell in _read_json(notebook)["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    if len(cells) > 1:
        raise NotebookError(f"{notebook.name} has {len(cells)} cells tagged 'parameters'; papermill would use only the first")
    parameters = {}
    for statement in ast.parse("".join(cells[0]["source"]) if cells else "").body:
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value):
            raise NotebookError(
                f"{notebook.name}: the parameters cell may hold lines 'name: type = literal' only, line {statement.lineno}"
            )
        default = ast.literal_eval(statement.value)
        parameters[statement.target.id] = Parameter(ast.unparse(statement.annotation), default)
    return parameters


def check_parameters(notebook: Path, values: Mapping[str, Any]) -> None:
    """Refuse a parameter that the notebook does not declare, or a value that is not of its declared type."""
    declared = declared_parameters(notebook)
    if unknown := sorted(set(values) - set(declared)):
        known = ", ".join(declared) or "none"
        raise NotebookError(f"{notebook.name} has no parameter {', '.join(unknown)}; it has: {known}")
    # A parameter is a literal of these types, or of one of them or None: nothing that a command line cannot say.
    types = {"int": (int,), "float": (float, int), "str": (str,), "bool": (bool,), "None": (type(None),)}
    for name, value in values.items():
        # The very type: "500" is not 500 and 1 is not True, for papermill would write what was given.
        if not any(type(value) in types[part.strip()] for part in declared[name].annotation.split("|")):
            raise NotebookError(f"{notebook.name}: {name} = {value!r} is not of type {declared[name].annotation}")


def begin_notebook(name: str, namespace: dict[str, Any]) -> None:
    """In the first cell after a notebook's parameters: check them (NotebookError), and show errors for users as a sentence.

    ``namespace``: its ``globals()``. A word for another type, as of papermill's ``-p force false``, is taken for what it says.
    """
    if "get_ipython" in namespace:
        kinds = (ValueError, TypeError, RuntimeError, OSError, KeyboardInterrupt)
        namespace["get_ipython"]().set_custom_exc(kinds, _show_error)
    notebook = notebooks_dir() / f"{name}.ipynb"
    declared, values = declared_parameters(notebook), {}
    for one in _names_set(namespace.get("In", ())) | (declared.keys() & namespace.keys()):
        values[one] = value = namespace[one]
        if isinstance(value, str) and one in declared and "str" not in declared[one].annotation:
            with contextlib.suppress(ValueError, SyntaxError):
                values[one] = ast.literal_eval(value.capitalize())
    check_parameters(notebook, values)
    namespace.update(values)


def _names_set(cells: Sequence[str]) -> set[str]:
    # What the last cell of parameters that was run, and papermill's own after it, give values to.
    names: set[str] = set()
    for source in cells:
        with contextlib.suppress(SyntaxError):
            tree = ast.parse(source)
            targets = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
            kinds = {type(statement) for statement in tree.body}
            if source.startswith("# Parameters\n"):
                names |= targets
            elif ast.AnnAssign in kinds <= {ast.AnnAssign, ast.Assign}:
                names = targets
    return names


def _show_error(shell: Any, kind: type, error: BaseException, trace: Any, tb_offset: int | None = None) -> None:
    # What we raise ourselves is a sentence for users. Anything else says where, also what torch raises at a line of ours.
    last, said = traceback.extract_tb(trace)[-1], str(error)
    raised = Path(last.filename).is_relative_to(Path(repro_lib.__file__).parent) and (last.line or "").startswith("raise ")
    if kind is KeyboardInterrupt:
        said = "; ".join(getattr(error, "__notes__", ())) or "what is finished is kept"
    if raised or kind is KeyboardInterrupt:
        vars(error)["_render_traceback_"] = lambda: [f"{kind.__name__}: {said}"]
    shell.showtraceback((kind, error, trace), tb_offset=tb_offset, running_compiled_code=True)


def notebook_digest(notebook: Path, parameters: Mapping[str, Any], inputs: Any = None) -> str:
    """What an executed notebook depends on: its source, its parameters and whatever ``inputs`` (JSON) says."""
    return digest_of([[cell["source"] for cell in _read_json(notebook)["cells"]], dict(parameters), inputs])


def execute(notebook: Path, output: Path, parameters: Mapping[str, Any], digest: str = "", *, forked: bool = True) -> list[str]:
    """Run a notebook in a kernel of its own and keep the executed copy at ``output``, noting ``digest`` in it.

    ``forked``: that kernel may be a fork. A notebook that failed is kept as ``*.failed.ipynb``. Returns remarks, as on a cell
    that printed too much. Raises NotebookError with the error of a cell, KernelKilledError, LeaseHeldError if it found somebody
    else at work, WriteError."""
    check_parameters(notebook, parameters)
    # All of them, so that the copy says what it ran with.
    parameters = {name: one.default for name, one in declared_parameters(notebook).items()} | dict(parameters)
    papermill = _papermill()
    partial, failed = _unfinished(output)
    try:
        with private_kernel(forked=forked) as kernel:
            try:
                executed = papermill.execute_notebook(
                    _literal_path(notebook),
                    _SCHEME + _literal_path(partial),
                    parameters=parameters,
                    # Not what the notebook or this machine calls a kernel: ours is made by the class below.
                    kernel_name="python3",
                    language="python",
                    cwd=str(notebook.parent),
                    progress_bar=False,
                    start_timeout=START_SECONDS,
                    kernel_manager_class=kernel.manager_class(),
                )
            except Exception as error:
                raise kernel.explain(error) from error
    except papermill.exceptions.PapermillExecutionError as error:
        # Raised in the kernel, of which only the name and the words of an error arrive here.
        if error.ename == LeaseHeldError.__name__:
            partial.unlink(missing_ok=True)
            raise LeaseHeldError(error.evalue) from None
        reason = error.evalue or ("out of memory" if error.ename == "MemoryError" else "no reason given")
        raise NotebookError(f"{error.ename}: {reason}{keep_as_failed(output)}") from None
    except KernelKilledError as error:
        raise KernelKilledError(f"{error}{keep_as_failed(output)}") from None
    except Exception as error:
        kind = "" if type(error).__module__.startswith("repro_lib") else f"{type(error).__name__}: "
        raise NotebookError(f"{kind}{error}{keep_as_failed(output)}") from error
    except BaseException:
        # Interrupted: nothing failed, and the next run starts this notebook anew.
        partial.unlink(missing_ok=True)
        raise
    executed.metadata["repro"] = digest_note(digest)
    # papermill noted the name that the copy had while it was at work.
    executed.metadata["papermill"]["output_path"] = str(output)
    write_atomically(output, json.dumps(executed, indent=1, ensure_ascii=False) + "\n")
    for leftover in (partial, failed):
        leftover.unlink(missing_ok=True)
    return _remarks(executed)


def keep_as_failed(output: Path) -> str:
    """Give what there is of an unfinished notebook the name of a failed one; returns where to look, for a message."""
    partial, failed = _unfinished(output)
    with contextlib.suppress(OSError):
        os.replace(partial, failed)
        return f" (see {failed})"
    return ""


def is_unfinished(notebook: Path) -> bool:
    """Whether ``execute`` wrote this as the copy of a notebook at work, and not somebody else a file of such a name."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return _read_json(notebook)["metadata"]["papermill"]["output_path"].startswith(_SCHEME)
    return False


def _unfinished(output: Path) -> tuple[Path, Path]:
    # The names of an executed notebook while it is at work, and once it failed.
    return output.with_suffix(".partial.ipynb"), output.with_suffix(".failed.ipynb")


class _WholeFiles:
    # How papermill saves a notebook at work: the whole file or none of it.

    @staticmethod
    def write(text: str, path: str) -> None:
        # The copy at work is a courtesy; whether the finished one can be written is another question.
        with contextlib.suppress(WriteError):
            write_atomically(Path(path.removeprefix(_SCHEME)), text, flush=False)

    @staticmethod
    def pretty_path(path: str) -> str:
        return path.removeprefix(_SCHEME)


@cache
def _papermill() -> Any:
    skip_url_grammars()
    import papermill
    import papermill.iorw

    papermill.iorw.papermill_io.register(_SCHEME, _WholeFiles)
    return papermill


def _remarks(executed: Mapping[str, Any]) -> list[str]:
    # A sentence for every output that a kernel cut (see ``kernels``).
    outputs = [(k, o.get("data", {})) for k, cell in enumerate(executed["cells"], 1) for o in cell.get("outputs", [])]
    return [f"cell {k}: {data['text/plain'].strip('[]')}" for k, data in outputs if CUT_OUTPUT in data]


def _literal_path(path: Path) -> str:
    # papermill takes paths for templates; a brace in a folder's name must not become one.
    return str(path).replace("{", "{{").replace("}", "}}")


def _read_json(path: Path) -> Any:
    return json.loads(read_bounded(path, LARGEST_NOTEBOOK_BYTES))

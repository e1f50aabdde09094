"""Notebooks run without a browser: their parameters are checked first, their kernels are private, their files whole.

The only module that knows papermill. What papermill 2.7 does badly is kept out here: unknown parameters are errors
instead of warnings, kernels talk over Unix sockets instead of racing for TCP ports, and the output is written beside its
final name first, because papermill marks the cells of dead and interrupted runs as completed.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, ValidationError, create_model

from repro_lib.config import canonical_json, project_root
from repro_lib.files import write_atomically

# Unix socket paths are limited to about 100 bytes; ZeroMQ appends "-5" to the name of the connection file.
LONGEST_SOCKET_PATH = 90


class NotebookError(RuntimeError):
    """A notebook that cannot be run as asked, or that failed; the message says where to look."""


@dataclass(frozen=True)
class Parameter:
    """One line of a notebook's parameters cell: ``name: annotation = default  # help``."""

    name: str
    annotation: str
    default: Any


def notebooks_dir() -> Path:
    """The folder of the suite's notebooks."""
    return project_root() / "notebooks"


@cache
def declared_parameters(notebook: Path) -> dict[str, Parameter]:
    """The parameters of a notebook by name, read from the cell tagged ``parameters`` without running it."""
    cells = [cell for cell in _read_json(notebook)["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    if len(cells) > 1:
        raise NotebookError(f"{notebook.name} has {len(cells)} cells tagged 'parameters'; papermill would use only the first")
    if not cells:
        return {}
    source = "".join(cells[0]["source"])
    found = {}
    for statement in ast.parse(source).body:
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value):
            raise NotebookError(
                f"{notebook.name}: the parameters cell may hold lines 'name: type = literal' only, line {statement.lineno}"
            )
        name = statement.target.id
        found[name] = Parameter(name, ast.unparse(statement.annotation), ast.literal_eval(statement.value))
    return found


def check_parameters(notebook: Path, values: Mapping[str, Any]) -> None:
    """Refuse a parameter that the notebook does not declare, or a value that is not of its declared type."""
    declared = declared_parameters(notebook)
    unknown = sorted(set(values) - set(declared))
    if unknown:
        known = ", ".join(declared) or "none"
        raise NotebookError(f"{notebook.name} has no parameter {', '.join(unknown)}; it has: {known}")
    types = {"int": int, "float": float, "str": str, "bool": bool, "None": type(None)}
    for name, value in values.items():
        parameter = declared[name]
        union = [types[part.strip()] for part in parameter.annotation.split("|")]
        annotation = union[0] if len(union) == 1 else union[0] | union[1]
        model = create_model("Parameters", __config__=ConfigDict(strict=True), **{name: (annotation, ...)})  # pyright: ignore[reportCallIssue, reportArgumentType]
        try:
            model(**{name: value})
        except ValidationError:
            raise NotebookError(f"{notebook.name}: {name} = {value!r} is not of type {parameter.annotation}") from None


def inputs_digest(notebook: Path, parameters: Mapping[str, Any], inputs: Any = None) -> str:
    """What an executed notebook depends on: its source, its parameters and whatever ``inputs`` (JSON) says."""
    source = [cell["source"] for cell in _read_json(notebook)["cells"]]
    return hashlib.sha256(canonical_json([source, dict(parameters), inputs]).encode()).hexdigest()


def executed_digest(executed: Path) -> str | None:
    """The digest under which ``execute`` finished this file, or None if there is no such finished file."""
    try:
        return _read_json(executed)["metadata"]["repro"]["inputs_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def execute(notebook: Path, output: Path, parameters: Mapping[str, Any], digest: str = "") -> None:
    """Run a notebook in a fresh kernel of this interpreter and keep the executed copy at ``output``.

    ``digest`` is noted in the copy (see ``executed_digest``). While it runs the copy is ``*.partial.ipynb``; a failed one
    is kept as ``*.failed.ipynb`` and NotebookError names it with the error of the failing cell.
    """
    check_parameters(notebook, parameters)
    papermill = _papermill()
    partial, failed = output.with_suffix(".partial.ipynb"), output.with_suffix(".failed.ipynb")
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _private_socket_dir() as folder:
            executed = papermill.execute_notebook(
                _literal_path(notebook),
                _literal_path(partial),
                parameters=dict(parameters),
                kernel_name="python3",
                language="python",
                cwd=str(notebook.parent),
                progress_bar=False,
                kernel_manager_class=_kernel_manager_class(folder / "k.json"),
            )
    except papermill.exceptions.PapermillExecutionError as error:
        os.replace(partial, failed)
        raise NotebookError(f"{error.ename}: {error.evalue} (see {failed})") from None
    except Exception as error:
        # A kernel that died, or a disk that is full: what there is of the notebook is kept.
        if partial.exists():
            os.replace(partial, failed)
        raise NotebookError(f"{type(error).__name__}: {error} (see {failed})") from error
    except BaseException:
        # Interrupted: nothing failed, and the next run starts this notebook anew.
        partial.unlink(missing_ok=True)
        raise
    executed.metadata["repro"] = {"inputs_sha256": digest}
    write_atomically(output, json.dumps(executed, indent=1, ensure_ascii=False) + "\n")
    for leftover in (partial, failed):
        leftover.unlink(missing_ok=True)


@cache
def _papermill() -> Any:
    # jsonschema imports this optional module to check one format we never use; compiling its grammars takes 2 s.
    sys.modules.setdefault("rfc3987_syntax", None)  # pyright: ignore[reportArgumentType]
    import papermill

    return papermill


def _kernel_manager_class(connection_file: Path) -> type:
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class PrivateKernelManager(AsyncKernelManager):
        """A kernel of this very interpreter, on Unix sockets where the platform has them."""

        def __init__(self, **settings: Any) -> None:
            # Without an absolute file of its own, kernels in one folder would share their sockets.
            settings["connection_file"] = str(connection_file)
            if os.name == "posix" and len(str(connection_file)) < LONGEST_SOCKET_PATH:
                settings["transport"] = "ipc"
            super().__init__(**settings)

        @property
        def kernel_spec(self) -> KernelSpec:
            command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=command, display_name="Python 3", language="python")

    return PrivateKernelManager


@contextlib.contextmanager
def _private_socket_dir() -> Iterator[Path]:
    """A short, private folder for the connection file (it holds the kernel's key) and the sockets; removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="repro-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _literal_path(path: Path) -> str:
    """papermill takes paths for templates; a brace in a folder's name must not become one."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))

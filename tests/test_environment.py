"""The set-up files agree with each other, and setup.sh tells a right environment from a wrong one."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from repro_lib.environment import locked_versions, main, mismatches

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
SETUP_FILES = [
    "pyproject.toml",
    "requirements.lock",
    "environment.yml",
    "setup.sh",
    "run_papermill.sh",
    "run_tests.sh",
    ".ci/run",
]
SUPPORTED_PYTHONS = ["3.11", "3.12", "3.13"]


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def declared() -> list[Requirement]:
    groups = [project()["dependencies"], *project()["optional-dependencies"].values()]
    requirements = [Requirement(text) for group in groups for text in group]
    return [requirement for requirement in requirements if requirement.name != project()["name"]]


def locked() -> dict[str, str]:
    """Every line of the lock, whether it applies here or not."""
    lines = [line for line in LOCK.read_text().splitlines() if line and not line.startswith("#")]
    requirements = [Requirement(line) for line in lines]
    for requirement in requirements:
        assert [specifier.operator for specifier in requirement.specifier] == ["=="], f"{requirement} is not pinned"
    versions = {canonicalize_name(r.name): next(iter(r.specifier)).version for r in requirements}
    assert len(versions) == len(lines), "a package is in the lock twice"
    return versions


# --- the files agree -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("requirement", declared(), ids=lambda requirement: requirement.name)
def test_every_dependency_is_locked_in_a_version_it_admits(requirement: Requirement) -> None:
    version = locked().get(canonicalize_name(requirement.name))
    assert version is not None, f"{requirement.name} is not in the lock"
    assert requirement.specifier, f"{requirement.name} has no floor"
    assert requirement.specifier.contains(version, prereleases=True)


def test_torch_is_pinned_in_the_lock_and_free_in_the_package() -> None:
    assert locked()["torch"] == "2.13.0"
    torch = next(requirement for requirement in declared() if requirement.name == "torch")
    assert str(torch.specifier) == ">=2.7"


def test_core_dependencies_stay_those_of_a_cluster_worker() -> None:
    assert {Requirement(text).name for text in project()["dependencies"]} == {"torch", "numpy", "pydantic", "safetensors"}


def test_the_lock_names_no_cuda_package() -> None:
    assert [name for name in locked() if re.match(r"(nvidia|cuda|triton|pytorch-triton)\b", name)] == []


def test_the_build_backend_is_locked() -> None:
    # setup.sh builds without isolation, so the backend has to be there already.
    backend = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    for requirement in map(Requirement, backend):
        assert requirement.specifier.contains(locked()[requirement.name])


def test_the_lock_says_how_it_was_made_and_for_every_supported_python() -> None:
    header = " ".join(line for line in LOCK.read_text().splitlines() if line.startswith("#"))
    assert "uv pip compile pyproject.toml" in header
    assert "--universal" in header
    assert "--all-extras" in header
    assert f"--python-version {SUPPORTED_PYTHONS[0]}" in header


def test_conda_environment_installs_the_lock() -> None:
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = [entry for entry in dependencies if isinstance(entry, str)]
    (pip,) = [entry["pip"] for entry in dependencies if isinstance(entry, dict)]
    assert pip == ["-r requirements.lock", "-e ."]
    # Anything else from conda could be another version than the lock's.
    assert {Requirement(entry).name for entry in conda} == {"python", "pip"}
    python = next(Requirement(entry).specifier for entry in conda if entry.startswith("python"))
    required = SpecifierSet(project()["requires-python"])
    admitted = [f"3.{minor}" for minor in range(8, 20) if python.contains(f"3.{minor}.0")]
    assert admitted == SUPPORTED_PYTHONS
    assert all(required.contains(f"{version}.0") for version in admitted)
    assert not required.contains("3.10.99")


@pytest.mark.parametrize("name", SETUP_FILES)
def test_set_up_files_name_no_host_and_no_machine(name: str) -> None:
    text = (ROOT / name).read_text()
    assert re.findall(r"https?://|--find-links|--extra-index-url|file://|/opt/|/root/|/home/|/tmp/|/work/|pypi", text) == []


@pytest.mark.parametrize("name", ["setup.sh", "run_papermill.sh", "run_tests.sh", ".ci/run"])
def test_scripts_are_executable(name: str) -> None:
    assert os.access(ROOT / name, os.X_OK)


def test_every_import_of_the_library_is_declared() -> None:
    names = {canonicalize_name(requirement.name) for requirement in declared()}
    homes = metadata.packages_distributions()
    undeclared = set()
    for file in sorted((ROOT / "repro_lib").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module or ""]
            else:
                continue
            for module in {module.partition(".")[0] for module in modules} - set(sys.stdlib_module_names) - {"repro_lib"}:
                if not names & {canonicalize_name(home) for home in homes.get(module, [])}:
                    undeclared.add(f"{file.name}: {module}")
    assert undeclared == set()


# --- what an environment lacks ---------------------------------------------------------------------------------------


def test_mismatches_finds_what_was_planted(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    here = metadata.version("pytest")
    lock.write_text(f"# made by hand\npytest=={here}\n")
    assert mismatches(lock) == []
    lock.write_text(f"pytest==0.0.1\nno-such-package==1.2\npackaging=={metadata.version('packaging')}\n")
    assert mismatches(lock) == [f"pytest is {here}, the lock has 0.0.1", "no-such-package is missing, the lock has 1.2"]


def test_lines_for_other_pythons_are_left_out(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text("no-such==1 ; python_full_version < '3.0'\nno-such-here==2 ; python_full_version >= '3.0'\n")
    assert mismatches(lock) == ["no-such-here is missing, the lock has 2"]


@pytest.mark.parametrize(
    ("installed", "wanted", "fits"),
    [
        ("2.13.0+cpu", "2.13.0", True),
        ("2.13.0", "2.13.0+cpu", False),
        ("2.13.1+cpu", "2.13.0", False),
        ("2.13", "2.13.0", True),
        ("2.13.0rc1", "2.13.0", False),
        ("not a version", "2.13.0", False),
        ("", "2.13.0", False),
    ],
)
def test_which_versions_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: str, wanted: str, fits: bool
) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text(f"torch=={wanted}\n")
    monkeypatch.setattr(metadata, "version", lambda name: installed)
    assert (mismatches(lock) == []) is fits


@pytest.mark.parametrize("text", ["torch>=2.7\n", "-r other.txt\n", "# nothing\n", ""])
def test_a_lock_that_pins_nothing_is_refused(tmp_path: Path, text: str) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text(text)
    with pytest.raises(ValueError, match=r"expected NAME==VERSION|names no package"):
        locked_versions(lock)


def test_an_installation_of_another_checkout_does_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "requirements.lock").write_text(f"pytest=={metadata.version('pytest')}\n")
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().out == f"its repro_lib belongs to {ROOT}\n"


# --- setup.sh, with a stand-in for Python that installs nothing ------------------------------------------------------

STAND_IN = """#!/bin/sh
case "$*" in
    *ensurepip*) exit ${NO_VENV:-0} ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip "*) echo "pip $*" >>"$PIP_CALLS"; echo "ERROR: no route to the index"; exit ${PIP_EXIT:-0} ;;
    *version_info*) exit ${TOO_OLD:-0} ;;
    *) exec "$REAL_PYTHON" "$@" ;;
esac
"""


class Checkout:
    """A small checkout in a folder with a space, whose lock this test run's own environment meets."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a checkout"
        (self.root / "repro_lib").mkdir(parents=True)
        for name in ["setup.sh", "pyproject.toml", "repro_lib/__init__.py", "repro_lib/environment.py"]:
            shutil.copy(ROOT / name, self.root / name)
        self.lock = self.root / "requirements.lock"
        self.lock.write_text(f"pytest=={metadata.version('pytest')}\n")
        self.venv = self.root / ".venv"
        self.pip_calls = folder / "pip_calls"
        tools = folder / "tools"
        tools.mkdir()
        for tool in ["bash", "sh", "cat", "cp", "dirname", "grep", "mkdir", "mv", "rm", "sed", "tail", "wc"]:
            tools.joinpath(tool).symlink_to(shutil.which(tool) or "missing")
        self.python3 = tools / "python3"
        self.python3.write_text(STAND_IN)
        self.python3.chmod(0o755)
        self.environment = {
            "PATH": str(tools),
            "PIP_CALLS": str(self.pip_calls),
            "REAL_PYTHON": sys.executable,
            "PYTHONPATH": str(self.root),  # stands for the editable install
        }

    def setup(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", str(self.root / "setup.sh"), *arguments]
        return subprocess.run(
            command, env=self.environment | environment, cwd="/", capture_output=True, text=True, check=False, timeout=60
        )

    def pip(self) -> list[str]:
        return self.pip_calls.read_text().splitlines() if self.pip_calls.exists() else []


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_setup_makes_an_environment_once(checkout: Checkout) -> None:
    python = f"{checkout.venv}/bin/python\n"
    first = checkout.setup("--print-python")
    assert (first.returncode, first.stdout) == (0, python), first.stderr
    assert len(checkout.pip()) == 2
    assert checkout.pip()[0].endswith(f"-r {checkout.lock}")
    assert checkout.pip()[1].endswith(f"--no-deps --no-build-isolation -e {checkout.root}")
    second = checkout.setup("--print-python")
    assert (second.returncode, second.stdout, second.stderr) == (0, python, "")
    assert len(checkout.pip()) == 2


@pytest.mark.parametrize("changed", ["requirements.lock", "pyproject.toml"])
def test_setup_updates_when_its_input_changed(checkout: Checkout, changed: str) -> None:
    assert checkout.setup().returncode == 0
    with open(checkout.root / changed, "a") as file:
        file.write("# a word more\n")
    again = checkout.setup()
    assert (again.returncode, again.stdout) == (0, "")
    assert "updating it" in again.stderr
    assert len(checkout.pip()) == 4


def test_setup_starts_over_after_an_interruption(checkout: Checkout) -> None:
    failed = checkout.setup("--print-python", PIP_EXIT="1")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "no route to the index" in failed.stderr
    assert "pip could not install the packages (is there a network?" in failed.stderr
    leftover = checkout.venv / "leftover"
    leftover.touch()
    again = checkout.setup()
    assert again.returncode == 0, again.stderr
    assert "was interrupted; starting over" in again.stderr
    assert not leftover.exists()


def test_setup_keeps_out_of_the_way_of_another_one(checkout: Checkout) -> None:
    checkout.venv.mkdir()
    (checkout.venv / ".setup-stamp").write_text(f"in progress {os.getpid()}\n")
    refused = checkout.setup()
    assert refused.returncode == 1
    assert f"process {os.getpid()} is setting up" in refused.stderr
    assert checkout.pip() == []


def test_setup_makes_a_moved_environment_anew(checkout: Checkout) -> None:
    assert checkout.setup().returncode == 0
    stamp = checkout.venv / ".setup-stamp"
    stamp.write_text(stamp.read_text().replace("a checkout", "an older one"))
    again = checkout.setup()
    assert again.returncode == 0
    assert "was made in another folder" in again.stderr


def test_setup_leaves_a_right_environment_made_by_hand_alone(checkout: Checkout) -> None:
    (checkout.venv / "bin").mkdir(parents=True)
    shutil.copy(checkout.python3, checkout.venv / "bin" / "python")
    done = checkout.setup("--print-python")
    assert (done.returncode, done.stdout) == (0, f"{checkout.venv}/bin/python\n")
    assert checkout.pip() == []


@pytest.mark.parametrize("variable", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_setup_uses_an_active_environment_that_fits(checkout: Checkout, variable: str) -> None:
    done = checkout.setup("--print-python", **{variable: sys.prefix})
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{sys.prefix}/bin/python\n", "")
    assert not checkout.venv.exists()


def test_setup_says_why_an_active_environment_does_not_fit(checkout: Checkout) -> None:
    checkout.lock.write_text("pytest==0.0.1\nno-such-package==1\n")
    # .venv would not fit either: the stand-in for pip installs nothing. That, too, must be said.
    done = checkout.setup("--print-python", VIRTUAL_ENV=sys.prefix)
    reason = f"pytest is {metadata.version('pytest')}, the lock has 0.0.1, and 1 more"
    assert done.stderr.splitlines()[0] == (
        f"setup: the active environment {sys.prefix} does not fit ({reason}); using {checkout.venv}"
    )
    assert done.stderr.splitlines()[-1] == f"setup: pip finished, but {checkout.venv} does not fit ({reason})."
    assert (done.returncode, done.stdout) == (1, "")


def test_setup_does_not_take_an_active_environment_without_this_checkout(checkout: Checkout) -> None:
    stranger = checkout.root.parent / "stranger"
    (stranger / "bin").mkdir(parents=True)
    (stranger / "bin" / "python").write_text(f'#!/bin/sh\nPYTHONPATH="" exec "{sys.executable}" -S "$@"\n')
    (stranger / "bin" / "python").chmod(0o755)
    done = checkout.setup("--print-python", CONDA_PREFIX=str(stranger))
    assert "does not fit (repro_lib is not installed in it)" in done.stderr
    assert done.stdout == f"{checkout.venv}/bin/python\n"


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [({"TOO_OLD": "1"}, "no Python 3.11 or newer was found"), ({"NO_VENV": "1"}, "has no venv module: install it")],
)
def test_setup_says_what_is_missing(checkout: Checkout, environment: dict[str, str], sentence: str) -> None:
    refused = checkout.setup("--print-python", **environment)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert sentence in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert not checkout.venv.exists()


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")
def test_setup_says_that_a_folder_is_not_writable(checkout: Checkout) -> None:
    checkout.root.chmod(0o555)
    try:
        refused = checkout.setup()
    finally:
        checkout.root.chmod(0o755)
    assert refused.returncode == 1
    assert "is not writable" in refused.stderr


def test_setup_refuses_an_unknown_option(checkout: Checkout) -> None:
    refused = checkout.setup("--print-pyhton")
    assert refused.returncode == 2
    assert "unknown option '--print-pyhton'" in refused.stderr

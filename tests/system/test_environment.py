"""The set-up files agree with each other, and setup.sh tells a right environment from a wrong one."""

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
from mounting import mounted
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from repro_lib.system.environment import CUDA, LOCK, TORCH, locked_versions, main, mismatches, needs_cuda_parts

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ["setup.sh", "run_papermill.sh", "run_tests.sh", ".ci/run"]
SETUP_FILES = ["pyproject.toml", LOCK, TORCH, CUDA, "environment.yml", *SCRIPTS]
SUPPORTED_PYTHONS = ["3.11", "3.12", "3.13"]


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


# Extras that the default set-up leaves out.
BESIDE_THE_LOCK = ("parquet", "docs", "transformers")


def declared(but: tuple[str, ...] = ()) -> list[Requirement]:
    extras = project()["optional-dependencies"]
    groups = [project()["dependencies"], *(extras[name] for name in extras if name not in but)]
    requirements = [Requirement(text) for group in groups for text in group]
    return [requirement for requirement in requirements if requirement.name != project()["name"]]


def is_cuda(name: str) -> bool:
    return re.match(r"(nvidia|cuda|triton|pytorch-triton)\b", name) is not None


def pins(name: str) -> dict[str, tuple[Requirement, list[str]]]:
    """Every pin of a file, whether it applies here or not, with its hashes."""
    lines = re.sub(r"\\\n", " ", (ROOT / name).read_text()).splitlines()
    found: dict[str, tuple[Requirement, list[str]]] = {}
    for line in lines:
        if line and not line.startswith("#"):
            requirement, *hashes = re.split(r"\s+--hash=", line)
            parsed = Requirement(requirement)
            assert [specifier.operator for specifier in parsed.specifier] == ["=="], f"{parsed} is not pinned"
            assert canonicalize_name(parsed.name) not in found, f"{parsed} is in the file twice"
            found[canonicalize_name(parsed.name)] = (parsed, hashes)
    return found


def locked(name: str = LOCK) -> dict[str, str]:
    """The version of every pin of a file."""
    return {package: next(iter(requirement.specifier)).version for package, (requirement, _) in pins(name).items()}


def test_every_dependency_is_locked_in_a_version_it_admits() -> None:
    versions = locked() | locked(TORCH)
    # What the library cannot do without stays that of a cluster's worker.
    assert {Requirement(text).name for text in project()["dependencies"]} == {"torch", "numpy", "pydantic", "safetensors"}
    # setup.sh builds without isolation, so the backend has to be there already.
    backend = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    for requirement in [*declared(BESIDE_THE_LOCK), *map(Requirement, backend)]:
        version = versions.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not in the lock"
        assert requirement.specifier, f"{requirement.name} has no floor"
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement}, and the lock has {version}"
    apart = {name for extra in BESIDE_THE_LOCK for name in project()["optional-dependencies"][extra]}
    assert {Requirement(text).name for text in apart} == {"pdoc", "pyarrow", "transformers", project()["name"]}
    assert not {"pdoc", "pyarrow", "transformers"} & versions.keys()


def test_what_torch_needs_is_in_the_lock_and_its_cuda_parts_are_in_a_file_of_their_own() -> None:
    # Torch has builds: it is pinned in a third file, and free in the package.
    assert locked(TORCH) == {"torch": "2.13.0"}
    assert [str(requirement.specifier) for requirement in declared() if requirement.name == "torch"] == [">=2.7"]
    assert "torch" not in locked()
    needed = [Requirement(text) for text in metadata.requires("torch") or []]
    for requirement in needed:
        if "extra" not in str(requirement.marker):
            name = canonicalize_name(requirement.name)
            version = (locked(CUDA) if is_cuda(name) else locked())[name]
            assert requirement.specifier.contains(version)
    assert not locked().keys() & locked(CUDA).keys()
    assert [name for name in locked() if is_cuda(name)] == []
    assert [name for name in locked(CUDA) if not is_cuda(name)] == []
    # They belong to Linux.
    assert all("sys_platform == 'linux'" in str(requirement.marker).replace('"', "'") for requirement, _ in pins(CUDA).values())


@pytest.mark.parametrize(
    ("name", "command"),
    [(LOCK, "uv pip compile pyproject.toml --extra run --extra lab "), (CUDA, f"uv pip compile --no-config {TORCH}")],
)
def test_a_lock_says_how_it_was_made_and_has_the_hashes_of_every_file(name: str, command: str) -> None:
    for package, (_, hashes) in pins(name).items():
        assert hashes, f"{package} has no hash"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes), package
    header = " ".join(line for line in (ROOT / name).read_text().splitlines() if line.startswith("#"))
    assert command in header
    assert f"--universal --python-version {SUPPORTED_PYTHONS[0]}" in header
    assert "--generate-hashes" in header
    assert f"-o {name}" in header
    # A package with compiled parts has a file for each Python and platform.
    assert len(pins(LOCK)["numpy"][1]) > 3 * 4


def test_conda_gives_a_python_that_the_lock_is_for_and_nothing_else() -> None:
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    # Anything else from conda could be another version than the lock's.
    assert {Requirement(entry).name for entry in dependencies} == {"python", "pip"}
    python = next(Requirement(entry).specifier for entry in dependencies if entry.startswith("python"))
    required = SpecifierSet(project()["requires-python"])
    admitted = [f"3.{minor}" for minor in range(8, 20) if python.contains(f"3.{minor}.0")]
    assert admitted == SUPPORTED_PYTHONS
    assert all(required.contains(f"{version}.0") for version in admitted)
    assert not required.contains("3.10.99")


def test_set_up_files_name_no_host_and_no_machine_and_scripts_are_executable() -> None:
    places = r"https?://|--find-links|--extra-index-url|file://|/opt/|/root/|/home/|/tmp/|/work/|pypi"
    found = {name: re.findall(places, (ROOT / name).read_text()) for name in SETUP_FILES}
    assert found == {name: [] for name in SETUP_FILES}
    assert all(os.access(ROOT / name, os.X_OK) for name in SCRIPTS)


def test_every_import_of_the_library_is_declared() -> None:
    names = {canonicalize_name(requirement.name) for requirement in declared()}
    homes = metadata.packages_distributions()
    undeclared = set()
    for file in sorted((ROOT / "repro_lib").rglob("*.py")):
        nodes = list(ast.walk(ast.parse(file.read_text())))
        modules = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        modules += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
        for module in {module.partition(".")[0] for module in modules} - set(sys.stdlib_module_names) - {"repro_lib"}:
            # What is not installed here goes by its own name.
            if not names & {canonicalize_name(home) for home in homes.get(module, [module])}:
                undeclared.add(f"{file.name}: {module}")
    assert undeclared == set()


def test_the_page_of_licences_names_every_pinned_version_and_what_the_packages_say() -> None:
    # One line for each pin of the three files, whether it is installed here or not.
    page = (ROOT / "docs" / "dependencies.md").read_text().partition("| package | version | licence |")[2]
    rows = dict(re.findall(r"^\| ([\w.-]+) \| (\S+) \| .+ \|$", page, re.MULTILINE))
    assert rows == locked() | locked(TORCH) | locked(CUDA)
    command = [sys.executable, str(ROOT / "docs" / "make_licences.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


PYTEST = f"pytest=={metadata.version('pytest')}"


def make_pins(folder: Path, lock: str, torch: str = PYTEST, cuda: str = PYTEST) -> Path:
    """A folder with files of pins; returns it. Torch is no test's concern, so that something that is there stands for it."""
    for name, text in ((LOCK, lock), (TORCH, torch), (CUDA, cuda)):
        (folder / name).write_text(text + "\n")
    return folder


def test_mismatches_finds_what_was_planted(tmp_path: Path) -> None:
    assert mismatches(make_pins(tmp_path, f"# made by hand\n{PYTEST}")) == []
    lock = f"pytest==0.0.1\nno-such-package==1.2\npackaging=={metadata.version('packaging')}"
    assert mismatches(make_pins(tmp_path, lock)) == [
        f"pytest is {metadata.version('pytest')}, the lock has 0.0.1",
        "no-such-package is missing, the lock has 1.2",
    ]
    assert mismatches(make_pins(tmp_path, PYTEST, torch="no-torch==1")) == ["no-torch is missing, the lock has 1"]


def test_pins_with_hashes_are_read(tmp_path: Path) -> None:
    hashes = "".join(f" \\\n    --hash=sha256:{digit * 64}" for digit in "ab")
    lock = make_pins(tmp_path, f"one==1.2{hashes}\ntwo==3 ; python_full_version >= '3.0'{hashes}\nthree==4") / LOCK
    assert locked_versions(lock) == {"one": "1.2", "two": "3", "three": "4"}
    # Lines for other Pythons are left out.
    assert locked_versions(make_pins(tmp_path, "one==1 ; python_full_version < '3.0'\ntwo==2") / LOCK) == {"two": "2"}
    for text in ("torch>=2.7", "-r other.txt", "# nothing", "", f"one==1.2 --hash=md5:{'a' * 32}"):
        with pytest.raises(ValueError, match=r"requirements.lock: expected NAME==VERSION, found|names no package"):
            locked_versions(make_pins(tmp_path, text) / LOCK)


def test_the_cuda_parts_are_asked_for_where_torch_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_pins(tmp_path, PYTEST, cuda="no-cuda==13")
    for requires, wanted in ((["filelock", "nvidia-nccl-cu13==2; platform_system == 'Linux'"], True), (["filelock"], False)):
        monkeypatch.setattr(metadata, "requires", lambda name, requires=requires: requires)
        assert needs_cuda_parts() is wanted
        assert main(["--needs-cuda-parts"]) == (0 if wanted else 1)
        assert mismatches(tmp_path) == (["no-cuda is missing, the lock has 13"] if wanted else [])


def test_which_versions_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    versions = ["2.13.0+cpu", "2.13", "2.13.0rc1", "not a version", ""]
    for installed, wanted in [*((version, "2.13.0") for version in versions), ("2.13.0", "2.13.0+cpu")]:
        make_pins(tmp_path, f"torch=={wanted}", f"torch=={wanted}", f"torch=={wanted}")
        monkeypatch.setattr(metadata, "version", lambda name, installed=installed: installed)
        found[installed] = mismatches(tmp_path) == []
    assert found == dict.fromkeys([*versions, "2.13.0"], False) | dict.fromkeys(versions[:2], True)


def test_an_installation_of_another_checkout_does_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(make_pins(tmp_path, PYTEST))]) == 1
    assert capsys.readouterr().out == f"its repro_lib belongs to {ROOT}\n"


STAND_IN = """#!/bin/sh
case "$*" in
    *ensurepip*) exit ${NO_VENV:-0} ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip "*) echo "pip $*" >>"$PIP_CALLS"; echo "${PIP_SAYS-ERROR: none}"; exit ${PIP_EXIT:-0} ;;
    *--needs-cuda-parts*) exit ${NO_CUDA:-1} ;;
    *version_info*) exit ${TOO_OLD:-0} ;;
    *) exec "$REAL_PYTHON" "$@" ;;
esac
"""


class Checkout:
    """A small checkout in a folder with a space, whose lock this test run's own environment meets."""

    def __init__(self, folder: Path, name: str = "a checkout") -> None:
        self.root = folder / name
        (self.root / "repro_lib" / "system").mkdir(parents=True)
        modules = [f"repro_lib/{name}.py" for name in ("__init__", "system/__init__", "system/environment")]
        for name in ["setup.sh", "pyproject.toml", *modules]:
            shutil.copy(ROOT / name, self.root / name)
        self.lock = make_pins(self.root, PYTEST) / LOCK
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
        command, env = ["bash", str(self.root / "setup.sh"), *arguments], self.environment | environment
        return subprocess.run(command, env=env, cwd="/", capture_output=True, text=True, check=False, timeout=60)

    def pip(self) -> list[str]:
        return self.pip_calls.read_text().splitlines() if self.pip_calls.exists() else []


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_setup_makes_an_environment_once(checkout: Checkout) -> None:
    python = f"{checkout.venv}/bin/python\n"
    first = checkout.setup("--print-python")
    assert (first.returncode, first.stdout) == (0, python), first.stderr
    torch, lock, package = checkout.pip()
    assert torch.endswith(f" --no-deps -r {checkout.root / TORCH}")
    assert lock.endswith(f" --require-hashes -r {checkout.lock}")
    assert package.endswith(f" --no-deps --no-build-isolation -e {checkout.root}")
    second = checkout.setup("--print-python")
    assert (second.returncode, second.stdout, second.stderr) == (0, python, "")
    assert len(checkout.pip()) == 3
    # The CUDA parts come along where torch is a build that needs them.
    shutil.rmtree(checkout.venv)
    checkout.setup(NO_CUDA="0")
    assert checkout.pip()[4].endswith(f" --no-deps --require-hashes -r {checkout.root / CUDA}")
    assert len(checkout.pip()) == 3 + 4


def test_setup_updates_when_one_of_its_inputs_changed(checkout: Checkout) -> None:
    assert checkout.setup().returncode == 0
    for times, changed in enumerate((LOCK, TORCH, CUDA, "pyproject.toml"), start=2):
        with open(checkout.root / changed, "a") as file:
            file.write("# a word more\n")
        again = checkout.setup()
        assert (again.returncode, again.stdout) == (0, ""), changed
        assert "updating it" in again.stderr, changed
        assert len(checkout.pip()) == 3 * times, changed


def test_setup_starts_over_after_an_interruption(checkout: Checkout) -> None:
    failed = checkout.setup("--print-python", PIP_EXIT="1")
    assert (failed.returncode, failed.stdout) == (1, "")
    (checkout.venv / "leftover").touch()
    again = checkout.setup()
    assert (again.returncode, (checkout.venv / "leftover").exists()) == (0, False)
    assert "was interrupted; starting over" in again.stderr
    # Made in another folder, it is made anew too.
    stamp = checkout.venv / ".setup-stamp"
    stamp.write_text(stamp.read_text().replace("a checkout", "an older one"))
    assert "was made in another folder" in checkout.setup().stderr


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("WARNING: Retrying (Retry(total=4))\nERROR: no route to the index", "ERROR: no route to the index"),
        ("  Traceback\n      ValueError: invalid variable 'y'\n  ERROR: Failed building", "ValueError: invalid variable 'y'"),
    ],
)
def test_setup_says_why_pip_failed_and_asks_for_a_network_where_that_is_why(words: str, why: str, checkout: Checkout) -> None:
    failed = checkout.setup(PIP_EXIT="1", PIP_SAYS=words)
    assert failed.returncode == 1
    assert why in failed.stderr
    assert ("pip could not install the packages (is there a network? details: " in failed.stderr) is ("Retrying" in words)


def test_setup_refuses_a_folder_whose_name_setuptools_cannot_take(tmp_path: Path) -> None:
    for name in ("a {y}", "a $y"):
        (tmp_path / name).mkdir()
        checkout = Checkout(tmp_path / name, name)
        refused = checkout.setup()
        assert (refused.returncode, checkout.pip()) == (1, [])
        python = f"{checkout.venv}/bin/python"
        said = f"setup: setuptools takes {{, }} and $ in the name of a folder for its own, here in {python}; rename the folder."
        assert refused.stderr.splitlines()[-1] == said


def test_setup_keeps_out_of_the_way_of_another_one(checkout: Checkout) -> None:
    checkout.venv.mkdir()
    (checkout.venv / ".setup-stamp").write_text(f"in progress {os.getpid()}\n")
    refused = checkout.setup()
    assert refused.returncode == 1
    assert f"process {os.getpid()} is setting up" in refused.stderr
    assert checkout.pip() == []


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


def test_setup_installs_into_the_active_environment_where_asked_to(checkout: Checkout) -> None:
    active = checkout.root.parent / "conda"
    (active / "bin").mkdir(parents=True)
    shutil.copy(checkout.python3, active / "bin" / "python")
    # Nothing of the checkout is found in it before pip has been there.
    checkout.environment["PYTHONPATH"] = ""
    done = checkout.setup("--active", CONDA_PREFIX=str(active))
    assert len(checkout.pip()) == 3
    assert not checkout.venv.exists()
    # The stand-in for pip installs nothing, which is said.
    assert done.returncode == 1
    assert "pip finished, but" in done.stderr
    alone = checkout.setup("--active")
    assert (alone.returncode, len(checkout.pip())) == (1, 3)
    assert "no other environment than .venv is active" in alone.stderr


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
    ("code", "option", "environment", "said"),
    [
        (1, "--print-python", {"TOO_OLD": "1"}, "no Python 3.11 or newer was found"),
        (1, "--print-python", {"NO_VENV": "1"}, "has no venv module: install it"),
        (2, "--print-pyhton", {}, "unknown option '--print-pyhton'"),
    ],
)
def test_setup_says_what_it_needs(checkout: Checkout, code: int, option: str, environment: dict[str, str], said: str) -> None:
    refused = checkout.setup(option, **environment)
    assert (refused.returncode, refused.stdout) == (code, "")
    assert said in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert not checkout.venv.exists()


def test_setup_says_that_a_folder_is_not_writable(checkout: Checkout) -> None:
    with mounted(checkout.root, "--bind", str(checkout.root)) as remount:
        remount("bind,ro")
        refused = checkout.setup()
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "is not writable, so .venv cannot be made in it" in refused.stderr

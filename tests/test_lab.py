"""JupyterLab, started as the README says, answers nobody without its token, and nobody from elsewhere at all."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[1]


def readme_command() -> list[str]:
    """The words of the README's line ``jupyter lab  # ...``."""
    lines = [line.strip() for line in (ROOT / "README.md").read_text().splitlines()]
    (line,) = [line for line in lines if line.startswith("jupyter lab ")]
    return shlex.split(line, comments=True)


@contextmanager
def running(command: Sequence[str], home: Path, cwd: Path) -> Iterator[tuple[dict[str, Any], psutil.Process]]:
    """A JupyterLab that answers: what it notes about itself, and its process. Settings of whoever runs this do not count."""
    own = {f"JUPYTER_{kind}_DIR": str(home / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")}
    environment |= own | {"IPYTHONDIR": str(home / "ipython")}
    # Beyond the README: no browser, whatever port is free, and, for tests in containers, the consent that root must give.
    extra = ["--no-browser", "--ServerApp.port=0"] + (["--allow-root"] if os.geteuid() == 0 else [])
    with open(home / "log", "w") as log:
        server = subprocess.Popen(
            [*command, *extra],
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + 60
        while (note := answering(home / "runtime" / f"jpserver-{server.pid}.json")) is None:
            assert server.poll() is None, (home / "log").read_text()[-2000:]
            assert time.monotonic() < until, (home / "log").read_text()[-2000:]
            time.sleep(0.1)
        yield note, psutil.Process(server.pid)
    finally:
        family = [server.pid, *(child.pid for child in psutil.Process(server.pid).children(recursive=True))]
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            for member in filter(psutil.pid_exists, family):
                os.kill(member, signal.SIGKILL)
            server.wait(10)


def answering(about: Path) -> dict[str, Any] | None:
    """What a server notes about itself, once it has written it whole and answers."""
    try:
        note = json.loads(about.read_text())
    except (OSError, ValueError):
        return None
    return note if status(f"{note['url']}api") else None


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Any], psutil.Process]]:
    """The server of the README's command."""
    program, *words = readme_command()
    with running([str(Path(sys.executable).with_name(program)), *words], tmp_path_factory.mktemp("lab"), ROOT) as server:
        yield server


def status(url: str, **headers: str) -> int | None:
    """The answer's HTTP status; None if nobody answers."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except urllib.error.URLError:
        return None


def test_without_the_token_nothing_is_shown(lab: tuple[dict[str, Any], psutil.Process]) -> None:
    note, _ = lab
    assert len(note["token"]) >= 32
    assert note["password"] is False
    for place in ("contents", "contents/notebooks/10_train.ipynb", "kernels", "sessions", "terminals"):
        url = f"{note['url']}api/{place}"
        assert status(url) == 403, place
        assert status(url, Authorization="token " + "0" * 48) == 403, place
    # At the project's root, with the notebooks in sight.
    owner = {"Authorization": f"token {note['token']}"}
    with urllib.request.urlopen(urllib.request.Request(note["url"] + "api/contents", headers=owner), timeout=10) as answer:
        assert {"README.md", "notebooks", "results"} <= {entry["name"] for entry in json.load(answer)["content"]}
    # What a browser opens leads to the page that asks for the token.
    for place in ("lab", "files/notebooks/10_train.ipynb"):
        with urllib.request.urlopen(note["url"] + place, timeout=10) as answer:
            assert answer.url.startswith(f"{note['url']}login?"), place

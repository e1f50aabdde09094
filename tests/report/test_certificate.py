"""The determinism certificate as a file: read as it was written, or refused with a reason, never half."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from repro_lib.store.certificate import Certificate, certificate_or_reason, certificate_path, write_certificate
from repro_lib.store.checksummed import digest

MakeCertificate = Callable[..., Certificate]


@pytest.fixture
def path(tmp_path: Path, make_certificate: MakeCertificate) -> Path:
    """The file of a certificate."""
    return write_certificate(tmp_path, make_certificate())


def reason(path: Path) -> str:
    """Why the certificate in this file is refused."""
    certificate, said = certificate_or_reason(path.parent.parent)
    assert certificate is None
    assert str(path.parent) not in said, "what is published says nothing about the machine"
    return said


def rewrite(path: Path, **changes: Any) -> None:
    """Change the content, with a digest that fits it."""
    content = json.loads(path.read_text()) | changes
    del content["content_sha256"]
    path.write_text(json.dumps({"content_sha256": digest(content), **content}))


def test_a_certificate_is_read_as_it_was_written_and_the_newest_replaces_the_one_before(
    tmp_path: Path, make_certificate: MakeCertificate
) -> None:
    for made in (make_certificate(), make_certificate(failed=["causality"], slowdown=1.5, digests={})):
        path = write_certificate(tmp_path, made)
        assert certificate_or_reason(tmp_path) == (made, "")
        assert list(path.parent.iterdir()) == [path]
    assert not made.passed
    assert list(tmp_path.glob("*.json")) == [], "only result files lie directly in the folder"


def test_none_is_no_error(tmp_path: Path) -> None:
    assert reason(certificate_path(tmp_path)) == "not certified yet: run repro doctor --determinism"
    (tmp_path / "certificate").write_text("a file in the place of the folder")
    assert reason(certificate_path(tmp_path)) == "not certified yet: run repro doctor --determinism"


def test_whatever_is_changed_it_is_the_same_or_refused(path: Path, make_certificate: MakeCertificate) -> None:
    whole, chooser, refused = path.read_bytes(), random.Random(3), 0
    for _ in range(1000):
        place, kind = chooser.randrange(len(whole)), chooser.choice(["flip", "cut", "drop", "double"])
        flipped = bytes([whole[place] ^ (1 << chooser.randrange(8))])
        rest = {"flip": flipped + whole[place + 1 :], "cut": b"", "drop": whole[place + 1 :], "double": whole[place:]}[kind]
        path.write_bytes(whole[:place] + (whole[place : place + 1] if kind == "double" else b"") + rest)
        certificate, said = certificate_or_reason(path.parent.parent)
        assert certificate in (None, make_certificate())
        assert (certificate is None) == said.startswith("not certified: determinism.json is no whole") or (
            "content_sha256 does not fit" in said
        )
        refused += certificate is None
    assert refused > 800


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 2}, "format: Input should be less than or equal to 1"),
        ({"passed": True}, "passed: Extra inputs are not permitted"),
        ({"checks": []}, "checks must be processes, resumed, constant predictor, causality, in this order"),
        ({"checks": [{"name": "processes", "passed": True, "said": "x"}] * 4}, "in this order"),
        ({"checks": [{"name": "luck", "passed": True, "said": "x"}]}, "checks.0.name: Input should be"),
        ({"checks": [{"name": "processes", "passed": 1, "said": "x"}]}, "checks.0.passed: Input should be a valid boolean"),
        ({"checks": [{"name": "processes", "passed": True, "said": "x" * 501}]}, "at most 500 characters"),
        ({"digests": {}}, "nothing was compared"),
        ({"digests": {"a": "<script>"}}, "digests.a: String should match pattern"),
        ({"digests": {str(k): "a" * 64 for k in range(1001)}}, "at most 1000 items"),
        ({"workers": 1}, "workers: Input should be greater than or equal to 2"),
        ({"slowdown": 0}, "slowdown: Input should be"),
        ({"slowdown": "fast"}, "slowdown: Input should be a valid number"),
        ({"machine": None}, "machine: Input should be"),
        ({"timestamp": "2025-01-01T12:00:00"}, "timestamp: Input should have timezone info"),
        ({"timestamp": "2025-01-01T12:00:00+02:00"}, "timestamp must be in UTC"),
    ],
)
def test_what_no_certificate_can_say_is_refused_even_if_its_digest_fits(path: Path, changes: dict[str, Any], said: str) -> None:
    rewrite(path, **changes)
    assert reason(path).startswith("not certified: determinism.json is no valid certificate: ")
    assert said in reason(path)


def test_what_is_no_file_or_too_large_is_neither_read_nor_waited_for(path: Path) -> None:
    os.truncate(path, 2**40)  # sparse: takes no room
    assert "is larger than 1 MiB" in reason(path)
    path.unlink()
    os.mkfifo(path)
    assert "is no regular file" in reason(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    assert "is no regular file" in reason(path)
    path.unlink()
    path.mkdir()
    assert "cannot be read (Is a directory)" in reason(path)


def test_it_speaks_for_results_of_the_same_torch_device_and_processor_alone(make_certificate: MakeCertificate) -> None:
    same = {"torch": "2.13.0", "device": "cpu", "cpu": "Some CPU", "git_commit": "another", "python": "3.12.0"}
    certificate = make_certificate()
    assert certificate.stale([]) is None
    assert certificate.stale([same, same]) is None
    for name in ("torch", "device", "cpu"):
        ours = certificate.machine[name]
        assert certificate.stale([same, same | {name: "x"}]) == f"{name} {ours}, these results with x"
        assert certificate.stale([same | {name: None}]) == f"{name} {ours}, these results with an unknown one"


def test_a_moment_in_another_zone_cannot_be_certified(make_certificate: MakeCertificate) -> None:
    with pytest.raises(ValueError, match="must be in UTC"):
        make_certificate(timestamp=datetime(2025, 1, 1, tzinfo=timezone(timedelta(hours=1))))
    assert make_certificate(timestamp=datetime(2025, 1, 1, tzinfo=UTC)).passed

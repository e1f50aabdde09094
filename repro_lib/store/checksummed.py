"""Records in JSON that say by a digest whether they are as they were written."""

from __future__ import annotations

import hashlib
import json
from typing import Any, ClassVar, Self

from pydantic import Field, ValidationError

from repro_lib.config import canonical_json
from repro_lib.store.schema import Part, first_problem
from repro_lib.system.files import UnusableFile


class Signed(Part):
    """A record with a digest of its content and, where it has tensors beside it, of those.

    The digest finds damage. It is no signature of anybody: what a record says is checked as well when it is read.
    """

    # What messages call it.
    kind: ClassVar[str]

    # Not Literal[1], for which true would do as well.
    format: int = Field(default=1, ge=1, le=1)

    def signed(self, tensors_sha256: str = "") -> str:
        """The JSON text, ``content_sha256`` first."""
        content = self.model_dump(mode="json")
        return json.dumps({"content_sha256": digest(content, tensors_sha256), **content}, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_signed(cls, text: str | bytes, tensors_sha256: str = "") -> Self:
        """Read what ``signed`` wrote; UnusableFile says what is wrong."""
        try:
            content = json.loads(text)
            claimed = content.pop("content_sha256")
            if claimed != digest(content, tensors_sha256):
                raise UnusableFile("was changed after it was written (content_sha256 does not fit)")
            return cls.model_validate_json(canonical_json(content))
        except ValidationError as error:
            raise UnusableFile(f"is no valid {cls.kind}: {first_problem(error)}") from None
        except UnusableFile:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UnusableFile(f"is no whole {cls.kind} ({type(error).__name__}: {str(error)[:100]})") from None


def digest(content: dict[str, Any], tensors_sha256: str = "") -> str:
    """The ``content_sha256`` of a record's content."""
    return hashlib.sha256(f"{canonical_json(content)}{tensors_sha256}".encode()).hexdigest()

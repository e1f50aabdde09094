"""Records that are stored as JSON: nothing in them can be changed, and a digest finds what was changed in the file."""

import hashlib
import json
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field

from repro_lib.config import canonical_json
from repro_lib.system.files import UnusableFile

Sha256 = Field(pattern=r"^[0-9a-f]{64}$")


class Part(BaseModel):
    """A record that cannot be changed, takes no unknown field and converts nothing; its fields are attributes or items."""

    _indent: ClassVar[int | None] = None
    # Strict, because a "0.5" that becomes 0.5 would not be written back as it was read.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def __getitem__(self, name: str) -> Any:
        if name not in type(self).model_fields:
            raise KeyError(f"{name!r}; known: {', '.join(type(self).model_fields)}")
        return getattr(self, name)

    def to_json(self, beside: str = "") -> str:
        """The text of a file of its own, ``content_sha256`` first, which also covers the digest of what lies ``beside`` it."""
        content = self.model_dump(mode="json")
        content = {"content_sha256": digest_of(content, beside)} | content
        return json.dumps(content, indent=self._indent, allow_nan=False) + "\n"

    @classmethod
    def unsealed(cls, text: str | bytes, beside: str = "") -> Self:
        """Read what ``to_json`` wrote; UnusableFile says what is wrong."""
        try:
            content = json.loads(text)
            if content.pop("content_sha256") == digest_of(content, beside):
                return cls.model_validate_json(canonical_json(content))
        # Whatever text lies there is refused in one sentence. ValueError: no JSON, or of another form.
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:100]
            raise UnusableFile(f"is no whole checkpoint ({reason})") from None
        raise UnusableFile("was changed after it was written (content_sha256 does not fit)")


def digest_of(content: Any, beside: str = "") -> str:
    """The ``content_sha256`` of a file's content; ValueError or RecursionError for what JSON cannot say."""
    return hashlib.sha256(f"{canonical_json(content)}{beside}".encode()).hexdigest()

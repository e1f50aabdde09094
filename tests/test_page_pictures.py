"""Pictures of pages: fewer bytes, the same pixels, and never a page lost over one."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repro_lib.page_pictures import smallest

CHART = Path(__file__).parents[1] / "published" / "figures" / "against_relu.png"


def png_of(picture: Image.Image, **options: object) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", **options)
    return base64.encodebytes(buffer.getvalue()).decode()  # with line ends, as notebooks have them


def pixels(data: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA"))


def test_a_chart_has_the_same_pixels_in_fewer_bytes() -> None:
    before = base64.encodebytes(CHART.read_bytes()).decode()
    found = smallest(before)
    assert found.mimetype == "image/webp"
    assert len(found.data) < 0.9 * len(before)
    assert (pixels(found.data) == pixels(before)).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_stays(mode: str) -> None:
    noise = np.random.default_rng(1).integers(0, 4, (64, 64, 4), dtype=np.uint8) * 85
    picture = Image.fromarray(noise, "RGBA").convert(mode)
    options = {"transparency": 0} if mode == "P" else {}
    before = png_of(picture, **options)
    assert (pixels(before)[..., 3] < 255).any()
    assert (pixels(smallest(before).data) == pixels(before)).all()


def test_what_would_grow_stays_a_png() -> None:
    before = png_of(Image.new("1", (1, 1)), optimize=True)
    found = smallest(before)
    assert len(found.data) <= len(before)
    assert "\n" not in found.data


@pytest.mark.parametrize("data", ["", "AA==", "not base64", base64.b64encode(CHART.read_bytes()[:5000]).decode()])
def test_what_cannot_be_decoded_stays(data: str) -> None:
    assert smallest(data) == ("image/png", data)

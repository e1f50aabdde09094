"""Pictures of pages: fewer bytes, the same pixels, and never a page lost over one."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from repro_lib.report.site.page_images import smallest

CHART = Path(__file__).parents[2] / "published" / "figures" / "against_relu.png"


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
    rows, columns = np.mgrid[0:256, 0:256]
    before = png_of(Image.fromarray((rows * columns % 256).astype(np.uint8)), optimize=True)
    assert smallest(before) == ("image/png", before.replace("\n", ""))


def deep() -> str:
    return png_of(Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64) * 16))


def wide() -> str:
    return png_of(Image.new("L", (16_384, 2)))


def with_profile() -> str:
    return png_of(Image.new("RGB", (64, 64)), icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())


def animated() -> str:
    first, second = (Image.new("RGB", (64, 64), colour) for colour in ("white", "black"))
    return png_of(first, save_all=True, append_images=[second])


@pytest.mark.parametrize("make", [deep, wide, with_profile, animated])
def test_what_webp_would_not_hold_exactly_stays_a_png(make: Callable[[], str]) -> None:
    before = make()
    assert smallest(before) == ("image/png", before.replace("\n", ""))


@pytest.mark.parametrize("data", ["", "AA==", "not base64", base64.b64encode(CHART.read_bytes()[:5000]).decode()])
def test_what_cannot_be_decoded_stays(data: str) -> None:
    assert smallest(data) == ("image/png", data)

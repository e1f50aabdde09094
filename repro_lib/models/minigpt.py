"""MiniGPT: the same kind of transformer as CharLM at GPT's proportions and 25 times the size (10.8 M parameters)."""

from __future__ import annotations

from repro_lib.models.charlm import CharLM


class MiniGPT(CharLM):
    """Token ids (B, T) -> logits (B, T, V). Six layers of width 384, context 256: what changes with scale alone?"""

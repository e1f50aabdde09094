"""MiniGPT: CharLM at GPT's proportions and 25 times the size, context 256 (10.8 M parameters): what does scale alone change?"""

from repro_lib.models.charlm import CharLM


class MiniGPT(CharLM):
    """Token ids (B, T) -> logits (B, T, V). Its size is in ``repro_lib.config.MODEL_DEFAULTS``."""

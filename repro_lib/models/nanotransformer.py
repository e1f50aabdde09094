"""NanoTransformer: CharLM without dropout and without biases (does regularisation matter?) (430 K parameters)."""

from repro_lib.models.charlm import CharLM


class NanoTransformer(CharLM):
    """Token ids (B, T) -> logits (B, T, V). No dropout: Config.for_model refuses any."""

    biases = False

"""The six models under study, their activations, and what makes them deterministic.

In: a name, a ``Config``, the name of an activation. Out: a module that takes token ids (B, T) and returns logits (B, T, V).
"""

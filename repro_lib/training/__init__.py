"""Training a cell: N trials of one model with one activation, killed and gone on with or not, to the same bits.

In: a complete ``Config`` and a text. Out: a ``Result`` in the store, with predictions and weights beside it.
"""

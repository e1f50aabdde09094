"""Anybody's models, compared: what their predictions are, how much they differ, and what became better or worse."""

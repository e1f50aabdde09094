"""How long things take: run one with ``python -m benchmarks.NAME``."""

"""The grid by Snakemake on this machine: the same store as by the local executor, whatever is killed meanwhile."""

from __future__ import annotations

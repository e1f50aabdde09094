"""The grid: which cells and notebooks there are to do, and what does them.

In: a ``GridRequest``. Out: results in the store, executed notebooks, and a site; on this machine or by ``snakemake/``."""

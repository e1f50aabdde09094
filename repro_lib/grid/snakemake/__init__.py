"""The grid by Snakemake: the plan that ``workflow/Snakefile`` works on, and one job of it."""

"""From the committed result files of the published study to its tables, figures and report: ``python -m published.rebuild``."""

"""Tables, figures and pages about runs, finished or not, for `python -m sparsejax.report`."""

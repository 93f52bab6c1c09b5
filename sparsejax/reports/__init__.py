"""Tables, figures and pages of what runs left behind: the rooms of `python -m sparsejax.report`."""

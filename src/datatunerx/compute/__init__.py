"""Where a run runs: submit, phase, stop."""

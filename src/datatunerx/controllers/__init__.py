"""A queue of names and one small level-triggered reconciler per kind."""

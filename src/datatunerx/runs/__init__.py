"""The seam between the planes: plan, event and result documents, and the pure functions that compile plans."""

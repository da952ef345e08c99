"""Rows from any source into conversations into tokens, and the data report."""

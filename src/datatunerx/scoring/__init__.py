"""Answers and references in, numbers with intervals out."""

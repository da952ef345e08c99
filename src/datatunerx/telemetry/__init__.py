"""Structured logs, and append and tail of logs and events by byte offset."""

"""Versioned objects on SQLite: a log table, a current table, one writer thread, a watch cache."""

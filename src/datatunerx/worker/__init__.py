"""The one entry point of the worker plane: reads a plan, does it, writes the result."""

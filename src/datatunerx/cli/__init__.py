"""The dtx command."""

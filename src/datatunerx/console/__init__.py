"""The web pages: rendered here, over `client`, with the visitor's own token; nothing private behind them."""

from datatunerx.console.app import create_console
from datatunerx.console.session import Sessions
from datatunerx.console.visit import PREFIX

__all__ = ["PREFIX", "Sessions", "create_console"]

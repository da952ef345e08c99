"""What can go wrong in a command, and the exit code it becomes."""

from enum import IntEnum


class Exit(IntEnum):
    OK = 0
    FAILED = 1
    """The experiment failed, or the server refused."""
    USAGE = 2
    """A wrong option, or a manifest that cannot be applied."""
    UNREACHABLE = 3
    """No server answers."""
    INTERRUPTED = 130


class CommandError(Exception):
    """Told to the user as it is, one line or several; never with a traceback."""

    code = Exit.FAILED


class BadInput(CommandError):
    """What was given cannot be used; the message names the place and the fix."""

    code = Exit.USAGE


class NoServer(CommandError):
    """Nothing answers where a server should be."""

    code = Exit.UNREACHABLE

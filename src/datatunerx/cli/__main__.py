"""The entry point of `dtx`."""

import sys

from datatunerx.cli.errors import CommandError


def main() -> None:
    """Run a command; what a user can mend is told in plain words, with its exit code."""
    from datatunerx.cli.program import app

    try:
        app()
    except CommandError as error:
        print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
        sys.exit(int(error.code))


if __name__ == "__main__":
    main()

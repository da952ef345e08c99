"""What the server says of itself at /version."""

import platform

# The minor is that of the protocol we follow: some clients choose their own binary by it.
BUILD: dict[str, str] = {
    "major": "1",
    "minor": "32",
    "gitVersion": "v1.32.0+datatunerx",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "2026-11-22T00:00:00Z",
    "goVersion": "none",
    "compiler": "CPython",
    "platform": f"{platform.system().lower()}/{platform.machine().replace('x86_64', 'amd64')}",
}

"""All benchmarks, one after the other, each in a process of its own: `make bench`."""

import subprocess
import sys
from pathlib import Path

SCRIPTS = (
    "bench_platform.py",
    "bench_server.py",
    "bench_engine.py",
    "bench_data.py",
    "bench_serving.py",
    "bench_console.py",
    "bench_visitors.py",
)

for script in SCRIPTS:
    print(f"\n== {script}", flush=True)
    subprocess.run([sys.executable, str(Path(__file__).parent / script)], check=True)

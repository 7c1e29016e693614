"""Fail when the committed generated code is not what `proto/` gives.

Generates into a temporary folder and compares file by file; changes nothing.
"""

import filecmp
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = ROOT / "libs" / "contracts"
TOOLS = COMMITTED / "tools"
DOCUMENTS = {
    TOOLS / "service_config.py": ROOT / "proto" / "service_config.json",
    TOOLS / "openapi.py": ROOT / "libs" / "stack" / "drey_stack" / "openapi.json",
}


def generated(folder: Path) -> set[Path]:
    return {p.relative_to(folder) for p in folder.rglob("*_pb2*.py*") if p.suffix != ".pyc"}


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        fresh = Path(name)
        template = (ROOT / "buf.gen.yaml").read_text()
        template = template.replace("out: libs/contracts", f"out: {fresh}")
        paths = ["--path", "proto/drey", "--path", "libs/contracts/proto/drey"]
        subprocess.run(["buf", "generate", "--template", template, *paths], cwd=ROOT, check=True)
        wanted, have = generated(fresh), generated(COMMITTED)
        drift = sorted(wanted ^ have) + sorted(
            p for p in wanted & have if not filecmp.cmp(fresh / p, COMMITTED / p, shallow=False)
        )
        for tool, document in DOCUMENTS.items():
            subprocess.run([sys.executable, tool, fresh / document.name, "buf"], check=True)
            if not filecmp.cmp(fresh / document.name, document, shallow=False):
                drift.append(document)
    for path in drift:
        print(f"{path} is not what proto/ gives", file=sys.stderr)
    if drift:
        print("run `make contracts` and commit the result", file=sys.stderr)
        return 1
    print(f"{len(have)} generated files are what proto/ gives")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A protoc plugin for Python: `grpc_tools` has the generators built into its protoc only.

    python_code.py messages|services

Reads a `CodeGeneratorRequest` from standard input, runs that protoc on the same descriptors, and
answers with what it wrote.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from google.protobuf.descriptor_pb2 import FileDescriptorSet

GENERATORS = {"messages": "python_out", "services": "grpc_python_out"}
OLDEST = (6, 30, 0)
"""Protobuf from which on the code of messages works: GUI environments are old.

protoc writes its own version, and the classes refuse an older runtime. What the one of 6.30 writes
is the same but for that; a test installs the wheel beside protobuf 6.30.
"""


def for_oldest(text: str) -> str:
    """The code with the version that it needs, instead of the one of its generator."""
    major, minor, patch = OLDEST
    text, lines = re.subn(
        r"(?m)^(# Protobuf Python Version: ).*$", rf"\g<1>{major}.{minor}.{patch}", text
    )
    text, calls = re.subn(
        r"(Domain\.PUBLIC,\s+)\d+,(\s+)\d+,(\s+)\d+,",
        rf"\g<1>{major},\g<2>{minor},\g<3>{patch},",
        text,
    )
    if (lines, calls) != (1, 1):
        raise SystemExit("protoc writes its version in another way: see python_code.py")
    return text


def main(what: str) -> None:
    request = CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    response = CodeGeneratorResponse(
        supported_features=CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    )
    with tempfile.TemporaryDirectory() as folder:
        descriptors = Path(folder, "descriptors.pb")
        out = Path(folder, "out")
        out.mkdir()
        descriptors.write_bytes(FileDescriptorSet(file=request.proto_file).SerializeToString())
        subprocess.run(
            [
                sys.executable,
                "-m",
                "grpc_tools.protoc",
                f"--descriptor_set_in={descriptors}",
                f"--{GENERATORS[what]}={out}",
                *request.file_to_generate,
            ],
            check=True,
        )
        for path in sorted(out.rglob("*.py")):
            text = path.read_text()
            if what == "messages":
                text = for_oldest(text)
            elif "class " not in text:  # a file without a service has nothing to say
                continue
            response.file.add(name=str(path.relative_to(out)), content=text)
    sys.stdout.buffer.write(response.SerializeToString())


if __name__ == "__main__":
    main(*sys.argv[1:])

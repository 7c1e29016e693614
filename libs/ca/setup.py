"""Builds the native channel table. `DREY_CA_NATIVE=require` fails where it cannot be built;
`skip` does not try; otherwise the package installs without it and `drey_ca` falls back to aioca."""

import os
from pathlib import Path

from setuptools import Extension, setup

HOW = os.environ.get("DREY_CA_NATIVE", "auto")


def extensions() -> list[Extension]:
    """The extension, or none where it is not wanted."""
    if HOW == "skip":
        return []
    if HOW not in ("auto", "require"):
        raise SystemExit(f"DREY_CA_NATIVE is {HOW!r}; it may be auto, require or skip")
    import epicscorelibs
    from Cython.Build import cythonize

    include = Path(epicscorelibs.__file__).parent / "include"
    table = Extension(
        "drey_ca._native.table",
        ["src/drey_ca/_native/table.pyx"],
        include_dirs=[str(include)],
        extra_compile_args=["-O2", "-fno-strict-aliasing", "-Wno-unused-function"],
    )
    made: list[Extension] = cythonize([table], include_path=["src"])
    for extension in made:
        extension.optional = HOW == "auto"  # which cythonize does not pass on
    return made


setup(ext_modules=extensions())

#!/bin/sh
# Builds the native channel table with AddressSanitizer and UndefinedBehaviorSanitizer in a folder of
# its own, and runs the suite's core on it against a real IOC. Leaks are not looked for: the
# interpreter keeps what it will. Usage: tests/tools/native_asan.sh [pytest arguments]
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
python=$root/.venv/bin/python
command -v gcc >/dev/null || { echo "NOT RUN: AddressSanitizer needs gcc: apt-get install gcc libc6-dev" >&2; exit 0; }
runtime=$(gcc -print-file-name=libasan.so)
stdcpp=$(gcc -print-file-name=libstdc++.so.6)  # its throw is intercepted only if it is there from the start
[ -e "$runtime" ] || { echo "NOT RUN: no libasan: apt-get install libgcc-12-dev" >&2; exit 0; }
build=$root/.cache/native-asan
rm -rf "$build" && mkdir -p "$build"
cp -r "$root/libs/ca" "$build/ca"
# What pip's isolated build would bring, in a folder of its own.
"$root/.venv/bin/uv" pip install -q --python "$python" --target "$build/tools" -c "$root/constraints.txt" cython "setuptools>=77"
cd "$build/ca"
find . -name '*.so' -delete
CFLAGS="-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g -O1" \
LDFLAGS="-fsanitize=address,undefined" DREY_CA_NATIVE=require \
PYTHONPATH=$build/tools "$python" setup.py -q build_ext --inplace
cd "$root"
ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:handle_segv=1 LD_PRELOAD="$runtime $stdcpp" PYTHONMALLOC=malloc \
PYTHONPATH=$build/ca/src "$python" -X faulthandler -m pytest tests/integration/ca -k "native and not flat and not rounds and not packaging" -q -p no:cacheprovider "$@"

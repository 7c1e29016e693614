"""The house's rules for `proto/` that buf has no rule for; part of `make lint`.

Plain protoc with the stock plugins of any language must give a client without an override, and a
client must know from the contracts alone which calls it may repeat.
"""

import keyword
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor import (
    Descriptor,
    EnumDescriptor,
    FieldDescriptor,
    FileDescriptor,
    MethodDescriptor,
)
from google.protobuf.descriptor_pb2 import FieldOptions, FileDescriptorSet, MethodOptions
from google.protobuf.descriptor_pool import DescriptorPool

from drey.common.v1.annotations_pb2 import permission as permission_option

ROOT = Path(__file__).resolve().parents[2]
FILE_OPTIONS = (
    *("go_package", "java_package", "java_multiple_files", "java_outer_classname"),
    *("csharp_namespace", "swift_prefix", "objc_class_prefix"),
    *("php_namespace", "php_metadata_namespace", "ruby_package"),
)
INTEGERS_64 = frozenset(
    {
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_UINT64,
        FieldDescriptor.TYPE_FIXED64,
        FieldDescriptor.TYPE_SFIXED64,
        FieldDescriptor.TYPE_SINT64,
    }
)
IDENTITIES = frozenset({"number", "numbers", "epoch", "sequence", "version", "revision"})
"""Last words of names whose 64 bits are an identity: a double would merge two of them."""
TUTORIALS = range(50_000, 51_000)
"""Numbers of options that every tutorial uses, and so every second company."""
KEYWORDS = {
    "Go": "break case chan const continue default defer else fallthrough for func go goto if import"
    " interface map package range return select struct switch type var",
    "Java": "abstract assert boolean break byte case catch char class const continue default do"
    " double else enum extends false final finally float for goto if implements import instanceof"
    " int interface long native new null package private protected public return short static"
    " strictfp super switch synchronized this throw throws transient true try void volatile while",
    "TypeScript": "await break case catch class const continue debugger default delete do else enum"
    " export extends false finally for function if implements import in instanceof interface let"
    " new null package private protected public return static super switch this throw true try"
    " typeof var void while with yield",
    "Rust": "abstract as async await become box break const continue crate do dyn else enum extern"
    " false final fn for gen if impl in let loop macro match mod move mut override priv pub ref"
    " return self static struct super trait true try type typeof unsafe unsized use virtual where"
    " while yield",
    "C#": "abstract as base bool break byte case catch char checked class const continue decimal"
    " default delegate do double else enum event explicit extern false finally fixed float for"
    " foreach goto if implicit in int interface internal is lock long namespace new null object"
    " operator out override params private protected public readonly ref return sbyte sealed short"
    " sizeof stackalloc static string struct switch this throw true try typeof uint ulong unchecked"
    " unsafe ushort using virtual void volatile while",
    "Python": " ".join(keyword.kwlist).lower(),
    "Kotlin": "as break class continue do else false for fun if in interface is null object package"
    " return super this throw true try typealias typeof val var when while",
    "Swift": "any as associatedtype await break case catch class continue default defer deinit do"
    " else enum extension fallthrough false fileprivate for func guard if import in init inout"
    " internal is let nil open operator precedencegroup private protocol public repeat rethrows"
    " return self static struct subscript super switch throw throws true try typealias var where"
    " while",
}
RESERVED = {word: language for language, words in KEYWORDS.items() for word in words.split()}

PERMISSION = re.compile(r"[a-z]+\.[a-z][a-z_]*\.[a-z][a-z_]*")
"""Area, resource, verb."""


def built() -> FileDescriptorSet:
    """The contracts as buf reads them."""
    buf = Path(sys.executable).with_name("buf")
    command: list[str | Path] = [buf, "build", "--as-file-descriptor-set", "-o", "-#format=binpb"]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    return FileDescriptorSet.FromString(done.stdout)


def problems(files: FileDescriptorSet) -> Iterator[str]:
    """What breaks a rule, one line each."""
    pool = DescriptorPool()
    for described in files.file:
        pool.Add(described)
    ours = [pool.FindFileByName(f.name) for f in files.file if f.name.startswith("drey/")]
    for file in ours:
        yield from _of_file(file)
    yield from _of_routes(ours)


def _of_routes(files: list[FileDescriptor]) -> Iterator[str]:
    taken: dict[tuple[str, str], str] = {}
    methods = (m for f in files for s in f.services_by_name.values() for m in s.methods)
    for method in methods:
        rule = method.GetOptions().Extensions[annotations_pb2.http]
        for each in (rule, *rule.additional_bindings):
            route = (each.WhichOneof("pattern") or "", re.sub(r"{[^}]*}", "{}", _path(each)))
            other = taken.setdefault(route, method.full_name)
            if route[0] and other != method.full_name:
                yield f"{method.full_name} and {other} have the same route {' '.join(route)}"


def _of_file(file: FileDescriptor) -> Iterator[str]:
    options = file.GetOptions()
    for name in FILE_OPTIONS:
        if not getattr(options, name):
            yield f"{file.name}: has no option {name}"
    for service in file.services_by_name.values():
        for method in service.methods:
            yield from _of_method(file, method)
    for message in file.message_types_by_name.values():
        yield from _of_message(file, message)
    for enum in file.enum_types_by_name.values():
        yield from _of_enum(file, enum)
    for extension in file.extensions_by_name.values():
        if extension.number in TUTORIALS:
            yield f"{file.name}: {extension.name} has the number {extension.number} of tutorials"


def _of_method(file: FileDescriptor, method: MethodDescriptor) -> Iterator[str]:
    level = method.GetOptions().idempotency_level
    if level == MethodOptions.IDEMPOTENCY_UNKNOWN:
        yield f"{file.name}: {method.name} has no idempotency_level"
    acts = "request_id" in method.input_type.fields_by_name
    if acts and level == MethodOptions.NO_SIDE_EFFECTS:
        yield f"{file.name}: {method.name} takes a request_id and claims to have no effect"
    permission = method.GetOptions().Extensions[permission_option]
    area = file.package.removesuffix(".v1").rsplit(".", 1)[-1]
    if not PERMISSION.fullmatch(permission) or not permission.startswith(f"{area}."):
        yield f"{file.name}: {method.name} needs a permission of the form {area}.resource.verb"
    is_public = not file.package.startswith("drey.internal.")
    if is_public and not method.client_streaming:
        yield from _of_http(file, method)


def _of_http(file: FileDescriptor, method: MethodDescriptor) -> Iterator[str]:
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    paths = [path for each in (rule, *rule.additional_bindings) if (path := _path(each))]
    if not paths:
        yield f"{file.name}: {method.name} has no google.api.http"
    for variable in re.findall(r"{([^}]*)}", " ".join(paths)):
        message: Descriptor | None = method.input_type
        for name in variable.split("."):
            field = message.fields_by_name.get(name) if message is not None else None
            if field is None:
                yield f"{file.name}: {method.name} has no field {variable} for its path"
                break
            message = field.message_type


def _path(rule: http_pb2.HttpRule) -> str:
    return str(getattr(rule, rule.WhichOneof("pattern") or "get"))


def _of_message(file: FileDescriptor, message: Descriptor) -> Iterator[str]:
    for field in message.fields:
        is_identity = field.name.rsplit("_", 1)[-1] in IDENTITIES and field.type in INTEGERS_64
        if is_identity and field.GetOptions().jstype != FieldOptions.JS_STRING:
            yield f"{file.name}: {message.name}.{field.name} needs jstype = JS_STRING"
        yield from _of_name(file, f"{message.name}.{field.name}")
    for enum in message.enum_types:
        yield from _of_enum(file, enum)
    for nested in message.nested_types:
        yield from _of_message(file, nested)


def _of_enum(file: FileDescriptor, enum: EnumDescriptor) -> Iterator[str]:
    for value in enum.values:
        yield from _of_name(file, f"{enum.name}.{value.name}")


def _of_name(file: FileDescriptor, name: str) -> Iterator[str]:
    language = RESERVED.get(name.rsplit(".", 1)[1].lower())
    if language is not None:
        yield f"{file.name}: {name} is a keyword of {language}"


def main() -> int:
    found = list(problems(built()))
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

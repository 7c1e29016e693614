"""Generates the reference pages that are made from the code: `make docs`.

    python docs/generate.py            writes them
    python docs/generate.py --check    exit status 1, naming them, where one differs

`errors.md` and `rpc.md` come from the comments and options in `proto/`, `settings.md` from the
settings classes of the services, `cli.md` from the commands of `drey`, `permissions.md` from the
table of roles. In all other pages the code
after a line `<!-- file: PATH -->` is replaced by the file.
"""

from __future__ import annotations

import importlib
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from google.protobuf import descriptor_pb2
from grpc_tools import protoc  # type: ignore[import-untyped]
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from drey.common.v1 import annotations_pb2
from drey_cli.errors import ExitCode
from drey_cli.main import drey, every_command
from drey_cli.options import CHOOSING, CONNECTION
from drey_core.permissions import ROLES
from drey_runtime.settings import SERVICES, CommonSettings, environment_variables
from drey_testing.metric_names import declared_metrics

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
PUBLIC = (
    "drey/catalog/v1/catalog_service.proto",
    "drey/snapshot/v1/snapshot_service.proto",
    "drey/compare/v1/compare_service.proto",
    "drey/policy/v1/policy_service.proto",
    "drey/restore/v1/restore_service.proto",
    "drey/monitor/v1/monitor_service.proto",
    "drey/job/v1/job_service.proto",
    "drey/access/v1/access_service.proto",
    "drey/audit/v1/audit_service.proto",
    "drey/event/v1/event_service.proto",
    "drey/system/v1/system_service.proto",
)
_MESSAGE, _ENUM, _SERVICE = 4, 5, 6
_FIELD, _VALUE, _METHOD = 2, 2, 2
_TYPES = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in descriptor_pb2.FieldDescriptorProto.Type.items()
}
_INCLUDED = re.compile(r"(<!-- file: (\S+) -->\n```\w*\n)(?:.*?\n)??```\n", re.DOTALL)


class Contracts:
    """Descriptors of `proto/` with their comments."""

    def __init__(self) -> None:
        self.files = {file.name: file for file in _compile_protos().file}
        self._comments = {
            name: {
                tuple(location.path): location.leading_comments
                for location in file.source_code_info.location
            }
            for name, file in self.files.items()
        }

    def comment(self, file: str, *path: int) -> str:
        """The comment before an element, as one paragraph."""
        return " ".join(self._comments[file].get(tuple(path), "").split())

    def message(self, full_name: str) -> tuple[str, int, descriptor_pb2.DescriptorProto]:
        """(file, index, descriptor) of a message outside others."""
        for name, file in self.files.items():
            for index, message in enumerate(file.message_type):
                if f".{file.package}.{message.name}" == full_name:
                    return name, index, message
        raise LookupError(full_name)


def _compile_protos() -> descriptor_pb2.FileDescriptorSet:
    """`proto/` as descriptors, by the compiler of grpcio-tools."""
    proto = ROOT / "proto"
    files = sorted(str(path.relative_to(proto)) for path in proto.rglob("*.proto"))
    well_known = Path(importlib.import_module("grpc_tools").__file__ or "").parent / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "all.binpb"
        code = protoc.main(
            [
                "protoc",
                f"-I{proto}",
                f"-I{well_known}",
                "--include_source_info",
                f"--descriptor_set_out={out}",
                *files,
            ]
        )
        if code:
            raise SystemExit(f"protoc ended with {code}")
        return descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())


def _markdown_table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(_markdown_cell(each) for each in row) + " |" for row in rows]
    return [*lines, ""]


def _markdown_cell(text: str) -> str:
    return text.replace("|", "\\|") or " "


def _page_head(title: str, source: str, *body: str) -> str:
    note = f"*Generated from {source} by `make docs`; not to be edited here.*"
    return "\n".join([f"# {title}", "", note, "", *body]).rstrip() + "\n"


# --- errors ---


def errors(contracts: Contracts) -> str:
    """`errors.md`."""
    name = "drey/common/v1/errors.proto"
    enum = contracts.files[name].enum_type[0]

    def reason_rows() -> Iterator[Sequence[str]]:
        for index, value in enumerate(enum.value):
            if value.number == 0:
                continue
            text = contracts.comment(name, _ENUM, 0, _VALUE, index)
            code, _, rest = text.partition(". ")
            reason = value.name.removeprefix("ERROR_REASON_")
            what, _, metadata = rest.partition("Metadata: ")
            yield f"`{reason}`", f"`{code}`", what.strip(), metadata.rstrip(".")

    return _page_head(
        "Errors",
        f"`proto/{name}`",
        contracts.comment(name, _ENUM, 0),
        "",
        "`google.rpc.ErrorInfo.reason` holds the name as it stands here, without a prefix. In an"
        " item of a bulk call (`drey.common.v1.ItemError`) it is the enum itself. Messages may"
        " change; reasons and metadata do not.",
        "",
        *_markdown_table(["reason", "code", "what it says", "metadata"], reason_rows()),
    )


# --- RPCs ---


def rpc(contracts: Contracts) -> str:
    """`rpc.md`."""
    lines = [
        "The gateway serves all of these, with server reflection. Each call carries"
        " `authorization: Bearer KEY` as metadata, and demands a permission, which"
        " [roles](permissions.md) hold. *stream* stands where a side sends many messages. Fields of"
        " responses are in the files of `proto/`. What is not built answers `UNIMPLEMENTED` with"
        " the reason `NOT_IMPLEMENTED`.",
        "",
    ]
    for name in PUBLIC:
        for index, service in enumerate(contracts.files[name].service):
            lines += _service_section(contracts, name, index, service)
    return _page_head("RPCs", "the comments in `proto/`", *lines)


def _service_section(
    contracts: Contracts, name: str, index: int, service: descriptor_pb2.ServiceDescriptorProto
) -> list[str]:
    full = f"{contracts.files[name].package}.{service.name}"
    lines = [f"## {service.name}", "", f"`{full}` in `proto/{name}`.", ""]
    lines += [contracts.comment(name, _SERVICE, index), ""]
    for at, method in enumerate(service.method):
        permission = method.options.Extensions[annotations_pb2.permission]
        request = ("stream " if method.client_streaming else "") + _short_name(method.input_type)
        response = ("stream " if method.server_streaming else "") + _short_name(method.output_type)
        lines += [f"### {service.name}.{method.name}", ""]
        lines += [f"`{request}` → `{response}`. Permission: `{permission}`.", ""]
        lines += [contracts.comment(name, _SERVICE, index, _METHOD, at), ""]
        lines += _fields_table(contracts, method.input_type)
    return lines


def _fields_table(contracts: Contracts, full_name: str) -> list[str]:
    name, index, message = contracts.message(full_name)

    def field_rows() -> Iterator[Sequence[str]]:
        for at, field in enumerate(message.field):
            text = contracts.comment(name, _MESSAGE, index, _FIELD, at)
            yield f"`{field.name}`", f"`{_type_text(field)}`", text, _limits_text(field)

    return (
        _markdown_table(["field", "type", "what it is", "limits"], field_rows())
        if message.field
        else []
    )


def _short_name(full_name: str) -> str:
    return full_name.rsplit(".", 1)[-1]


def _type_text(field: descriptor_pb2.FieldDescriptorProto) -> str:
    type_name = _short_name(field.type_name) if field.type_name else _TYPES[field.type]
    many = field.label == descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
    return f"repeated {type_name}" if many else type_name


def _limits_text(field: descriptor_pb2.FieldDescriptorProto) -> str:
    if not field.options.HasExtension(annotations_pb2.limits):
        return ""
    limits = field.options.Extensions[annotations_pb2.limits]
    words = []
    for limit, value in limits.ListFields():
        label = limit.name.replace("_", " ")
        words.append(label if value is True else f"{label} {value}")
    return ", ".join(words)


# --- permissions ---

_INTERNAL = ("control.", "directory.")
"""Areas of services that are not for clients."""


def permissions_page(contracts: Contracts) -> str:
    """`permissions.md`."""
    demanded: dict[str, list[str]] = {}
    for name in PUBLIC:
        for service in contracts.files[name].service:
            for method in service.method:
                permission = method.options.Extensions[annotations_pb2.permission]
                demanded.setdefault(permission, []).append(f"`{method.name}`")
    every = sorted(set().union(*(role.permissions for role in ROLES.values())))

    def permission_rows() -> Iterator[Sequence[str]]:
        for permission in every:
            if permission.startswith(_INTERNAL):
                continue
            held = ("yes" if permission in role.permissions else "" for role in ROLES.values())
            by = ", ".join(demanded.get(permission, ())) or "an act within a call"
            yield f"`{permission}`", by, *held

    return _page_head(
        "Who may do what",
        "the table in `libs/core/drey_core/permissions.py`",
        "A key holds one role or more, and may do what any of them may. What no role of it holds"
        " is refused with `PERMISSION_DENIED`, and the message names the roles that do. A method"
        " without a permission is refused to everybody. `drey key roles` shows the roles,"
        " `drey whoami` what you may do.",
        "",
        "## Roles",
        "",
        *_markdown_table(
            ["role", "what it is for"], ((f"`{r.name}`", r.sentence) for r in ROLES.values())
        ),
        "A role for some PVs only is not built yet: a grant with a selector answers"
        " `UNIMPLEMENTED`.",
        "",
        "## Keys from before there were permissions",
        "",
        "Roles stood in a line until then, each with all that those before it could do. The"
        " upgrade gives each key the roles that cover what it could do, and nothing more:",
        "",
        *_markdown_table(
            ["then", "now"],
            iter(
                [
                    ("viewer", "viewer"),
                    ("operator", "operator, editor"),
                    ("restorer", "operator, editor, restorer"),
                    ("admin", "admin"),
                ]
            ),
        ),
        "Golden marks are the keeper's now, and approving is the approver's: where the holder of"
        " an old key did these, make a new key with that role too.",
        "",
        "## Permissions",
        "",
        *_markdown_table(["permission", "demanded by", *ROLES], permission_rows()),
    )


# --- settings ---


def settings() -> str:
    """`settings.md`."""
    lines = [
        "Each setting is an environment variable. A variable that begins with `DREY_` and that"
        " nobody knows stops the start, with the nearest known name in the message. Wrong values,"
        " and combinations that are not safe, stop it too. Settings do not change while a service"
        " runs. An empty variable counts as not set.",
        "",
        "## All services",
        "",
        *_settings_table(CommonSettings, CommonSettings.model_fields),
    ]
    for service in SERVICES:
        settings_class = getattr(
            importlib.import_module(f"drey_{service}.settings"), f"{service.capitalize()}Settings"
        )
        own = {
            n: f
            for n, f in settings_class.model_fields.items()
            if n not in CommonSettings.model_fields
        }
        lines += [f"## {service}", "", *_settings_table(settings_class, own)]
    return _page_head("Settings", "the settings classes", *lines)


def _settings_table(cls: type[CommonSettings], fields: dict[str, FieldInfo]) -> list[str]:
    names = environment_variables(cls)

    def setting_rows() -> Iterator[Sequence[str]]:
        for name, field in fields.items():
            yield (
                f"`{names[name]}`",
                _default_text(field),
                _range_text(field),
                field.description or "",
            )

    return _markdown_table(["variable", "default", "allowed", "what it is"], setting_rows())


def _default_text(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined:
        return "needed"
    if hasattr(value, "get_secret_value"):
        value = value.get_secret_value()
    if value is None or value == "":
        return "not set"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _range_text(field: FieldInfo) -> str:
    words = []
    for constraint in field.metadata:
        for attribute, text in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
            bound = getattr(constraint, attribute, None)
            if bound is not None:
                words.append(f"{text} {bound}")
        pattern = getattr(constraint, "pattern", None)
        if pattern is not None:
            words.append(f"`{pattern}`")
    if field.annotation is bool:
        words.append("`true`, `false`")
    return ", ".join(words)


# --- metrics ---


def metrics() -> str:
    """`metrics.md`."""
    lines = [
        "Every service has them, at `DREY_METRICS_LISTEN` for Prometheus and by OTLP to"
        " `DREY_OTLP_ENDPOINT`; without these nowhere. Those of `drey_runtime` are of all services,"
        " and so are `process_*` and `python_*` at Prometheus, which tell of the process. No label"
        " tells of a PV, a key or a person. What has not happened yet in a process has no series"
        " there.",
        "",
        *_markdown_table(
            ["at Prometheus", "by OTLP", "kind", "of", "what it is"],
            (
                (f"`{m.family}`", f"`{m.name}`", m.kind, m.package, m.description)
                for m in declared_metrics()
            ),
        ),
    ]
    return _page_head("Metrics", "the code", *lines)


# --- the command ---


def cli() -> str:
    """`cli.md`."""
    codes = [
        (ExitCode.OK, "done"),
        (ExitCode.REFUSED, "refused or failed"),
        (ExitCode.USAGE, "wrong usage"),
        (ExitCode.UNAVAILABLE, "the server was not reached, or the key not accepted"),
        (ExitCode.DIFFERENT, "differences were found, or not everything was verified"),
        (ExitCode.INTERRUPTED, "interrupted"),
    ]
    lines = [
        "`drey COMMAND --help` says the same at the terminal, with examples.",
        "",
        "## Exit codes",
        "",
        *_markdown_table(["code", "what it says"], iter([(str(int(c)), t) for c, t in codes])),
        "With `--json` a failure is written to standard output too, in one shape: an object with"
        " `error`, which has `message`, `reason`, `status`, `field`, `remedy`, `metadata` and"
        " `exit_code`, each always there. What was found all the same stands beside it. Of a"
        " stream it is the last line.",
        "",
        "What else a command gives with `--json` stands below: the fields of one object, as"
        " `{total, pvs}`, or the name of a message of the [contracts](rpc.md), in the standard"
        " JSON of Protocol Buffers with the names of the protos. Where it says `a line`, there may"
        " be many.",
        "",
        "## Options of every command",
        "",
        "They stand before or after the command's own. The first that says something counts:"
        " option, environment variable, the state folder or profile that was named,"
        " `./.drey/client.toml`, the default profile of `~/.config/drey/config.toml`. A key goes"
        " only where it belongs: one from a file to the server of that file, one from the"
        " environment to `DREY_SERVER` where that is set, and never to a server that only"
        " `./.drey/client.toml` names. That file counts only where nobody else can have"
        " written it.",
        "",
        *_options_table([p for p in drey.params if _is_common(p)]),
    ]
    lines += ["## Choosing PVs", "", "Commands that say so below take these.", ""]
    choosing = (each for _, command in every_command() if (each := _choosing_options(command)))
    lines += _options_table(next(choosing))
    for words, command in every_command():
        lines += _command_section(words, command)
    return _page_head("The command `drey`", "the commands themselves", *lines)


def _choosing_options(command: Any) -> list[Any]:
    """The parameters by which a command chooses PVs; empty where it doesn't."""
    options = [p for p in command.params if _panel_of(p) == CHOOSING]
    return [p for p in command.params if options and p.name == "choice_names"] + options


def _command_section(words: tuple[str, ...], command: Any) -> list[str]:
    chooses = _choosing_options(command)
    lines = [f"## drey {' '.join(words)}", "", _plain_help(command.help or ""), ""]
    if chooses:
        by_option = chooses[0].param_type_name == "option"
        lines += [f"Chooses PVs: see above{'; names by `--pv`' * by_option}.", ""]
    if getattr(command, "gives", ""):
        lines += [f"With `--json`: {command.gives}.", ""]
    own = [p for p in command.params if not (_is_common(p) or p in chooses or p.name == "help")]
    return lines + (_options_table(own) if own else [])


def _options_table(params: Sequence[Any]) -> list[str]:
    def option_rows() -> Iterator[Sequence[str]]:
        for each in params:
            if each.name in ("install_completion", "show_completion", "help"):
                continue
            yield (
                f"`{_option_names(each)}`",
                _plain_help(getattr(each, "help", "") or ""),
                _default_of(each),
            )

    return _markdown_table(["option", "what it does", "default"], option_rows())


def _option_names(param: Any) -> str:
    metavar = param.metavar or ""
    if param.param_type_name == "argument":
        return metavar or str(param.name).upper()
    names = ", ".join([*param.opts, *param.secondary_opts])
    if not metavar and not param.is_flag:
        kind = param.type
        is_choice, is_path = isinstance(kind, click.Choice), isinstance(kind, click.Path)
        metavar = "|".join(kind.choices) if is_choice else "PATH" if is_path else "TEXT"
    return f"{names} {metavar}".strip()


def _default_of(param: Any) -> str:
    if param.required:
        return "needed"
    value = param.default
    is_said = isinstance(value, str | int | Path) and value is not False and value != ""
    return f"`{value}`" if is_said else ""


def _panel_of(param: Any) -> str:
    return getattr(param, "panel", "")


def _is_common(param: Any) -> bool:
    return _panel_of(param) == CONNECTION


def _plain_help(text: str) -> str:
    """Help without line breaks."""
    return " ".join(text.split())


def with_files(text: str) -> str:
    """A page with the code of its included files as they are now."""

    def include_file(match: re.Match[str]) -> str:
        return match[1] + (ROOT / match[2]).read_text(encoding="utf-8") + "```\n"

    return _INCLUDED.sub(include_file, text)


def pages() -> dict[Path, str]:
    """The text of each page that is generated, or includes files, by its path."""
    contracts = Contracts()
    including = {
        path: with_files(text)
        for path in sorted((ROOT / "docs").rglob("*.md"))
        if "<!-- file: " in (text := path.read_text(encoding="utf-8"))
    }
    return including | {
        REFERENCE / "errors.md": errors(contracts),
        REFERENCE / "rpc.md": rpc(contracts),
        REFERENCE / "permissions.md": permissions_page(contracts),
        REFERENCE / "settings.md": settings(),
        REFERENCE / "metrics.md": metrics(),
        REFERENCE / "cli.md": cli(),
    }


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; say what differs.")
def main(check: bool) -> None:
    """Write the pages, or check them."""
    drifted = []
    for path, text in pages().items():
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        drifted.append(str(path.relative_to(ROOT)))
        if not check:
            path.write_text(text, encoding="utf-8")
    if check and drifted:
        sys.stderr.write(f"drifted: {', '.join(drifted)}; run `make docs`\n")
        raise click.exceptions.Exit(1)


if __name__ == "__main__":
    main()

"""Where the server is and who is asking: arguments, environment, state folder, configuration file.

The first that says something counts: argument, environment variable, the state folder or profile
that was named, `./.drey/client.toml`, the default profile of `~/.config/drey/config.toml`.

A key goes only where it belongs. One from a file goes to the server of that file. One from the
environment goes to DREY_SERVER where that is set, and never to a server that only a file of the
current folder names; such a file counts only where nobody else can have written it.
"""

import math
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drey_client.errors import ClientError

DEFAULT_TIMEOUT_S = 30.0
CLIENT_FILE = "client.toml"
STATE_FOLDER = ".drey"
_KNOWN = frozenset({"server", "key", "key_file", "tls", "ca", "timeout", "plaintext", "web"})
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class ConnectionUnclear(ClientError):
    """Nothing says where the server is or which key is its own, or what says so is not believed.

    `field` is the option at fault, and `remedy` what to write instead, both as the command `drey`
    names its options; those of `ConnectionOptions` and the variables `DREY_*` have the same names.
    """

    def __init__(self, message: str, *, remedy: str, field: str = "") -> None:
        super().__init__(message, reason="USAGE", field=field)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """What the caller says of the connection itself. None: not said.

    `profile`: of the configuration file, `state`: folder of a `drey up`, `timeout`: such as "5s".
    """

    server: str | None = None
    timeout: str | None = None
    key: str | None = None
    key_file: str | None = None
    profile: str | None = None
    state: str | None = None
    tls: bool | None = None
    ca: str | None = None
    plaintext: bool | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach the server. `timeout_s`: deadline of a call that says nothing else."""

    server: str
    key: str = field(default="", repr=False)
    tls: bool = False
    ca: Path | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S

    @property
    def is_loopback(self) -> bool:
        """Whether the server is on this host."""
        host = self.server.rsplit(":", 1)[0].strip("[]")
        return host in _LOOPBACK or host.startswith(("127.", "unix"))


def find_connection(
    options: ConnectionOptions | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Connection:
    """Find out how to reach the server. Reads files; raises `ConnectionUnclear` if nothing says.

    `environ` and `folder` (the working folder) are arguments for tests.
    """
    options = options or ConnectionOptions()
    env = os.environ if environ is None else environ
    written = _written_down(options, env, folder or Path.cwd())
    server = options.server or env.get("DREY_SERVER") or str(written.values.get("server", ""))
    if not server:
        raise ConnectionUnclear(
            "no server was named",
            remedy="say --server HOST:PORT, set DREY_SERVER, or start one here with `drey up`",
        )
    if server != written.values.get("server"):
        # What was written down belongs to another server: its key must not travel to this one.
        written = _Written({})
    values = written.values
    connection = Connection(
        server=server,
        key=_resolve_key(options, env, written, server),
        tls=_resolve_tls(options, env, values),
        ca=_resolve_ca(options, env, values),
        timeout_s=_resolve_timeout(options, env, values),
    )
    plaintext = bool(options.plaintext or env.get("DREY_PLAINTEXT") or values.get("plaintext"))
    if connection.key and not (connection.tls or connection.is_loopback or plaintext):
        raise ConnectionUnclear(
            f"the key would travel to {server} in clear text",
            remedy="say --tls (and --ca FILE), or --plaintext if the way there is safe",
        )
    return connection


@dataclass(frozen=True, slots=True)
class _Written:
    """What a file says. `here`: it was found in the current folder, nobody named it."""

    values: dict[str, Any]
    here: bool = False


def _written_down(options: ConnectionOptions, env: Mapping[str, str], folder: Path) -> _Written:
    state = options.state or (None if options.profile else env.get("DREY_STATE"))
    if state:
        return _Written(_client_file(Path(state).expanduser() / CLIENT_FILE))
    profile = options.profile or env.get("DREY_PROFILE")
    path = folder / STATE_FOLDER / CLIENT_FILE
    if not profile and path.is_file():
        named = options.server or env.get("DREY_SERVER")
        distrust = _why_not_own(path)
        if distrust is None:
            return _Written(_client_file(path), here=not named)
        if not named:
            raise distrust
    return _Written(_load_profile(profile, env))


def _why_not_own(path: Path) -> ConnectionUnclear | None:
    """Why a file of the current folder is not believed: somebody else can have written it."""
    for each in (path.parent, path):
        status = each.stat()
        if status.st_uid != os.geteuid():
            return ConnectionUnclear(
                f"{each} belongs to another user, so it is not believed",
                field="--state",
                remedy=f"if you trust it, name it: --state {path.parent}; or say --server",
            )
        if status.st_mode & 0o022:
            return ConnectionUnclear(
                f"{each} can be written by other users, so it is not believed",
                field="--state",
                remedy=f"chmod go-w {path.parent} {path}",
            )
    return None


def config_path(env: Mapping[str, str]) -> Path:
    base = env.get("XDG_CONFIG_HOME")
    root = Path(base) if base else Path(env.get("HOME") or Path.home()) / ".config"
    return root / "drey" / "config.toml"


def _load_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConnectionUnclear(
            f"cannot read {path}: {error}",
            remedy="correct the file, or name the server with --server",
        ) from error


def _client_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConnectionUnclear(
            f"{path} does not exist", field="--state", remedy="start the stack: drey up"
        )
    return _checked_values(_load_file(path), path)


def _load_profile(name: str | None, env: Mapping[str, str]) -> dict[str, Any]:
    path = config_path(env)
    if not path.is_file():
        if name:
            raise ConnectionUnclear(
                f"profile {name!r}: {path} does not exist",
                field="--profile",
                remedy=f"write it, with [profiles.{name}] and a server in it",
            )
        return {}
    document = _load_file(path)
    profiles = document.get("profiles", {})
    name = name or document.get("default")
    if name is None:
        return {}
    if not isinstance(profiles, dict) or name not in profiles:
        names = ", ".join(sorted(profiles)) if isinstance(profiles, dict) else ""
        raise ConnectionUnclear(
            f"{path} has no profile {name!r}",
            field="--profile",
            remedy=f"it has: {names}" if names else f"write [profiles.{name}] into it",
        )
    return _checked_values(profiles[name], path)


def _checked_values(values: dict[str, Any], path: Path) -> dict[str, Any]:
    unknown = sorted(set(values) - _KNOWN)
    if unknown:
        raise ConnectionUnclear(
            f"{path}: unknown setting {unknown[0]!r}", remedy=f"known: {', '.join(sorted(_KNOWN))}"
        )
    # Paths in a file are meant from where the file lies.
    for name in ("key_file", "ca"):
        if name in values:
            values[name] = str(path.parent / Path(str(values[name])).expanduser())
    return values


def _resolve_key(
    options: ConnectionOptions, env: Mapping[str, str], written: _Written, server: str
) -> str:
    if options.key:
        return options.key
    if options.key_file:
        return _read_key(options.key_file)
    if env.get("DREY_KEY") or env.get("DREY_KEY_FILE"):
        home = env.get("DREY_SERVER")
        if written.here or (home and home != server):
            raise ConnectionUnclear(
                f"the key of the environment belongs to {home or 'a server that you name'} and is"
                f" not sent to {server}",
                field="--key",
                remedy=f"set DREY_SERVER={server}, say --key or --key-file, or unset DREY_KEY",
            )
        return env.get("DREY_KEY") or _read_key(env["DREY_KEY_FILE"])
    if written.values.get("key_file"):
        return _read_key(str(written.values["key_file"]))
    return str(written.values.get("key", ""))


def _read_key(path: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConnectionUnclear(
            f"cannot read the key file {path}: {error}",
            field="--key-file",
            remedy="name a file that you may read",
        ) from error


def _resolve_tls(
    options: ConnectionOptions, env: Mapping[str, str], values: Mapping[str, Any]
) -> bool:
    if options.tls is not None:
        return options.tls
    if env.get("DREY_TLS"):
        return env["DREY_TLS"].lower() not in {"0", "false", "no"}
    return bool(values.get("tls") or _resolve_ca(options, env, values))


def _resolve_ca(
    options: ConnectionOptions, env: Mapping[str, str], values: Mapping[str, Any]
) -> Path | None:
    path = options.ca or env.get("DREY_CA") or values.get("ca")
    return Path(str(path)).expanduser() if path else None


def _resolve_timeout(
    options: ConnectionOptions, env: Mapping[str, str], values: Mapping[str, Any]
) -> float:
    text = options.timeout or env.get("DREY_TIMEOUT") or values.get("timeout")
    if text is None:
        return DEFAULT_TIMEOUT_S
    try:
        seconds = parse_span(str(text))
    except ValueError as error:
        message, remedy = error.args
        raise ConnectionUnclear(
            f"--timeout: {message}", field="--timeout", remedy=remedy
        ) from error
    if seconds <= 0:
        raise ConnectionUnclear(
            "--timeout: must be more than 0", field="--timeout", remedy="write it as 500ms or 5s"
        )
    return seconds


_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SPAN = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*(ms|s|m|h|d|)")


def parse_span(text: str) -> float:
    """Seconds of a duration. Raises ValueError, with what is wrong and what would be right."""
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a duration", "write it as 500ms, 2s, 5m, 1h or 30d")
    seconds = float(match[1]) * _UNITS[match[2]]
    if not math.isfinite(seconds):
        raise ValueError(f"{text!r} is too long", "write it as 30d")
    return seconds

"""Where the server is and who is asking: options, environment, state folder, configuration file.

The first that says something counts: option, environment variable, the state folder or profile
that was named, `./.drey/client.toml`, the default profile of `~/.config/drey/config.toml`.
A key is only ever sent to the server that it was written down for.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drey_cli.durations import parse_seconds
from drey_cli.errors import usage_error

DEFAULT_TIMEOUT_S = 30.0
CLIENT_FILE = "client.toml"
STATE_FOLDER = ".drey"
_KNOWN = frozenset({"server", "key", "key_file", "tls", "ca", "timeout", "plaintext"})
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class CommonOptions:
    """What was said on the command line, at the root or at the command. None: not said."""

    server: str | None = None
    key: str | None = None
    key_file: str | None = None
    profile: str | None = None
    state: str | None = None
    tls: bool | None = None
    ca: str | None = None
    plaintext: bool | None = None
    timeout: str | None = None
    json: bool | None = None
    utc: bool | None = None
    color: bool | None = None

    def over(self, other: CommonOptions) -> CommonOptions:
        """These options, and those of `other` where these say nothing."""
        return CommonOptions(
            **{
                name: mine if (mine := getattr(self, name)) is not None else getattr(other, name)
                for name in self.__slots__
            }
        )


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach the server. `timeout_s`: deadline of a call that says nothing else."""

    server: str
    key: str = ""
    tls: bool = False
    ca: Path | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S

    @property
    def is_loopback(self) -> bool:
        """Whether the server is on this host."""
        host = self.server.rsplit(":", 1)[0].strip("[]")
        return host in _LOOPBACK or host.startswith(("127.", "unix"))


def resolve(
    options: CommonOptions, *, environ: Mapping[str, str] | None = None, folder: Path | None = None
) -> Connection:
    """Find out how to reach the server. Reads files; raises `CliError` (usage) if nothing says.

    `environ` and `folder` (the working folder) are arguments for tests.
    """
    env = os.environ if environ is None else environ
    found = _written_down(options, env, folder or Path.cwd())
    server = options.server or env.get("DREY_SERVER") or str(found.get("server", ""))
    if not server:
        raise usage_error(
            "no server was named",
            remedy="say --server HOST:PORT, set DREY_SERVER, or start one here with `drey up`",
        )
    if server != found.get("server"):
        # What was written down belongs to another server: its key must not travel to this one.
        found = {}
    connection = Connection(
        server=server,
        key=_key(options, env, found),
        tls=_tls(options, env, found),
        ca=_ca(options, env, found),
        timeout_s=_timeout(options, env, found),
    )
    plaintext = bool(options.plaintext or env.get("DREY_PLAINTEXT") or found.get("plaintext"))
    if connection.key and not (connection.tls or connection.is_loopback or plaintext):
        raise usage_error(
            f"the key would travel to {server} in clear text",
            remedy="say --tls (and --ca FILE), or --plaintext if the way there is safe",
        )
    return connection


def _written_down(options: CommonOptions, env: Mapping[str, str], folder: Path) -> dict[str, Any]:
    state = options.state or (None if options.profile else env.get("DREY_STATE"))
    if state:
        return _client_file(Path(state).expanduser() / CLIENT_FILE, must_exist=True)
    profile = options.profile or env.get("DREY_PROFILE")
    if not profile:
        here = _client_file(folder / STATE_FOLDER / CLIENT_FILE, must_exist=False)
        if here:
            return here
    return _profile(profile, env)


def config_path(env: Mapping[str, str]) -> Path:
    """Path of the configuration file."""
    base = env.get("XDG_CONFIG_HOME")
    root = Path(base) if base else Path(env.get("HOME") or Path.home()) / ".config"
    return root / "drey" / "config.toml"


def _load(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise usage_error(f"cannot read {path}: {error}") from error


def _client_file(path: Path, *, must_exist: bool) -> dict[str, Any]:
    if not path.is_file():
        if must_exist:
            raise usage_error(
                f"{path} does not exist", field="--state", remedy="start the stack: drey up"
            )
        return {}
    return _checked(_load(path), path)


def _profile(name: str | None, env: Mapping[str, str]) -> dict[str, Any]:
    path = config_path(env)
    if not path.is_file():
        if name:
            raise usage_error(f"profile {name!r}: {path} does not exist", field="--profile")
        return {}
    document = _load(path)
    profiles = document.get("profiles", {})
    name = name or document.get("default")
    if name is None:
        return {}
    if not isinstance(profiles, dict) or name not in profiles:
        known = ", ".join(sorted(profiles)) if isinstance(profiles, dict) else ""
        raise usage_error(
            f"{path} has no profile {name!r}",
            field="--profile",
            remedy=f"it has: {known}" if known else f"write [profiles.{name}] into it",
        )
    return _checked(profiles[name], path)


def _checked(values: dict[str, Any], path: Path) -> dict[str, Any]:
    unknown = sorted(set(values) - _KNOWN)
    if unknown:
        raise usage_error(
            f"{path}: unknown setting {unknown[0]!r}", remedy=f"known: {', '.join(sorted(_KNOWN))}"
        )
    # Paths in a file are meant from where the file lies.
    for name in ("key_file", "ca"):
        if name in values:
            values[name] = str(path.parent / Path(str(values[name])).expanduser())
    return values


def _key(options: CommonOptions, env: Mapping[str, str], found: Mapping[str, Any]) -> str:
    if options.key:
        return options.key
    if options.key_file:
        return _read_key(options.key_file)
    if env.get("DREY_KEY"):
        return env["DREY_KEY"]
    if env.get("DREY_KEY_FILE"):
        return _read_key(env["DREY_KEY_FILE"])
    if found.get("key_file"):
        return _read_key(str(found["key_file"]))
    return str(found.get("key", ""))


def _read_key(path: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise usage_error(
            f"cannot read the key file {path}: {error}", field="--key-file"
        ) from error


def _tls(options: CommonOptions, env: Mapping[str, str], found: Mapping[str, Any]) -> bool:
    if options.tls is not None:
        return options.tls
    if env.get("DREY_TLS"):
        return env["DREY_TLS"].lower() not in {"0", "false", "no"}
    return bool(found.get("tls") or _ca(options, env, found))


def _ca(options: CommonOptions, env: Mapping[str, str], found: Mapping[str, Any]) -> Path | None:
    path = options.ca or env.get("DREY_CA") or found.get("ca")
    return Path(str(path)).expanduser() if path else None


def _timeout(options: CommonOptions, env: Mapping[str, str], found: Mapping[str, Any]) -> float:
    text = options.timeout or env.get("DREY_TIMEOUT") or found.get("timeout")
    if text is None:
        return DEFAULT_TIMEOUT_S
    seconds = parse_seconds(str(text), option="--timeout")
    if seconds <= 0:
        raise usage_error("--timeout: must be more than 0", field="--timeout")
    return seconds

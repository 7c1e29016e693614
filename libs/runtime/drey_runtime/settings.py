"""Settings of a service, from the environment. Frozen; unknown keys are refused.

Every service reads the shared settings (`DREY_POSTGRES_URL`) and its own (`DREY_MONITOR_TICK`): a
service's `Settings(CommonSettings)` sets `service: ClassVar[str] = "monitor"`, and the fields
that it adds carry that name in their variables.
A variable that begins with `DREY_` and that nobody knows is a mistake and stops the start, with
the nearest known name in the message.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
from pathlib import Path
from typing import ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

S = TypeVar("S", bound="CommonSettings")

SERVICES = ("snapshot", "monitor", "restore", "gateway")
CLIENT_VARIABLES = frozenset(
    {
        "DREY_SERVER",
        "DREY_KEY",
        "DREY_PLAINTEXT",
        "DREY_KEY_FILE",
        "DREY_STATE",
        "DREY_POSTGRES_OWNER_URL",
        "DREY_PROFILE",
        "DREY_CA",
        "DREY_TLS",
        "DREY_TIMEOUT",
        "DREY_CONFIG",
        "DREY_JSON",
        "DREY_UTC",
    }
)
"""Variables of the `drey` command; a service that inherits them does not mind."""


class SettingsError(ValueError):
    """The settings refuse to start; the text says what to write instead."""


class CommonSettings(BaseModel):
    """What all services share. Each is the environment variable `DREY_<NAME>`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    service: ClassVar[str] = ""

    postgres_url: SecretStr = Field(
        SecretStr("postgresql://drey_app@127.0.0.1:5432/drey"),
        description="Where Postgres is, with user (the application's role, which owns nothing) and"
        " password. TLS by `sslmode`, `sslrootcert`, `sslcert` and `sslkey` in it; `?host=FOLDER`"
        " for a Unix socket.",
    )
    nats_url: str = Field(
        "nats://127.0.0.1:4222",
        description="Where NATS is; several by comma. `tls://` insists on TLS.",
    )
    nats_ca: Path | None = Field(
        None, description="Authority (PEM) by which NATS is checked; insists on TLS."
    )
    nats_cert: Path | None = Field(None, description="Certificate chain (PEM) shown to NATS.")
    nats_key: Path | None = Field(None, description="Private key (PEM) of that certificate.")
    nats_credentials: Path | None = Field(
        None, description="File of the NATS user's credentials (`.creds`: JWT and seed)."
    )
    nats_nkey: Path | None = Field(None, description="File of the NATS user's NKey seed.")
    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description="Where Redis or Valkey is. `rediss://` for TLS, with `ssl_ca_certs`,"
        " `ssl_certfile` and `ssl_keyfile` in its query; `unix:///PATH` for a Unix socket.",
    )
    namespace: str = Field(
        "drey",
        pattern=r"^[a-z][a-z0-9_]{0,30}$",
        description="Prefix of NATS subjects, streams and Redis keys; one a site.",
    )
    log_level: str = Field(
        "INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least level logged."
    )
    log_format: str = Field(
        "json", pattern="^(json|text)$", description="`json`, or `text` for people."
    )
    otlp_endpoint: str = Field(
        "", description="Where traces and metrics go by OTLP over gRPC. Empty: nowhere."
    )
    shards: int = Field(
        1, ge=1, le=1024, description="Number of shards of the site; the same everywhere."
    )
    trusted_keys: Path | None = Field(
        None, description="File of the public keys by which the services believe each other."
    )
    signing_key: Path | None = Field(
        None, description="File of this service's private key (Ed25519, PEM)."
    )
    snapshot_target: str = Field("127.0.0.1:7101", description="Address of the snapshot service.")
    monitor_target: str = Field("127.0.0.1:7102", description="Address of the monitor service.")
    restore_target: str = Field("127.0.0.1:7103", description="Address of the restore service.")
    gateway_target: str = Field("127.0.0.1:7100", description="Address of the gateway.")
    allow_insecure_listen: bool = Field(
        False, description="Listen beyond loopback without TLS; only behind something that has it."
    )
    max_calls: int = Field(
        4000, ge=10, le=100_000, description="Most calls at a time; further ones are refused."
    )
    probe_listen: str = Field(
        "",
        description="Address at which `grpc.health.v1` alone is served, without TLS and keys: for"
        " the kubelet, whose probes know neither. Empty: only where everything is served.",
    )
    metrics_listen: str = Field(
        "",
        pattern=r"^(.+:\d{1,5})?$",
        description="Address (`HOST:PORT`) at which Prometheus fetches metrics over HTTP, at"
        " `/metrics`; over HTTPS where `DREY_TLS_CERT` is set, and from those alone who show a"
        " certificate where `DREY_TLS_CLIENT_CA` is. Empty: nowhere.",
    )
    max_probes: int = Field(
        256,
        ge=4,
        le=10_000,
        description="Most health calls and watches at a time, which need no key.",
    )
    caller_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Largest part of the calls, watches, health calls, waiting plans, turns at"
        " reading and connections to Postgres that one key, or one address without a key, may have,"
        " and of the open restores that one person may.",
    )
    calls_per_second: float = Field(
        1000.0, gt=0, description="Calls a second of one key, twice as many at once after a pause."
    )
    refusals_per_second: float = Field(
        50.0,
        gt=0,
        description="Calls a second from one address whose key is not known; ten times as many at"
        " once after a pause.",
    )
    first_message: float = Field(
        10.0,
        gt=0,
        le=600,
        description="Seconds within which the first message of a call has to come.",
    )
    idle_connection: float = Field(
        300.0, ge=1, description="Seconds after which a connection without a call is closed."
    )
    tls_cert: Path | None = Field(None, description="Certificate chain (PEM) that servers show.")
    tls_key: Path | None = Field(None, description="Private key (PEM) of that certificate.")
    tls_ca: Path | None = Field(
        None, description="Authority (PEM) by which internal clients check the services."
    )
    tls_client_ca: Path | None = Field(
        None,
        description="Authority (PEM) of the parts. Set: every listener but the gateway's refuses"
        " whoever shows no certificate of it.",
    )
    tls_client_cert: Path | None = Field(
        None,
        description="Certificate chain (PEM) that this part shows to the others. Not set: that of"
        " `DREY_TLS_CERT`.",
    )
    tls_client_key: Path | None = Field(None, description="Private key (PEM) of that certificate.")

    @model_validator(mode="after")
    def _secrets_whole(self) -> Self:
        for first, other in (
            ("tls_cert", "tls_key"),
            ("tls_client_cert", "tls_client_key"),
            ("nats_cert", "nats_key"),
        ):
            if (getattr(self, first) is None) != (getattr(self, other) is None):
                names = f"DREY_{first.upper()} and DREY_{other.upper()}"
                raise ValueError(f"{names} go together: set both or neither")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError(
                "DREY_TLS_CLIENT_CA asks callers for a certificate, which needs TLS: set"
                " DREY_TLS_CERT and DREY_TLS_KEY too"
            )
        if self.tls_client_cert is not None and self.tls_ca is None:
            raise ValueError(
                "DREY_TLS_CLIENT_CERT is shown by TLS only: set DREY_TLS_CA, the authority of the"
                " other parts, too"
            )
        if self.nats_cert is not None and self.nats_ca is None:
            raise ValueError("DREY_NATS_CERT is shown by TLS only: set DREY_NATS_CA too")
        if self.nats_credentials is not None and self.nats_nkey is not None:
            raise ValueError(
                "DREY_NATS_CREDENTIALS and DREY_NATS_NKEY exclude each other: set one of them"
            )
        return self


class ChannelAccessSettings(CommonSettings):
    """Shared settings and those of a service that speaks Channel Access."""

    channel_access: str = Field(
        "auto",
        pattern="^(auto|aioca|native)$",
        description="Channel Access implementation. `auto`: the native one where it was built.",
    )
    ca_address_list: str | None = Field(
        None,
        description="Where channels are searched, instead of `EPICS_CA_ADDR_LIST`: addresses or"
        " `host:port`, by blanks.",
    )
    ca_auto_address_list: bool | None = Field(
        None,
        description="Search by broadcast too, instead of `EPICS_CA_AUTO_ADDR_LIST`.",
    )
    ca_name_servers: str | None = Field(
        None,
        description="Servers asked for names over TCP, instead of `EPICS_CA_NAME_SERVERS`.",
    )

    def ca_environment(self) -> dict[str, str]:
        """The `EPICS_CA_*` variables that these settings stand for; the rest is the process's."""
        automatic = self.ca_auto_address_list
        given = {
            "EPICS_CA_ADDR_LIST": self.ca_address_list,
            "EPICS_CA_AUTO_ADDR_LIST": None if automatic is None else "YES" if automatic else "NO",
            "EPICS_CA_NAME_SERVERS": self.ca_name_servers,
        }
        return {name: value for name, value in given.items() if value is not None}


def is_unix(address: str) -> bool:
    """Whether an address is a Unix socket: spoken to in plain text, guarded by its folder."""
    return address.startswith("unix:")


def require_safe_listen(settings: CommonSettings, listen: str, variable: str) -> None:
    """Raise `SettingsError` when `listen` would offer plain text beyond loopback."""
    if is_unix(listen) or settings.tls_cert is not None or settings.allow_insecure_listen:
        return
    host = listen.rsplit(":", 1)[0].strip("[]")
    if host == "localhost":
        return
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise SettingsError(
            f"{variable}={listen} would be open to the network without TLS. Set DREY_TLS_CERT and "
            f"DREY_TLS_KEY, or listen on 127.0.0.1, or set DREY_ALLOW_INSECURE_LISTEN=true if "
            f"something in front of it encrypts."
        )


def environment_variables(cls: type[CommonSettings]) -> dict[str, str]:
    """Environment variable of each field of `cls`, by field name."""
    own = f"DREY_{cls.service.upper()}_" if cls.service else "DREY_"
    return {
        name: ("DREY_" if name in CommonSettings.model_fields else own) + name.upper()
        for name in cls.model_fields
    }


def load_settings(cls: type[S]) -> S:
    """Read `cls` from the environment. Raises `SettingsError` naming what is wrong."""
    names = environment_variables(cls)
    _refuse_unknown(cls, frozenset(names.values()))
    values = {field: os.environ[v] for field, v in names.items() if os.environ.get(v)}
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        lines = [
            f"{names.get(str(e['loc'][0]), e['loc'][0]) if e['loc'] else 'settings'}: {e['msg']}"
            for e in error.errors()
        ]
        raise SettingsError("; ".join(lines)) from error


def _refuse_unknown(cls: type[CommonSettings], known_names: frozenset[str]) -> None:
    others = tuple(f"DREY_{s.upper()}_" for s in SERVICES if s != cls.service)
    shared = frozenset(f"DREY_{name.upper()}" for name in CommonSettings.model_fields)
    for variable in os.environ:
        if not variable.startswith("DREY_") or variable in CLIENT_VARIABLES | known_names | shared:
            continue
        if variable.startswith(others):
            continue
        near = difflib.get_close_matches(variable, sorted(known_names), 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise SettingsError(f"{variable} is no setting{hint}")

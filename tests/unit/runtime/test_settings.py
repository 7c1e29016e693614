from pathlib import Path
from typing import ClassVar

import pytest

from drey_runtime.settings import CommonSettings, SettingsError, load_settings, require_safe_listen


class MonitorSettings(CommonSettings):
    service: ClassVar[str] = "monitor"
    tick: float = 0.1


@pytest.fixture(autouse=True)
def no_drey_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("DREY_"):
            monkeypatch.delenv(name)


def test_own_and_shared_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREY_MONITOR_TICK", "0.5")
    monkeypatch.setenv("DREY_SHARDS", "4")
    settings = load_settings(MonitorSettings)
    assert (settings.tick, settings.shards) == (0.5, 4)


def test_an_unknown_variable_stops_the_start_and_names_the_nearest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DREY_MONITOR_TICKS", "0.5")
    with pytest.raises(SettingsError, match="did you mean DREY_MONITOR_TICK"):
        load_settings(MonitorSettings)


def test_variables_of_other_services_and_of_the_command_are_let_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DREY_GATEWAY_LISTEN", "x")
    monkeypatch.setenv("DREY_SERVER", "x")
    assert load_settings(MonitorSettings) == MonitorSettings()


def test_a_wrong_value_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREY_SHARDS", "many")
    with pytest.raises(SettingsError, match="DREY_SHARDS"):
        load_settings(MonitorSettings)


def test_a_certificate_without_its_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREY_TLS_CERT", "/x.pem")
    with pytest.raises(SettingsError, match="DREY_TLS_KEY"):
        load_settings(MonitorSettings)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"TLS_CLIENT_CERT": "/x"}, "DREY_TLS_CLIENT_KEY"),
        ({"TLS_CLIENT_CERT": "/x", "TLS_CLIENT_KEY": "/x"}, "DREY_TLS_CA"),
        ({"TLS_CLIENT_CA": "/x"}, "DREY_TLS_CERT"),
        ({"NATS_CERT": "/x"}, "DREY_NATS_KEY"),
        ({"NATS_CERT": "/x", "NATS_KEY": "/x"}, "DREY_NATS_CA"),
        ({"NATS_CREDENTIALS": "/x", "NATS_NKEY": "/x"}, "exclude"),
    ],
)
def test_half_of_a_secret_is_refused(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], named: str
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(f"DREY_{name}", value)
    with pytest.raises(SettingsError, match=named):
        load_settings(MonitorSettings)


def test_secrets_are_not_shown() -> None:
    assert "postgres@" not in repr(load_settings(MonitorSettings))


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "[::1]:1", "localhost:1", "unix:/x"])
def test_loopback_is_safe_without_tls(listen: str) -> None:
    require_safe_listen(CommonSettings(), listen, "DREY_X_LISTEN")


@pytest.mark.parametrize("listen", ["0.0.0.0:1", "[::]:1", "example.org:1", "10.0.0.1:1"])
def test_elsewhere_is_not(listen: str) -> None:
    with pytest.raises(SettingsError, match="DREY_TLS_CERT"):
        require_safe_listen(CommonSettings(), listen, "DREY_X_LISTEN")
    require_safe_listen(CommonSettings(allow_insecure_listen=True), listen, "DREY_X_LISTEN")
    tls = CommonSettings(tls_cert=Path("a"), tls_key=Path("b"))
    require_safe_listen(tls, listen, "DREY_X_LISTEN")

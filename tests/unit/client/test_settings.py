"""Where a program finds its server and key; the rules themselves are tried with the command."""

from __future__ import annotations

from pathlib import Path

import pytest

from drey_client import (
    BlockingClient,
    Client,
    ClientError,
    ConnectionOptions,
    ConnectionUnclear,
    find_connection,
)


@pytest.fixture
def config(tmp_path: Path) -> dict[str, str]:
    folder = tmp_path / "drey"
    folder.mkdir()
    (folder / "config.toml").write_text(
        'default = "ring"\n[profiles.ring]\nserver = "127.0.0.1:7"\nkey_file = "ring.key"\n'
        'timeout = "2s"\n[profiles.slow]\nserver = "127.0.0.1:8"\ntimeout = "soon"\n'
    )
    (folder / "ring.key").write_text("secret\n")
    return {"XDG_CONFIG_HOME": str(tmp_path)}


def test_a_client_is_made_of_what_is_written_down(tmp_path: Path, config: dict[str, str]) -> None:
    connection = find_connection(environ=config, folder=tmp_path)
    assert (connection.server, connection.key) == ("127.0.0.1:7", "secret")
    assert "secret" not in repr(connection)
    client = Client.of(connection)
    assert (client.server, client.timeout_s) == ("127.0.0.1:7", 2.0)
    assert isinstance(BlockingClient.of(connection), BlockingClient)


def test_what_is_not_clear_is_an_error_of_the_client(
    tmp_path: Path, config: dict[str, str]
) -> None:
    with pytest.raises(ClientError, match="no server was named"):
        find_connection(environ={"HOME": str(tmp_path)}, folder=tmp_path)
    slow = ConnectionOptions(profile="slow")
    with pytest.raises(ConnectionUnclear, match="'soon' is not a duration") as caught:
        find_connection(slow, environ=config, folder=tmp_path)
    assert (caught.value.reason, caught.value.field) == ("USAGE", "--timeout")
    assert caught.value.remedy == "write it as 500ms, 2s, 5m, 1h or 30d"
    other = ConnectionOptions(profile="ring", server="127.0.0.1:9")
    assert find_connection(other, environ=config, folder=tmp_path).key == ""

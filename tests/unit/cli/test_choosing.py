"""Choosing PVs, naming things, finding the server."""

import os
from pathlib import Path

import pytest

from drey_cli.errors import CliError
from drey_cli.naming import match_id
from drey_cli.options import parse_seconds, to_duration
from drey_cli.selection import Choice
from drey_cli.session import CommonOptions, resolve_connection

IDS = [("0192aaaa-x", "golden"), ("0192bbbb-y", "night"), ("0193cccc-z", "night")]


def test_patterns_among_names_are_globs():
    selector = Choice(names=["A", "B*", "C?"], globs=["D[12]"]).required_selector()
    assert list(selector.names) == ["A"]
    assert list(selector.globs) == ["B*", "C?", "D[12]"]
    assert not selector.all


def test_nothing_chosen_is_never_everything():
    with pytest.raises(CliError) as caught:
        Choice().required_selector()
    assert caught.value.code == 2
    with pytest.raises(CliError):
        Choice(except_names=["A"]).required_selector()
    assert Choice().optional_selector() is None


def test_an_exception_alone_is_taken_from_all_where_a_choice_is_optional():
    selector = Choice(except_devices=["MOTR", "BPM"]).optional_selector()
    assert selector is not None and selector.all
    assert list(selector.excluding.devices) == ["MOTR", "BPM"]


def test_exceptions_that_would_narrow_each_other_are_refused():
    with pytest.raises(CliError, match="several kinds"):
        Choice(all=True, except_names=["A"], except_devices=["B"]).build_selector()
    with pytest.raises(CliError, match="several kinds"):
        Choice(all=True, except_tags=["G=a", "H=b"]).build_selector()


def test_all_excludes_names_not_devices():
    assert Choice(all=True, devices=["D"]).required_selector().all
    with pytest.raises(CliError):
        Choice(all=True, names=["A"]).required_selector()


@pytest.mark.parametrize("text", ["", "=a", "G=", "G=,"])
def test_malformed_tags_are_usage_errors(text):
    with pytest.raises(CliError) as caught:
        Choice(tags=[text]).required_selector()
    assert caught.value.code == 2


def test_names_from_a_file(tmp_path):
    path = tmp_path / "names"
    path.write_text("# mine\n A \n\nB*\n")
    selector = Choice(names_from=str(path)).required_selector()
    assert (list(selector.names), list(selector.globs)) == (["A"], ["B*"])
    path.write_text("# none\n")
    with pytest.raises(CliError):
        Choice(names_from=str(path)).required_selector()


def test_ids_by_title_and_by_unique_part():
    assert match_id("golden", IDS, what="snapshot") == "0192aaaa-x"
    with pytest.raises(CliError) as caught:
        match_id("night", IDS, what="snapshot")
    assert caught.value.reason == "AMBIGUOUS"
    hexes = [("0192aaaa", ""), ("0192bbbb", "")]
    assert match_id("0192a", hexes, what="job") == "0192aaaa"
    assert match_id("bbbb", hexes, what="job") == "0192bbbb"
    with pytest.raises(CliError, match="2 jobs"):
        match_id("0192", hexes, what="job")
    with pytest.raises(CliError, match="no job"):
        match_id("ffff", hexes, what="job")


def test_durations():
    assert [parse_seconds(t, option="-") for t in ("500ms", "2", "1.5m", "1d")] == [
        0.5,
        2.0,
        90.0,
        86400.0,
    ]
    for text in ("", "-1s", "nan", "1y"):
        with pytest.raises(CliError):
            parse_seconds(text, option="--x")
    assert (to_duration(1.5).seconds, to_duration(1.5).nanos) == (1, 500_000_000)
    assert to_duration(0.9999999999).ToMilliseconds() in (999, 1000)


def test_server_is_found_in_order(tmp_path):
    env = {"HOME": str(tmp_path)}
    with pytest.raises(CliError) as caught:
        resolve_connection(CommonOptions(), environ=env, folder=tmp_path)
    assert caught.value.code == 2
    _write_here(tmp_path)
    found = resolve_connection(CommonOptions(), environ=env, folder=tmp_path)
    assert (found.server, found.key) == ("127.0.0.1:1", "here")
    assert resolve_connection(CommonOptions(key="opt"), environ=env, folder=tmp_path).key == "opt"
    env |= {"DREY_KEY": "env", "DREY_SERVER": "127.0.0.1:2"}
    found = resolve_connection(CommonOptions(), environ=env, folder=tmp_path)
    assert (found.server, found.key) == ("127.0.0.1:2", "env")


def _write_here(folder):
    (folder / ".drey").mkdir(mode=0o700)
    file = folder / ".drey" / "client.toml"
    file.touch(mode=0o600)
    file.write_text('server = "127.0.0.1:1"\nkey = "here"\n')
    return file


@pytest.fixture
def found_here(tmp_path):
    return _write_here(tmp_path)


@pytest.mark.parametrize("name", ["DREY_KEY", "DREY_KEY_FILE"])
def test_a_key_of_the_environment_goes_to_no_server_that_a_file_here_names(
    tmp_path, found_here, name
):
    (tmp_path / "secret").write_text("env\n")
    env = {"HOME": str(tmp_path), name: str(tmp_path / "secret")}
    with pytest.raises(CliError, match="belongs to") as caught:
        resolve_connection(CommonOptions(), environ=env, folder=tmp_path)
    assert "DREY_SERVER=127.0.0.1:1" in caught.value.remedy
    # who names the server means it
    named = CommonOptions(server="127.0.0.1:1")
    assert resolve_connection(named, environ=env, folder=tmp_path).key
    state = CommonOptions(state=str(found_here.parent))
    assert resolve_connection(state, environ=env, folder=tmp_path).key


def test_a_key_of_the_environment_belongs_to_the_server_of_the_environment(tmp_path):
    env = {"DREY_KEY": "env", "DREY_SERVER": "127.0.0.1:1"}
    with pytest.raises(CliError, match=r"belongs to 127\.0\.0\.1:1"):
        resolve_connection(CommonOptions(server="127.0.0.1:2"), environ=env, folder=tmp_path)
    other = CommonOptions(server="127.0.0.1:2", key="own")
    assert resolve_connection(other, environ=env, folder=tmp_path).key == "own"


@pytest.mark.parametrize("which", ["file", "folder"])
def test_a_file_here_that_others_can_write_is_not_believed(tmp_path, found_here, which):
    each = found_here if which == "file" else found_here.parent
    each.chmod(0o777)
    with pytest.raises(CliError, match="written by other users"):
        resolve_connection(CommonOptions(), environ={}, folder=tmp_path)
    # and it is in nobody's way who names a server
    found = resolve_connection(CommonOptions(server="127.0.0.1:1"), environ={}, folder=tmp_path)
    assert found.key == ""


@pytest.mark.parametrize("which", ["file", "folder"])
def test_a_file_here_of_another_user_is_not_believed(tmp_path, found_here, monkeypatch, which):
    mine = found_here if which == "folder" else found_here.parent
    real = Path.stat

    def stat(self, **options):
        found = real(self, **options)
        owner = found.st_uid if self == mine else found.st_uid + 1
        return os.stat_result((*found[:4], owner, *found[5:]))

    monkeypatch.setattr(Path, "stat", stat)
    with pytest.raises(CliError, match="belongs to another user"):
        resolve_connection(CommonOptions(), environ={"DREY_KEY": "env"}, folder=tmp_path)


def test_a_key_never_travels_to_another_server(tmp_path):
    (tmp_path / "client.toml").write_text('server = "127.0.0.1:1"\nkey = "secret"\n')
    options = CommonOptions(state=str(tmp_path), server="127.0.0.1:2")
    assert resolve_connection(options, environ={}, folder=tmp_path).key == ""


def test_a_key_never_travels_in_clear_text_unasked(tmp_path):
    options = CommonOptions(server="far.example:7443", key="k")
    with pytest.raises(CliError, match="clear text"):
        resolve_connection(options, environ={}, folder=tmp_path)
    assert resolve_connection(
        CommonOptions(tls=True).merged_over(options), environ={}, folder=tmp_path
    ).tls
    plain = CommonOptions(plaintext=True).merged_over(options)
    assert resolve_connection(plain, environ={}, folder=tmp_path).key == "k"


def test_profiles(tmp_path):
    folder = tmp_path / "drey"
    folder.mkdir()
    (folder / "config.toml").write_text(
        'default = "ring"\n[profiles.ring]\nserver = "127.0.0.1:7"\nkey_file = "ring.key"\n'
        '[profiles.odd]\nserver = "x"\nsrever = "y"\n'
    )
    (folder / "ring.key").write_text("abc\n")
    env = {"XDG_CONFIG_HOME": str(tmp_path)}
    found = resolve_connection(CommonOptions(), environ=env, folder=tmp_path)
    assert (found.server, found.key) == ("127.0.0.1:7", "abc")
    for name in ("odd", "none"):
        with pytest.raises(CliError):
            resolve_connection(CommonOptions(profile=name), environ=env, folder=tmp_path)

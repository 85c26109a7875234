"""The command line: what it says, and how it fails."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys

import pytest
from web_fixtures import add_project, living_project, make_settings

from backend import __main__ as cli
from backend.store.projects import Projects


@pytest.fixture(autouse=True)
def _environment(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # away from a developer's .env
    monkeypatch.setenv("AFTER_DATA", str(tmp_path / "data"))
    for name in ("LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "data").mkdir()
    return make_settings(tmp_path / "data")


def test_help_teaches_by_example(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--help"])
    said = capsys.readouterr().out
    assert stopped.value.code == 0
    assert "python -m backend connect --url" in said
    assert "python -m backend rollback 7 after-r03-n0060" in said


@pytest.mark.parametrize(
    "command",
    [
        "serve",
        "worker",
        "run",
        "connect",
        "doctor",
        "status",
        "rollback",
        "cancel",
        "pause",
        "resume",
        "backup",
        "restore",
        "disconnect",
    ],
)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help"])
    assert stopped.value.code == 0


def test_help_imports_no_model_library():
    code = (
        "import sys; from backend.__main__ import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print([m for m in ('torch', 'dbos', 'flask') if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        cwd=cli.__file__.rsplit("/", 2)[0],
    )  # fmt: skip
    assert run.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("project", ["0", "x", "-1", "1.5", "99999999999"])
def test_a_project_is_a_number(project, capsys):
    with pytest.raises(SystemExit):
        cli.main(["status", project])
    assert "project id" in capsys.readouterr().err


def test_status_with_nothing_connected_says_what_to_do(settings, capsys):
    assert cli.main(["status"]) == 0
    assert "python -m backend connect" in capsys.readouterr().out


def test_status_says_how_it_goes(settings, capsys):
    living_project(settings)
    assert cli.main(["status", "1"]) == 0
    said = capsys.readouterr().out
    assert "78 of 100" in said
    assert "NOT RUNNING" in said
    assert "after-r04-n0072" in said


def test_status_for_other_programs_is_json(settings, capsys):
    living_project(settings)
    assert cli.main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["projects"][0]["labels"] == 78


def test_an_unknown_project_is_one_sentence(settings, capsys):
    assert cli.main(["status", "3"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: project 3 is not connected")
    assert "Traceback" not in said


def test_a_wrong_setting_is_named(monkeypatch, capsys):
    monkeypatch.setenv("AFTER_PORT", "x")
    assert cli.main(["status"]) == 1
    assert "AFTER_PORT" in capsys.readouterr().err


def test_serving_strangers_without_a_password_is_refused(monkeypatch, capsys):
    monkeypatch.setenv("AFTER_HOST", "0.0.0.0")
    assert cli.main(["serve"]) == 1
    assert "AFTER_BASIC_AUTH_USER" in capsys.readouterr().err


def test_connect_without_an_address_says_so(capsys):
    assert cli.main(["connect", "--project", "7"]) == 1
    assert "--url" in capsys.readouterr().err


def test_connect_without_a_token_says_so(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert cli.main(["connect", "--project", "7", "--url", "http://localhost:9"]) == 1
    assert "LABEL_STUDIO_API_KEY" in capsys.readouterr().err


def test_a_token_is_never_shown(settings, capsys):
    key = "f00d" * 10
    code = cli.main(["connect", "--project", "7", "--url", "http://127.0.0.1:9", "--api-key", key])
    said = capsys.readouterr()
    assert code == 1
    assert key not in said.out + said.err
    assert "Traceback" not in said.err


def test_cancel_with_nothing_to_cancel_says_so(settings, capsys):
    add_project(settings)
    assert cli.main(["cancel", "1"]) == 0
    assert "no job" in capsys.readouterr().out


def test_rollback_to_an_unknown_version_names_those_there_are(settings, capsys):
    living_project(settings)
    assert cli.main(["rollback", "1", "after-r99-n9999"]) == 1
    assert "after-r04-n0072" in capsys.readouterr().err


def test_a_project_is_paused_and_goes_on(settings, capsys):
    add_project(settings, 7)
    assert cli.main(["pause", "7"]) == 0
    assert Projects(settings).get(7).paused
    assert cli.main(["resume", "7"]) == 0
    assert not Projects(settings).get(7).paused
    assert cli.main(["pause", "8"]) == 1
    assert "not connected" in capsys.readouterr().err


def test_a_backup_is_restored_by_two_commands(settings, tmp_path, monkeypatch, capsys):
    living_project(settings, 7)
    file = str(tmp_path / "b.tar.gz")
    assert cli.main(["backup", file]) == 0
    assert cli.main(["restore", file]) == 1
    assert "--force" in capsys.readouterr().err
    monkeypatch.setenv("AFTER_DATA", str(tmp_path / "other"))
    assert cli.main(["restore", file]) == 0
    assert Projects(make_settings(tmp_path / "other")).folder(7).history()


def test_what_a_command_makes_is_its_owners_alone(tmp_path, capsys):
    before = os.umask(0o022)
    try:
        assert cli.main(["status"]) == 0
        assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
        assert os.umask(0o022) == 0o077
    finally:
        os.umask(before)

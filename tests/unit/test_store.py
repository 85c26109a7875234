"""The database: transactions, migrations, tasks, what events named, leases."""

from __future__ import annotations

import json
import multiprocessing
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.settings import Settings, SettingsError
from backend.store import migrations
from backend.store.engine import Database
from backend.store.projects import Project, ProjectFolder, Projects, TaskRecord
from backend.store.schema import METADATA

PROJECT = Project(id=7, url="http://label-studio", api_key="very-secret", secret="hook")


@pytest.fixture
def projects(tmp_path: Path) -> Projects:
    made = Projects(Settings(data=tmp_path))
    made.save(PROJECT)
    return made


@pytest.fixture
def folder(projects: Projects) -> ProjectFolder:
    return projects.folder(7)


def task(number: int = 1, **values: object) -> TaskRecord:
    return replace(TaskRecord({"audio": f"/{number}.wav"}, {}), **values)  # type: ignore[arg-type]


# --- migrations ----------------------------------------------------------------------------------


def test_migrations_make_the_tables_that_the_code_uses(projects):
    with projects.database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


def test_the_newest_migration_is_the_one_that_is_known():
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    assert ScriptDirectory.from_config(config).get_heads() == [migrations.HEAD]


def test_every_migration_goes_back_and_forth(projects, tmp_path):
    revisions = [f"{number:04d}" for number in range(1, int(migrations.HEAD) + 1)]
    with projects.database.write() as connection:
        for wanted in [*reversed(revisions[:-1]), *revisions[1:]]:
            found = migrations.version(connection)
            migrations.run(connection, found, wanted, tmp_path)
            assert migrations.version(connection) == wanted
    assert projects.get(7) == PROJECT


def _open(data: Path, barrier: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    Projects(Settings(data=data)).save(PROJECT)


def test_several_processes_start_on_an_empty_folder_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(4)
    started = [context.Process(target=_open, args=(tmp_path / "data", barrier)) for _ in range(4)]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
    assert [process.exitcode for process in started] == [0, 0, 0, 0]


def test_an_upgrade_that_fails_leaves_everything_as_it_was(tmp_path, monkeypatch):
    database = Database(f"sqlite:///{tmp_path / 'after.sqlite'}")
    with database.write() as connection:
        migrations.run(connection, None, "0001", tmp_path)
    monkeypatch.setattr("backend.store.migrations.files.insert", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        migrations.upgrade(database, tmp_path)
    with database.read() as connection:
        assert migrations.version(connection) == "0001"
        assert "after_tasks" not in sa.inspect(connection).get_table_names()
    monkeypatch.undo()
    migrations.upgrade(database, tmp_path)


def test_a_database_of_a_newer_release_is_refused(projects):
    with projects.database.write() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SettingsError, match="newer release"):
        Projects(projects.settings)


def test_tasks_of_a_folder_without_a_database_become_rows(tmp_path):
    path = tmp_path / "projects" / "7" / "tasks.json"
    path.parent.mkdir(parents=True)
    stored = {"3": {"audio": {"audio": "/a.wav"}, "path": {}, "error": "404", "labelled": True}}
    path.write_text(json.dumps(stored))
    (tmp_path / "projects" / "8").mkdir()
    (tmp_path / "projects" / "8" / "tasks.json").write_text("{dam")
    projects = Projects(Settings(data=tmp_path))
    assert projects.folder(7).tasks() == {3: TaskRecord({"audio": "/a.wav"}, {}, "404", True)}
    assert projects.folder(8).tasks() == {}
    projects.folder(7).remove_tasks([3])
    assert Projects(Settings(data=tmp_path)).folder(7).tasks() == {}  # it is not read again


@pytest.mark.parametrize("name", ["after.sqlite", "after.sqlite-wal", "after.sqlite-shm"])
def test_the_database_is_for_its_owner_alone_from_the_first_moment(tmp_path, monkeypatch, name):
    seen: list[int] = []
    upgrade = migrations.upgrade

    def look(database: Database, folder: Path) -> None:
        seen.extend(stat.S_IMODE(p.stat().st_mode) for p in [tmp_path / name] if p.exists())
        upgrade(database, folder)
        seen.append(stat.S_IMODE((tmp_path / name).stat().st_mode))

    monkeypatch.setattr(migrations, "upgrade", look)
    with Projects(Settings(data=tmp_path)).database.read():
        pass
    assert set(seen) == {0o600}


# --- tasks ---------------------------------------------------------------------------------------

RECORDS = st.builds(
    TaskRecord,
    audio=st.dictionaries(st.sampled_from(["audio", "other"]), st.text(max_size=5)),
    path=st.dictionaries(st.just("audio"), st.text(max_size=5)),
    error=st.none() | st.text(max_size=5).filter(lambda text: "\0" not in text),
    labelled=st.booleans(),
    speaker=st.sampled_from(["", "ann", "Ö"]),
)
TASKS = st.dictionaries(st.integers(1, 12), RECORDS, max_size=8)


@settings(deadline=None, max_examples=40)
@given(first=TASKS, second=TASKS, changed=TASKS, removed=st.sets(st.integers(1, 12)))
def test_tasks_are_kept_as_a_dictionary_would(tmp_path_factory, first, second, changed, removed):
    folder = Projects(Settings(data=tmp_path_factory.mktemp("data"))).folder(1)
    folder.save_tasks(first)
    folder.save_tasks(second)
    folder.update_tasks(changed)
    folder.remove_tasks(removed)
    expected = {k: v for k, v in sorted((second | changed).items()) if k not in removed}
    assert folder.tasks() == expected
    assert folder.task_count() == len(expected)
    assert folder.task_ids() == frozenset(expected)


def test_projects_do_not_see_each_others_tasks(projects):
    projects.folder(7).save_tasks({1: task(1)})
    projects.folder(8).save_tasks({1: task(2), 2: task(3)})
    projects.folder(8).remove_tasks([2])
    assert projects.folder(7).tasks() == {1: task(1)}
    assert projects.folder(8).tasks() == {1: task(2)}


def test_saving_the_same_tasks_writes_nothing(folder):
    folder.save_tasks({key: task(key) for key in range(50)})
    written: list[str] = []
    sa.event.listen(
        folder.database.engine, "before_cursor_execute", lambda *e: written.append(e[2])
    )
    folder.save_tasks({key: task(key) for key in range(50)})
    assert not [statement for statement in written if statement.startswith(("INSERT", "DELETE"))]


@pytest.mark.slow
def test_a_hundred_thousand_tasks_stay_quick(folder):
    """Generous limits: what is held off is a cost of another order."""
    folder.save_tasks({key: task(key, path={"audio": f"{key}.wav"}) for key in range(100_000)})
    began = time.process_time()
    assert len(folder.tasks()) == 100_000
    assert time.process_time() - began < 4
    began = time.process_time()
    for key in range(100):
        folder.update_tasks({key: task(key, labelled=True)})
    assert time.process_time() - began < 2


# --- leases --------------------------------------------------------------------------------------


def test_a_lease_has_one_holder(projects):
    first = projects.lease("device", "a", 60)
    assert first is not None
    assert projects.lease("device", "b", 60) is None
    assert projects.lease("another", "b", 60) is not None
    projects.release("device", first)
    second = projects.lease("device", "b", 60)
    assert second is not None
    assert second > first


def test_a_lease_that_is_not_renewed_goes_to_another(projects):
    first = projects.lease("device", "a", 0.05)
    time.sleep(0.1)
    second = projects.lease("device", "b", 60)
    assert second is not None
    assert second > first
    assert not projects.renew("device", first, 60)
    projects.release("device", first)  # of before: it is not its any more
    assert projects.renew("device", second, 60)


def test_a_lease_can_be_held_on(projects):
    token = projects.lease("device", "a", 0.3)
    assert projects.renew("device", token, 60)
    time.sleep(0.4)
    assert projects.lease("device", "b", 60) is None


def test_a_holder_that_was_started_anew_gets_its_lease_at_once(projects):
    before = projects.lease("device", "a", 60)
    after = projects.lease("device", "a", 60)
    assert after is not None
    assert after > before
    assert not projects.renew("device", before, 60)


def test_many_that_ask_at_once_get_one_lease(projects):
    with ThreadPoolExecutor(8) as threads:
        given = list(threads.map(lambda n: projects.lease("device", str(n), 60), range(40)))
    assert sum(token is not None for token in given) == 1

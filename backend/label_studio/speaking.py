"""Who speaks in a project: what connecting is told, keeps, or finds in the tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from backend.label_studio import speakers
from backend.label_studio.labeling import Control
from backend.label_studio.predictions import LabelStudio, ProjectInfo, Task
from backend.label_studio.speakers import NOBODY, Rule, SpeakerError
from backend.store.projects import Project, ProjectFolder

LOOKED_AT = 5000  # tasks in which speakers are looked for
OFF = f"--speaker-pattern '{NOBODY}'"


@dataclass(frozen=True)
class Decision:
    """The rule from now on, what to tell, and the tasks that were read for it."""

    rule: Rule
    line: str
    tasks: Sequence[Task] = ()


def rule_of(project: Project | None) -> Rule:
    """As the project keeps it."""
    return Rule() if project is None else Rule(project.speaker_key, project.speaker_pattern)


def decide(
    client: LabelStudio,
    info: ProjectInfo,
    controls: Sequence[Control],
    kept: Rule,
    given: Rule,
    use_found: bool,
) -> Decision:
    """Who speaks from now on: as given, else as kept, else as found where that is wished.

    Raises SpeakerError where what is given names nobody.
    """
    keys = {control.audio_key for control in controls}
    if given.pattern == NOBODY:
        return Decision(given, "who speaks is not used")
    if given:
        tasks = client.tasks(info.id)
        found = speakers.count(_items(tasks, keys), given)
        if tasks and not found:
            raise SpeakerError(_nobody(given, tasks[0], keys))
        return Decision(given, f"who speaks: {_told(given, found, len(tasks))}", tasks)
    if kept.pattern == NOBODY:
        return Decision(kept, "who speaks is not used; --speaker or --speaker-pattern uses it")
    if kept:
        return Decision(kept, f"who speaks: {kept}; {OFF} leaves it out")
    tasks = client.tasks(info.id, at_most=LOOKED_AT)
    proposed = speakers.propose(
        list(_items(tasks, keys)), (label for control in controls for label in control.labels)
    )
    if proposed is None:
        return Decision(kept, "who speaks is not known; --speaker or --speaker-pattern says it")
    if use_found and proposed.sure:
        return Decision(proposed.rule, f"who speaks: {proposed}; used, {OFF} leaves it out", tasks)
    word = "seems to be said" if proposed.sure else "may be said, if these are people"
    return Decision(
        kept,
        f"who speaks {word}: {proposed}; not used, {proposed.rule.option()} uses it",
    )


def note(folder: ProjectFolder, rule: Rule, tasks: Iterable[Task], keys: Iterable[str]) -> None:
    """Write who speaks to what is known of these tasks."""
    records = folder.tasks()
    keys = sorted(keys)
    told = {
        task.id: replace(
            records[task.id],
            speaker=rule.speaker(task.data, speakers.address_in(task.data, keys)),
        )
        for task in tasks
        if task.id in records
    }
    if any(records[key] != record for key, record in told.items()):
        folder.save_tasks(records | told)


def _items(tasks: Iterable[Task], keys: Iterable[str]) -> Iterable[speakers.Item]:
    keys = sorted(keys)
    return ((task.data, speakers.address_in(task.data, keys)) for task in tasks)


def _told(rule: Rule, found: Counter[str], recordings: int) -> str:
    if not recordings:
        return f"{rule}, once there are tasks"
    unknown = recordings - found.total()
    rest = f"; of {unknown} recordings nobody knows" if unknown else ""
    return f"{speakers.summary(found)} (by {rule}){rest}"


def _nobody(rule: Rule, task: Task, keys: Iterable[str]) -> str:
    path = speakers.path_of(speakers.address_in(task.data, sorted(keys)))
    named = ", ".join(sorted(task.data)) or "nothing"
    return (
        f"{rule.option()} names nobody in any task; task {task.id} has {named}, and its recording "
        f"is {path!r}"
    )

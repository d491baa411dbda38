"""The evaluator's tests of every task in the pack; what is expected is in the task's private data.

Copied into each task; called by the engine's own evaluator, which counts the ``with test(...)`` blocks that pass.
Doing nothing passes none of them.
"""

import json
from typing import Any

#: What changes with a row by itself.
_OWN = ["updated_at", "record_hash"]


def evaluate(
    test: Any, models: Any, public_data: Any, private_data: Any, main_user: Any, ground_truth_answer: Any
) -> None:
    """One test for the answer, one for each expected change, and that all of this was done and nothing else."""
    expected, passed, extra = private_data["expected"], [], []
    with test("assert the task was completed with the right answer."):
        task = models.end.supervisor.Task.first()
        test.case(task.status, "==", "success")
        test.answer(json.loads(task.answer), ground_truth_answer)
        passed.append(True)
    changes = {name: models.changed_records(name) for name in sorted(expected)}
    for name, (added, updated, removed) in changes.items():
        wanted, left = expected[name], list(added)
        for number, fields in enumerate(wanted["added"], 1):
            found = [record for record in left if _fits(record, _resolved(fields, changes))]
            with test(f"assert addition {number} to {name} was made."):
                test.case(len(found), ">=", 1)
                left.remove(found[0])
                passed.append(True)
        after = {record.id: record for record in updated}
        for number, (key, fields) in enumerate(sorted(wanted["updated"].items()), 1):
            record = after.pop(int(key), None)
            with test(f"assert change {number} to {name} was made."):
                test.case(record is not None and _fits(record, fields), "==", True)
                test.case(models.changed_field_names(name, int(key), ignore=_OWN) - set(fields), "==", set())
                passed.append(True)
        gone = {record.id for record in removed}
        for number, key in enumerate(wanted["removed"], 1):
            with test(f"assert removal {number} from {name} was made."):
                test.case(key in gone, "==", True)
                passed.append(True)
        extra += [f"{name} {key}" for key in [*(r.id for r in left), *after, *(gone - set(wanted["removed"]))]]
    for name, allowed in private_data["side_effects"].items():
        if name not in expected:
            extra += _beyond(models, name, allowed)
    with test("assert all of it was done and nothing else."):
        test.case(len(passed), "==", private_data["tests"])
        test.case(extra, "==", [])
        spared = [*expected, *private_data["side_effects"]]
        test.case(models.changed_model_names(ignore=spared), "==", set())


def _beyond(models: Any, name: str, allowed: Any) -> list[str]:
    """Changes to a table beyond what comes with the use of an app: new rows ("added"), or some fields of old ones."""
    added, updated, removed = models.changed_records(name)
    found = [f"{name} {record.id} removed" for record in removed]
    if allowed != "added":
        found += [f"{name} {record.id} added" for record in added]
    for record in updated:
        fields = models.changed_field_names(name, record.id, ignore=_OWN)
        if allowed == "added" or fields - set(allowed):
            found.append(f"{name} {record.id} changed")
    return found


def _resolved(fields: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``fields`` with {"row": table, "fields": {...}} replaced by the id of the added row that is meant."""
    result = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            rows = [record for record in changes[value["row"]][0] if _fits(record, value["fields"])]
            value = rows[0].id if rows else -1
        result[name] = value
    return result


def _fits(record: Any, wanted: dict[str, Any]) -> bool:
    return all(_same(getattr(record, field), value) for field, value in wanted.items())


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, float):
        return isinstance(found, (int, float)) and abs(found - wanted) < 0.005
    if isinstance(wanted, list):
        return isinstance(found, list) and sorted(map(str, found)) == sorted(map(str, wanted))
    if hasattr(found, "isoformat"):
        return bool(found.isoformat().startswith(str(wanted)))
    return bool(found == wanted)

"""The evaluator's tests of every task in the pack; what is expected is in the task's private data.

Copied into each task; called by the engine's own evaluator, which counts the ``with test(...)`` blocks that pass.
"""

import json
from typing import Any


def evaluate(
    test: Any, models: Any, public_data: Any, private_data: Any, main_user: Any, ground_truth_answer: Any
) -> None:
    """One test for the answer, one for each expected change, and that nothing else was touched."""
    with test("assert the task was completed with the right answer."):
        task = models.end.supervisor.Task.first()
        test.case(task.status, "==", "success")
        test.answer(json.loads(task.answer), ground_truth_answer)
    for name in sorted(private_data["expected"]):
        expected = private_data["expected"][name]
        added, updated, removed = models.changed_records(name)
        left = list(added)
        for number, wanted in enumerate(expected["added"], 1):
            with test(f"assert addition {number} to {name} was made."):
                found = [record for record in left if _fits(record, wanted)]
                test.case(len(found), ">=", 1)
                left.remove(found[0])
        after = {record.id: record for record in updated}
        for number, (key, wanted) in enumerate(sorted(expected["updated"].items()), 1):
            with test(f"assert change {number} to {name} was made."):
                record = after.pop(int(key), None)
                test.case(record is not None and _fits(record, wanted), "==", True)
                fields = models.changed_field_names(name, int(key), ignore=["updated_at", "record_hash"])
                test.case(fields - set(wanted), "==", set())
        gone = {record.id for record in removed}
        for number, key in enumerate(expected["removed"], 1):
            with test(f"assert removal {number} from {name} was made."):
                test.case(key in gone, "==", True)
        with test(f"assert nothing else happened to {name}."):
            extra = [*left, *after.values(), *(gone - set(expected["removed"]))]
            test.case(len(extra), "==", 0)
    with test("assert nothing else was touched."):
        spared = [*private_data["expected"], *private_data["side_effects"]]
        test.case(models.changed_model_names(ignore=spared), "==", set())


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

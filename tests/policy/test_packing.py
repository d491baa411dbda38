"""Rows in one flat list: what stands where, and how rows are put into batches."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skillsd.policy.packing import TokenRow, micro_batches, pack

TOKENS = st.lists(st.integers(1, 9), min_size=1, max_size=6)
ROWS = st.lists(st.builds(lambda p, c: TokenRow(p, c, [1] * len(c)), TOKENS, TOKENS), min_size=1, max_size=12)


@given(ROWS)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_a_prompt_stands_once_and_every_row_is_whole(rows):
    packed = pack(rows, torch.device("cpu"))
    prompts = {tuple(row.prompt_ids) for row in rows}
    assert len(packed.ids) == sum(map(len, prompts)) + sum(len(row.completion_ids) for row in rows)
    for number, row in enumerate(rows):
        steps = torch.arange(len(row.completion_ids))
        before = packed.before(torch.full_like(steps, number), steps)
        whole = row.prompt_ids + row.completion_ids
        assert packed.ids[before].tolist() == whole[len(row.prompt_ids) - 1 : -1]
        assert packed.positions[before].tolist() == [len(row.prompt_ids) - 1 + step for step in steps.tolist()]
    assert sum(group.shape[0] for group in packed.groups) == len(rows)


@pytest.mark.parametrize("shared", [True, False])
@given(ROWS, st.integers(1, 60))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_batches_hold_every_row_once_within_the_budget(shared, rows, budget):
    batches = micro_batches(rows, budget, shared=shared)
    assert sorted(i for batch in batches for i in batch) == list(range(len(rows)))
    for batch in batches:
        part = [rows[i] for i in batch]
        padded = max(row.length for row in part) * len(part)
        if len(part) > 1 and shared:
            assert len(pack(part, torch.device("cpu")).ids) <= budget
            assert padded <= 2 * budget
        elif len(part) > 1:
            assert padded <= budget


def test_rows_of_one_prompt_come_together():
    rows = [TokenRow([i % 2, 7], [1] * (3 + i), [1] * (3 + i)) for i in range(8)]
    assert [{i % 2 for i in batch} for batch in micro_batches(rows, 30)] == [{1}, {0}]
    assert micro_batches([], 10) == []

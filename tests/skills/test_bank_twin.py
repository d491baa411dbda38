"""The bank beside a twin in plain Python that reads everything every time: the same answers to the same calls."""

import random
import sqlite3
from dataclasses import dataclass

import pytest

from skillsd.skills import Skill, SkillBank
from skillsd.skills.duplicates import DUPLICATE, bag, part_marks, rare_marks, same, words
from skillsd.skills.retrieval import choose, choose_among_best
from skillsd.skills.schema import OLD_TABLES


@dataclass
class Entry:
    id: int
    task_id: str
    skill: Skill
    reward: float
    chosen: int = 0
    credits: int = 0
    credit_sum: float = 0.0
    rule: str = "group"

    @property
    def mean_reward(self):
        return self.credit_sum / self.credits if self.credits and self.rule != "source" else self.reward


class Twin:
    """What the bank promises, in so many words."""

    def __init__(self, capacity, exploration, rule):
        self.capacity, self.exploration, self.rule = capacity, exploration, rule
        self.entries, self.counts, self.last = [], {}, 0

    def of(self, task):
        return [entry for entry in self.entries if entry.task_id == task]

    def count(self, task, name, more=1):
        if more or name == "added":
            counts = self.counts.setdefault(task, dict.fromkeys(("retrievals", "added", "duplicates", "evicted"), 0))
            counts[name] += more

    def add(self, task, skill, reward):
        for entry in self.of(task):
            one, two = bag(skill), bag(entry.skill)
            if len(one & two) >= DUPLICATE * len(one | two):
                self.count(task, "duplicates")
                return None
        worst = sorted(self.of(task), key=lambda entry: (entry.mean_reward, entry.id))
        for entry in worst[: max(0, len(worst) + 1 - self.capacity)]:
            self.entries.remove(entry)
            self.count(task, "evicted")
        self.count(task, "added")
        self.last += 1
        self.entries.append(Entry(self.last, task, skill, reward, rule=self.rule))
        return self.last

    def retrieve(self, task):
        total = self.counts.get(task, {}).get("retrievals", 0)
        best = choose(self.of(task), total, self.exploration)
        if best is None:
            return None
        found = (best.id, best.chosen, best.mean_reward, best.skill)
        best.chosen += 1
        self.count(task, "retrievals")
        return found

    def credit(self, number, reward):
        for entry in self.entries:
            if entry.id == number:
                entry.credits += 1
                entry.credit_sum += reward


def seen(stored):
    return stored and (stored.id, stored.chosen, stored.mean_reward, stored.skill)


def agree(bank, twin, tasks):
    for task in tasks:
        assert [seen(s) for s in bank.skills(task)] == [(e.id, e.chosen, e.mean_reward, e.skill) for e in twin.of(task)]
        stats, counts = bank.stats(task), twin.counts.get(task, {})
        assert stats.skills == len(twin.of(task))
        for name in ("retrievals", "added", "duplicates", "evicted"):
            assert getattr(stats, name) == counts.get(name, 0)


def skill(said):
    parts = [" ".join(said[i::3]) or "none" for i in range(3)]
    return Skill(success_analysis=parts[0], mistake_analysis=parts[1], golden_workflow=parts[2])


class Writer:
    """New skills, some like earlier ones but for a word or two, of few words and of many, in a form and without."""

    def __init__(self, rng):
        self.rng, self.said = rng, []

    def __call__(self):
        rng = self.rng
        kind = rng.random()
        if self.said and kind < 0.5:
            said = list(rng.choice(self.said[-9:]))
            for _ in range(rng.choice((0, 1, 1, 2))):
                said[rng.randrange(len(said))] = f"w{rng.randrange(60)}"
        elif kind < 0.7:
            said = [*(f"form{i}" for i in range(rng.choice((6, 12, 60)))), f"n{rng.randrange(40)}"]
        else:
            said = [f"w{rng.randrange(rng.choice((2, 60)))}" for _ in range(rng.choice((1, 9, 20, 40, 130)))]
        self.said.append(said)
        return skill(said)


#: Some so close that adding a bonus makes them equal.
REWARDS = (0.0, 0.5, 1.0, 1 / 3, 0.1, 0.1 + 2**-56, 0.1 + 2**-55, -1.0, 1e-20, 2e-20, 1e15)


@pytest.mark.parametrize("seed", range(12))
def test_every_answer_is_the_twins(tmp_path, seed):
    rng = random.Random(seed)
    rule = rng.choice(("group", "source", "separation"))
    exploration = rng.choice((0.0, 0.3, 2**0.5, 1e6, -1.0))
    capacity = rng.choice((1, 3, 8, 1000))
    bank, twin = SkillBank(tmp_path / "b.sqlite", capacity, exploration, rule), Twin(capacity, exploration, rule)
    write, tasks = Writer(rng), ["a", "b", "задача"]
    for step in range(400):
        task, kind = rng.choices(tasks, (8, 3, 1))[0], rng.random()
        if kind < (0.5 if step < 150 else 0.15):
            new, reward = write(), rng.choice(REWARDS)
            assert bank.add(task, new, reward) == twin.add(task, new, reward)
        elif kind < 0.75:
            assert seen(bank.retrieve(task)) == twin.retrieve(task)
        elif kind < 0.97:
            number, reward = rng.randint(max(1, twin.last - 30), twin.last + 1), rng.choice(REWARDS)
            bank.credit(number, reward)
            twin.credit(number, reward)
        elif kind < 0.985:  # another process goes on, perhaps with other room
            bank.close()
            capacity = rng.choice((capacity, capacity, 2))
            bank, twin.capacity = SkillBank(bank.path, capacity, exploration, rule), capacity
        else:
            agree(bank, twin, tasks)
    agree(bank, twin, tasks)
    assert sum(counts["duplicates"] for counts in twin.counts.values()) > 0
    bank.close()


@pytest.mark.parametrize("rule", ["group", "source"])
def test_a_bank_of_version_0_1_goes_on_as_the_twin(tmp_path, rule):
    path, rng = tmp_path / "b.sqlite", random.Random(3)
    twin, write = Twin(20, 1.0, rule), Writer(random.Random(4))
    for _ in range(60):
        twin.add("a", write(), rng.choice(REWARDS))
    for entry in twin.entries[::2]:
        entry.chosen, entry.credits, entry.credit_sum = rng.randrange(4), 2, rng.random()
    with sqlite3.connect(path) as old:
        for statement in (*OLD_TABLES, "PRAGMA application_id = 0x5D5D0001", "PRAGMA user_version = 1"):
            old.execute(statement)
        old.executemany(
            "INSERT INTO skills (id, task_id, skill, reward, chosen, credits, credit_sum) VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(e.id, "a", e.skill.model_dump_json(), e.reward, e.chosen, e.credits, e.credit_sum) for e in twin.entries],
        )
        old.execute("UPDATE sqlite_sequence SET seq = ?", (twin.last,))
        old.execute("INSERT INTO tasks VALUES ('a', ?, ?, ?, ?)", tuple(twin.counts["a"].get(n, 0) for n in
                    ("retrievals", "added", "duplicates", "evicted")))  # fmt: skip
    before = path.read_bytes()
    bank = SkillBank(path, 20, 1.0, rule, create=False)
    agree(bank, twin, ["a"])
    assert path.read_bytes() == before  # reading changes nothing
    other = SkillBank(path, 20, 1.0, rule, create=False)  # open before the upgrade, used after it
    for step in range(150):
        one = (bank, other)[step % 2]
        new, reward = write(), rng.choice(REWARDS)
        assert one.add("a", new, reward) == twin.add("a", new, reward)
        assert seen(one.retrieve("a")) == twin.retrieve("a")
    agree(bank, twin, ["a"])
    bank.close()
    other.close()


def test_what_other_programs_change_counts(tmp_path):
    bank = SkillBank(tmp_path / "b.sqlite", capacity=3)
    write = Writer(random.Random(5))
    texts = [skill([f"t{n}x{i}" for i in range(30)]) for n in range(6)]
    for text in texts[:3]:
        bank.add("a", text, 0.5)
    with sqlite3.connect(bank.path) as raw:
        raw.execute("DELETE FROM skills WHERE id = 1")
        raw.execute("UPDATE skills SET skill = ? WHERE id = 2", (texts[3].model_dump_json(),))
        raw.execute("UPDATE skills SET task_id = 'b' WHERE id = 3")
        raw.execute("INSERT INTO skills (task_id, skill, reward) VALUES ('a', ?, 0)", (texts[4].model_dump_json(),))
    for text, stored in zip(texts, (False, False, False, True, True), strict=False):
        assert any(s.skill == text for s in bank.skills("a")) is stored
    assert bank.add("a", texts[3], 0.5) is None
    assert bank.add("a", texts[4], 0.5) is None
    assert bank.add("b", texts[2], 0.5) is None
    assert bank.add("a", texts[1], 0.5) is not None  # what was overwritten may come again
    assert bank.stats("a").evicted == 0
    assert bank.add("a", write(), 0.5) is not None
    assert bank.stats("a").evicted == 1
    bank.close()


@pytest.mark.parametrize("size", [12, 18, 19, 20, 21, 37, 38, 39, 40, 57, 95, 100, 200, 640])
def test_near_duplicates_share_a_mark_of_each_kind(size):
    """All ways of being just alike enough: words taken out, put in and replaced, at the limit of what is the same."""
    rng = random.Random(size)
    met = 0
    for trial in range(300):
        pairs = {(f"a{i}", f"b{rng.randrange(9)}") for i in range(size)}
        other, limit = set(pairs), rng.randint(0, size // 19 + 1)
        out = rng.randint(0, limit)
        other -= set(rng.sample(sorted(other), out))
        other |= {(f"new{trial}", str(i)) for i in range(limit - out)}
        if not same(pairs, other):
            continue
        met += 1
        ages = {word: rng.randrange(10**6) for pair in pairs | other for word in pair}
        for one, two in ((pairs, other), (other, pairs)):
            assert set(part_marks("t", one, stored=True)) & set(part_marks("t", two, stored=False))
            assert set(rare_marks("t", one, ages)) & set(rare_marks("t", two, ages))
    assert met > 50


def test_the_labels_are_words_too():
    assert words(skill(["a"])) == ["what", "works", "a", "what", "to", "avoid", "none", "workflow", "none"]


def test_the_best_of_each_count_are_enough():
    """Against all skills, with means that differ by less than a score's rounding."""
    for seed in range(3000):
        rng = random.Random(seed)
        arms = [Entry(i, "t", skill(["x"]), rng.choice(REWARDS), chosen=rng.randint(seed % 2, 3)) for i in range(1, 9)]
        rng.shuffle(arms)
        c, total = rng.choice((0.0, 1.0, 1e9, -1.0)), rng.randint(0, 40)
        best = [max((a for a in arms if a.chosen == n), key=lambda a: ((a.mean_reward if a.chosen else 0), a.id))
                for n in {a.chosen for a in arms}]  # fmt: skip

        def below(one, arms=arms):
            lower = [a for a in arms if a.chosen == one.chosen and a.mean_reward < one.mean_reward]
            return max(lower, key=lambda a: (a.mean_reward, a.id), default=None)

        assert choose_among_best(best, below, total, c) is choose(arms, total, c)

"""The bank: retrieval by UCB, capacity, duplicates, provenance, several processes, broken files."""

import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from skillsd.errors import SkillSDError, UsageError
from skillsd.skills import Skill, SkillBank, Source, ucb_score
from skillsd.skills.retrieval import choose


def skill(text="walk round the box"):
    return Skill(success_analysis=text, mistake_analysis=f"avoid {text}", golden_workflow=f"first {text}")


def distinct(n):
    rng = random.Random(n)
    return skill(" ".join(rng.choice("abcdefghij") * 5 for _ in range(12)))


@pytest.fixture
def bank(tmp_path):
    found = SkillBank(tmp_path / "skills.sqlite")
    yield found
    found.close()


def test_the_ucb_score_is_its_formula_and_infinite_before_the_first_use():
    assert ucb_score(0.5, 0, 9, 1.4) == math.inf
    assert ucb_score(0.5, 4, 9, 1.4) == pytest.approx(0.5 + 1.4 * math.sqrt(math.log(9) / 4))
    assert ucb_score(0.5, 1, 1, 1.4) == 0.5
    assert ucb_score(0.5, 3, 100, 0.0) == 0.5


def test_retrieval_is_ucb_over_a_long_run(bank):
    """Simulate UCB1 beside the bank, with fixed payoffs per skill, for 200 choices."""
    payoff = {bank.add("t", distinct(i), 0.0): 0.2 * i for i in range(5)}
    counts, sums = dict.fromkeys(payoff, 0), dict.fromkeys(payoff, 0.0)
    for total in range(200):
        expected = max(
            payoff,
            key=lambda i: (
                math.inf if not counts[i] else sums[i] / counts[i] + math.sqrt(2 * math.log(max(total, 1)) / counts[i]),
                i,
            ),
        )
        found = bank.retrieve("t")
        assert found.id == expected
        bank.credit(found.id, payoff[expected])
        counts[expected] += 1
        sums[expected] += payoff[expected]
    assert {s.id: s.chosen for s in bank.skills("t")} == counts
    assert max(counts, key=counts.get) == max(payoff, key=payoff.get)
    assert bank.stats("t").retrievals == 200


def test_unseen_skills_come_newest_first(bank):
    ids = [bank.add("t", distinct(i), reward=1.0 - i / 10) for i in range(3)]
    assert [bank.retrieve("t").id for _ in range(3)] == ids[::-1]
    assert choose([], 3, 1.0) is None
    assert bank.retrieve("other") is None


def test_each_rule_of_credit_counts_its_own_rewards(tmp_path):
    for rule, expected in (("source", 1.0), ("group", 0.25), ("separation", 0.25)):
        bank = SkillBank(tmp_path / f"{rule}.sqlite", credit=rule)
        identifier = bank.add("t", skill(), 1.0)
        assert bank.skills()[0].mean_reward == 1.0
        for reward in (0.0, 0.5):
            bank.retrieve("t")
            bank.credit(identifier, reward)
        assert bank.skills()[0].mean_reward == expected
        bank.credit(999, 1.0)  # evicted meanwhile: ignored
        bank.close()


def test_capacity_evicts_the_worst(tmp_path):
    bank = SkillBank(tmp_path / "b.sqlite", capacity=3)
    ids = [bank.add("t", distinct(i), reward) for i, reward in enumerate((0.5, 0.0, 1.0))]
    other = bank.add("u", distinct(50), 0.0)
    new = bank.add("t", distinct(9), 0.0)
    assert [s.id for s in bank.skills("t")] == [ids[0], ids[2], new]
    assert [s.id for s in bank.skills("u")] == [other]
    assert bank.stats("t").evicted == 1
    assert bank.add("t", distinct(10), 0.7) > new  # ids are never used again
    bank.close()


def test_near_duplicates_are_refused_within_a_task(bank):
    words = [f"word{i}" for i in range(40)]
    first = skill(" ".join(words))
    assert bank.add("t", first, 1.0) is not None
    assert bank.add("t", skill("  " + "  ".join(words).upper()), 1.0) is None
    longer = first.model_copy(update={"golden_workflow": first.golden_workflow + " more"})
    assert bank.add("t", longer, 1.0) is None
    assert bank.add("t", skill(" ".join(words[::-1])), 1.0) is not None  # same words, another order
    assert bank.add("u", first, 1.0) is not None
    assert bank.stats("t").duplicates == 2


def test_other_coordinates_are_another_skill(bank):
    for square in ("c4", "d4"):
        assert bank.add("t", skill(f"Stand on {square} and push the box from b2 up to b1."), 1.0) is not None


def test_everything_survives_a_reopening(tmp_path):
    path = tmp_path / "b.sqlite"
    bank = SkillBank(path)
    text = skill("Kiste schieben: öäü 箱を押す 🎁 <b>'; DROP TABLE skills; --")
    bank.add("задача/1", text, 0.5, source=Source("000001/x/2", 1))
    before = (bank.retrieve("задача/1"), bank.stats())[1]
    bank.backup(tmp_path / "copy.sqlite")
    bank.close()
    for name in ("b.sqlite", "copy.sqlite"):
        again = SkillBank(tmp_path / name)
        (stored,) = again.skills("задача/1")
        assert stored.skill == text
        assert stored.source == Source("000001/x/2", 1)
        assert stored.chosen == 1
        assert again.stats() == before
        again.close()


def _work(path, worker):
    bank = SkillBank(path, capacity=1000)
    for i in range(20):
        bank.add("t", distinct(1000 * worker + i), 0.5)
        bank.retrieve("t")
    bank.close()


def test_processes_share_one_bank(tmp_path):
    path = tmp_path / "b.sqlite"
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        list(pool.map(_work, [path] * 3, range(3)))
    bank = SkillBank(path)
    stats = bank.stats("t")
    assert (stats.skills + stats.duplicates, stats.retrievals) == (60, 60)
    assert sum(s.chosen for s in bank.skills()) == 60
    bank.close()


def test_a_kill_in_the_middle_of_writing_leaves_whole_transactions(tmp_path):
    path = tmp_path / "b.sqlite"
    code = (
        "import sys, itertools\n"
        "from skillsd.skills import Skill, SkillBank\n"
        f"bank = SkillBank({str(path)!r}, capacity=10**6)\n"
        "for i in itertools.count():\n"
        "    bank.add(f't{i}', Skill(success_analysis='a', mistake_analysis='b', golden_workflow='c'), 0.0)\n"
        "    print(i, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    for _ in range(20):
        last = int(process.stdout.readline())
    time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    bank = SkillBank(path, capacity=10**6)
    stats = bank.stats()
    assert stats.skills == stats.added > last  # whole transactions only
    assert bank.add("more", skill(), 1.0) is not None
    bank.close()


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_corrupt_file_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "b.sqlite"
    path.write_bytes(content)
    with pytest.raises(SkillSDError, match="not a usable skill bank") as error:
        SkillBank(path)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == content


def test_foreign_database_is_left_alone(tmp_path):
    path = tmp_path / "b.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE people (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(SkillSDError, match="not a skill bank"):
        SkillBank(path)
    assert path.read_bytes() == before


def test_a_folder_instead_of_a_file_is_refused(tmp_path):
    with pytest.raises(SkillSDError, match="not a usable skill bank"):
        SkillBank(tmp_path)


def test_threads_share_one_object(bank):
    def work(worker):
        for i in range(15):
            bank.add(f"t{worker % 2}", distinct(1000 * worker + i), 0.5)
            bank.retrieve(f"t{worker % 2}")
            bank.stats()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    stats = bank.stats()
    assert (stats.added + stats.duplicates, stats.retrievals, stats.skills) == (60, 60, 16)


def test_copies_taken_while_others_write_are_whole(tmp_path):
    bank = SkillBank(tmp_path / "b.sqlite", capacity=1000)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        writing = pool.submit(_work, tmp_path / "b.sqlite", 1)
        sizes = []
        while not writing.done():
            bank.backup(tmp_path / "copy.sqlite")
            copy = SkillBank(tmp_path / "copy.sqlite", capacity=1000)
            stats = copy.stats("t")
            assert stats.skills == stats.added
            assert stats.retrievals == sum(s.chosen for s in copy.skills("t"))
            sizes.append(stats.skills)
            copy.close()
        writing.result()
    assert sizes == sorted(sizes)
    bank.close()


def test_killed_again_and_again_the_bank_stays_sound(tmp_path):
    """Ten writers in turn, killed at arbitrary moments amid adding, evicting, choosing and crediting."""
    path = tmp_path / "b.sqlite"
    code = (
        "import itertools, sys\n"
        "from skillsd.skills import Skill, SkillBank\n"
        f"bank = SkillBank({str(path)!r}, capacity=4)\n"
        "for i in itertools.count():\n"
        "    text = f'{sys.argv[1]} {i} ' * 50\n"
        "    bank.add('t', Skill(success_analysis=text, mistake_analysis=text, golden_workflow=text), 0.5)\n"
        "    bank.credit(bank.retrieve('t').id, 1.0)\n"
        "    if not i: print('writing', flush=True)\n"
    )
    seen = 0
    for attempt in range(10):
        process = subprocess.Popen([sys.executable, "-c", code, str(attempt)], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "writing\n"
        time.sleep(0.03 + 0.007 * attempt)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        bank = SkillBank(path, capacity=4)
        stats = bank.stats("t")
        assert stats.skills == min(4, stats.added) == stats.added - stats.evicted
        assert 0 <= stats.added - stats.retrievals <= attempt + 1  # at most one add per kill went unanswered
        assert stats.added > seen
        seen = stats.added
        bank.close()
        with sqlite3.connect(path) as raw:
            assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_truncated_bank_is_told_in_one_line(tmp_path):
    path = tmp_path / "b.sqlite"
    bank = SkillBank(path, capacity=100)
    for i in range(50):
        bank.add("t", distinct(i), 0.5)
    bank.close()
    path.write_bytes(path.read_bytes()[:8192])

    def use():
        found = SkillBank(path)
        found.add("t", distinct(99), 0.5)
        found.skills()

    with pytest.raises(SkillSDError, match=r"b\.sqlite.*malformed") as error:
        use()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("pragma", ["user_version = 99", "application_id = 7"])
def test_a_bank_of_another_version_or_program_is_refused(tmp_path, pragma):
    path = tmp_path / "b.sqlite"
    SkillBank(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute(f"PRAGMA {pragma}")
    with pytest.raises(SkillSDError, match="not a skill bank of this version"):
        SkillBank(path)


def test_a_row_that_is_no_skill_is_named(tmp_path):
    path = tmp_path / "b.sqlite"
    bank = SkillBank(path)
    identifier = bank.add("t", skill(), 0.5)
    with sqlite3.connect(path) as raw:
        raw.execute("""UPDATE skills SET skill = '{"success_analysis": "a"}'""")
    for use in (lambda: bank.retrieve("t"), bank.skills, lambda: bank.add("t", distinct(1), 1.0)):
        with pytest.raises(SkillSDError, match=rf"skill {identifier} is corrupt.*mistake_analysis") as error:
            use()
        assert "\n" not in str(error.value)
    assert bank.stats("t").retrievals == 0  # nothing half done
    assert bank.add("u", distinct(1), 1.0) is not None
    bank.close()


@pytest.fixture
def unprivileged():
    """A folder that anyone may enter, and a user who is not root: root may write everywhere."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        user = os.geteuid()

        def leave():
            if user == 0:
                os.seteuid(65534)

        yield Path(folder), leave
        os.seteuid(user)


def test_a_read_only_bank_can_be_read(unprivileged):
    folder, leave = unprivileged
    bank = SkillBank(folder / "b.sqlite")
    identifier = bank.add("t", skill(), 0.5)
    bank.close()
    os.chmod(folder / "b.sqlite", 0o444)
    os.chmod(folder, 0o555)
    leave()
    bank = SkillBank(folder / "b.sqlite")
    assert [s.id for s in bank.skills()] == [identifier]
    with pytest.raises(SkillSDError, match=r"b\.sqlite: the skill bank failed.*readonly"):
        bank.retrieve("t")
    bank.close()
    with pytest.raises(SkillSDError, match=r"new\.sqlite: not a usable skill bank"):
        SkillBank(folder / "new.sqlite")


def test_a_copy_that_cannot_be_written_names_its_place(bank, tmp_path):
    with pytest.raises(SkillSDError, match=r"could not be copied to .*nowhere"):
        bank.backup(tmp_path / "nowhere" / "copy.sqlite")
    assert bank.add("t", skill(), 0.5) is not None


def test_a_full_disk_undoes_the_whole_operation(bank):
    bank.add("t", distinct(0), 0.5)
    pages = bank._db.execute("PRAGMA page_count").fetchone()[0]
    bank._db.execute(f"PRAGMA max_page_count = {pages}")
    before = bank.stats()
    with pytest.raises(SkillSDError, match="full") as error:
        bank.add("t", skill("a text that needs pages of its own " * 100), 0.5)
    assert "\n" not in str(error.value)
    assert bank.stats() == before
    bank._db.execute("PRAGMA max_page_count = 1000000")
    assert bank.add("t", skill(), 0.5) is not None
    bank.close()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1.7e308])
def test_a_reward_that_is_no_number_is_refused_and_the_bank_reads_on(bank, value):
    with pytest.raises(SkillSDError, match="reward must be a number"):
        bank.add("t", skill(), value)
    identifier = bank.add("t", skill(), 0.5)
    with pytest.raises(SkillSDError, match="credit must be a number"):
        bank.credit(identifier, value)
    assert bank.skills()[0].mean_reward == 0.5


def test_ids_that_sqlite_cannot_hold_are_refused_in_one_line(bank):
    for use in (
        lambda: bank.add("\ud800", skill(), 0.5),
        lambda: bank.retrieve("\ud800"),
        lambda: bank.credit(2**70, 1),
    ):
        with pytest.raises(SkillSDError, match="the skill bank failed"):
            use()
    assert bank.skills() == []


def test_no_room_for_skills_is_a_mistake(tmp_path):
    with pytest.raises(UsageError, match="capacity"):
        SkillBank(tmp_path / "b.sqlite", capacity=0)
    assert not (tmp_path / "b.sqlite").exists()

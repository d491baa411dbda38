"""Commands about skills: what a run learned, and what a teacher makes of it."""

from __future__ import annotations

import json
import math
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from skillsd.cli.common import Json, Set, console, foreign_prints, options_of, path, warning
from skillsd.errors import UsageError
from skillsd.skills.bank import SkillBank, StoredSkill
from skillsd.system.terminal import Screen, printable
from skillsd.types import Skill

skills_app = typer.Typer(no_args_is_help=True, help="Look at the skills that a run learned.")


@skills_app.command("list")
def skills_list(run: Annotated[Path, typer.Argument(help="Folder of a run.")], as_json: Json = False) -> None:
    """List a run's skills, a line each.

    Example: skillsd skills list runs/sokoban-demo
    """
    rows = [_skill_row(s) for s in _skills(run)]
    if as_json:
        print(json.dumps(rows))
        return
    table = Table("id", "task", "reward", "chosen", "mean", "from", "workflow", box=None)
    for row in rows:
        mean = "" if row["mean_reward"] is None else f"{row['mean_reward']:.2f}"
        table.add_row(str(row["id"]), row["task_id"], f"{row['reward']:.2f}", str(row["chosen"]), mean,
                      row["trajectory"] or "", row["skill"]["golden_workflow"][:80])  # fmt: skip
    Screen().print(table)


@skills_app.command("show")
def skills_show(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    skill_id: Annotated[int, typer.Argument(help="Number of the skill.")],
    as_json: Json = False,
) -> None:
    """Show one skill whole.

    Example: skillsd skills show runs/sokoban-demo 12
    """
    for stored in _skills(run):
        if stored.id == skill_id:
            print(json.dumps(_skill_row(stored)) if as_json else printable(stored.skill.text()))
            return
    raise UsageError(f"{run} has no skill {skill_id}")


@skills_app.command("export")
def skills_export(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    file: Annotated[Path | None, typer.Argument(help="JSON-lines file to write.", parser=path)] = None,
    format_: Annotated[Literal["jsonl", "agent-skills"], typer.Option("--format", help="agent-skills: SKILL.md")] = (
        "jsonl"
    ),
    out: Annotated[Path | None, typer.Option(help="File, or folder for agent-skills, to write.", parser=path)] = None,
) -> None:
    """Write all skills as JSON lines, or as folders in the Agent Skills format.

    Example: skillsd skills export runs/sokoban-demo --format agent-skills --out skills
    """
    from skillsd.skills.agent_skills import export_agent_skills

    target = out or file
    if target is None or (out and file):
        raise UsageError("name one file or folder to write: skillsd skills export RUN --out PATH")
    if format_ == "agent-skills":
        print(f"{export_agent_skills(_skills(run), target)} skills written to {target}")
        return
    rows = [_skill_row(s) for s in _skills(run)]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    try:
        target.write_text(lines, encoding="utf-8", errors="replace")
    except OSError as error:
        raise UsageError(f"{target}: cannot be written ({error}); choose another file") from None
    print(f"{len(rows)} skills written to {target}")


@skills_app.command("try")
def skills_try(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    trajectory: Annotated[
        str | None, typer.Option(help="ITERATION/TASK/SAMPLE; default: some of the last iteration.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most N trajectories.")] = 3,
    set_: Set = None,
    show_prompt: Annotated[bool, typer.Option("--show-prompt", help="Print the question too (LLMs only).")] = False,
    as_json: Json = False,
) -> None:
    """Try a summariser or a prompt on a run's trajectories. The run is not changed; nothing is taken from a cache.

    Example: skillsd skills try runs/demo --set skills.summarizer=openai --set summarizer.model=my-model
    --set summarizer.base_url=http://localhost:8000/v1
    """
    from skillsd.analysis.trial import attempt

    with foreign_prints(), console.status("summarising"):
        rows, counts = attempt(run, set_ or (), trajectory, limit, lambda text: console.print(text, markup=False))
    if as_json:
        print(json.dumps({"summaries": rows, **counts}))
    else:
        out = Screen(soft_wrap=True)
        for row in rows:
            result = "success" if row["success"] else "failure"
            out.print(f"{row['trajectory']}, {result}, completion {row['completion']:.0%}", style="bold")
            if show_prompt and row["prompt"]:
                out.print(row["prompt"], style="dim")
            out.print(f"no skill: {row['error']}" if row["error"] else Skill(**row["skill"]).text(), end="\n\n")
        out.print(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in counts.items()))
    if any(row["error"] for row in rows):
        raise typer.Exit(1)


def probe(
    model: Annotated[str, typer.Argument(help="The student: a run, a checkpoint, a model, or `embedded`.")],
    teacher: Annotated[str | None, typer.Option(help="Whose weights read the skills; default: the student's.")] = None,
    env: Annotated[str | None, typer.Option(help="Task set; default: the run's own.")] = None,
    env_option: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Option of --env.")] = None,
    split: Annotated[str | None, typer.Option(help="Default: the test split.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N tasks.")] = 64,
    samples: Annotated[int, typer.Option(min=2, help="Episodes a task that the student plays.")] = 8,
    set_: Set = None,
    as_json: Json = False,
) -> None:
    """Measure what the teacher knows: its accuracy with each kind of skill, and whether it tells good actions from bad.

    Skills are written by the run's summariser, or by --set skills.summarizer=...

    Example: skillsd probe runs/sokoban-demo --teacher embedded --limit 32
    """
    from transformers.utils.logging import disable_progress_bar

    from skillsd.analysis.evaluate import open_policy
    from skillsd.analysis.probe import USED, suitable
    from skillsd.analysis.probe import probe as run
    from skillsd.config import with_overrides
    from skillsd.config.overrides import only
    from skillsd.skills.summarize import make_summarizer

    def warn(text: str) -> None:
        console.print(text, style="yellow", markup=False)

    disable_progress_bar()
    only(set_ or (), USED, "probe")
    options = options_of(env_option) or None
    with foreign_prints(), console.status("loading") as status:
        student, taskset, config = open_policy(model, env=env, env_options=options)
        reader = open_policy(teacher, env=env, env_options=options)[0] if teacher else student
        split, given = split or config.env.test_split, set_ or ()
        config = with_overrides(config, given) if given else suitable(config, taskset, warn)
        readings = run(
            student, reader, taskset, config,
            make_summarizer(config.skills.summarizer, config, taskset=taskset, policy=student),
            split=split, limit=limit, samples=samples, on_part=status.update, warn=warn,
        )  # fmt: skip
    if as_json:
        print(json.dumps([asdict(r) for r in readings]))
        return
    table = Table("skill", "tasks", "accuracy", "rms l", "AUC of actions", "correlation", "AUC of episodes", box=None)
    for r in readings:
        numbers = (r.accuracy, r.l_rms, r.action_auc, r.action_correlation, r.episode_auc)
        table.add_row(r.kind, str(r.tasks), *("" if n is None else f"{n:.2f}" for n in numbers))
    Screen().print(table)


def explain(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    episode: Annotated[str | None, typer.Argument(help="ITERATION/TASK/SAMPLE; default: a late failure.")] = None,
    teacher: Annotated[str | None, typer.Option(help="Whose weights read the skill; default: as in the run.")] = None,
    as_json: Json = False,
) -> None:
    """Show an episode action by action: how likely the student, its teacher and the trained model find each.

    Example: skillsd explain runs/sokoban-demo
    """
    from rich.text import Text
    from transformers.utils.logging import disable_progress_bar

    from skillsd.analysis.explain import explain as run_it

    disable_progress_bar()
    with foreign_prints():
        found = run_it(run, episode, teacher)
    if as_json:
        tree = {"episode": found.trajectory.id, "prompt": found.trajectory.prompt, "success": found.trajectory.success}
        actions = [asdict(action) for action in found.actions]
        print(json.dumps({**tree, "skill": found.skill.model_dump(), "actions": actions}))
        return
    out = Screen()
    outcome = "solved" if found.trajectory.success else "not solved"
    out.print(f"episode {found.trajectory.id}, {outcome}\n\n{found.trajectory.prompt}\n\n{found.skill.text()}\n")
    table = Table("turn", "action", "good", "student", "teacher", "l", "trained", box=None)
    for turn, a in enumerate(found.actions, 1):
        good = "" if a.good is None else "yes" if a.good else "no"
        shares = [f"{math.exp(value):.0%}" for value in (a.then, a.teacher, a.now)]
        table.add_row(str(turn), Text(a.text), good, shares[0], shares[1], f"{a.then - a.teacher:+.2f}", shares[2])
    out.print(table)
    out.print("\nstudent: when it was sampled; teacher: with the skill; l = log student - log teacher; trained: now")


def _skills(run: Path) -> list[StoredSkill]:
    """A run's skills; damaged ones are told and left out."""
    from skillsd.runs.folder import RunDir

    path = RunDir(run).bank
    if not path.exists():
        raise UsageError(f"{run} holds no skill bank (skills.sqlite)")
    with closing(SkillBank(path, create=False)) as bank:
        return bank.skills(warn=warning)


def _skill_row(stored: StoredSkill) -> dict[str, Any]:
    source = stored.source
    return {
        "id": stored.id, "task_id": stored.task_id, "reward": stored.reward, "chosen": stored.chosen,
        "mean_reward": stored.mean_reward, "trajectory": source.trajectory_id if source else None,
        "iteration": source.iteration if source else None, "skill": stored.skill.model_dump(),
    }  # fmt: skip

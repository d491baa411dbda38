"""The command line: thin. Parse, call, print; exit with 0 (fine), 1 (failed) or 2 (bad usage).

Uses everything; heavy imports happen in the commands, so that --help is quick.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated, Any, NoReturn

import typer

from skillsd.cli import appworld, base_model, compare, doctor, env, evaluate, presets, skills, train, warm_up
from skillsd.cli.common import console
from skillsd.cli.streams import outlive_readers
from skillsd.errors import LONGEST, LONGEST_VALUE, SkillSDError, UsageError, one_line
from skillsd.system.interrupt import at_once, cut_short, exit_code

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Skill-SD: train multi-turn LLM agents with skill-conditioned self-distillation.\n\n"
    "Example: skillsd train sokoban-demo --out runs/demo",
)
app.command()(train.train)
app.command()(evaluate.evaluate)
app.command()(compare.compare)
app.command("warm-up")(warm_up.warm_up)
app.command()(skills.probe)
app.command()(skills.explain)
app.command()(presets.presets)
app.command()(env.play)
app.command()(evaluate.report)
app.command()(doctor.doctor)
app.add_typer(skills.skills_app, name="skills")
app.add_typer(env.env_app, name="env")
app.add_typer(appworld.appworld_app, name="appworld")
app.add_typer(base_model.base_model_app, name="base-model")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"skillsd {version('skillsd')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options before the command."""


#: What typer raises for a command line that it cannot read.
_WRONG: Any = typer.BadParameter.__base__


def main() -> NoReturn:
    """Entry point: errors that a user can mend become one line."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that spin cripple a busy machine
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    outlive_readers()
    try:
        with at_once():
            code = app(standalone_mode=False)
    except _WRONG as error:
        if any(len(word) > LONGEST_VALUE for word in sys.argv):  # it is repeated in the message
            error.message = one_line(error.message, LONGEST)
        error.show()
        sys.exit(error.exit_code)
    except UsageError as error:
        console.print(f"skillsd: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(2)
    except SkillSDError as error:
        console.print(f"skillsd: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        code = exit_code()
    except OSError as error:
        told = one_line(str(error), LONGEST)
        console.print(f"skillsd: {told}", style="red", markup=False, soft_wrap=True)
        sys.exit(2 if error.errno == errno.ENAMETOOLONG else 1)  # a name that no file can have is bad usage
    if cut_short():  # typer turns ``KeyboardInterrupt`` into an exit code of its own
        console.print("interrupted: what was finished is on disk (a run goes on with --resume)", markup=False)
        code = exit_code()
        exec("")  # forgets an interrupt that came where text was run (imports do that): Python would end by SIGINT
    sys.exit(code or 0)

"""The command line: its subcommands, and how it ends. Errors are one message, never a traceback."""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import Annotated, NoReturn

import typer

from medssl import __version__
from medssl.commands import data, hand_over, judge, learn
from medssl.errors import MedsslError, Stopped
from medssl.train.rank import has_the_word, refuse_several
from medssl.train.signals import STOPPING

app = typer.Typer(
    name="medssl", no_args_is_help=True, add_completion=False, rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="How many labels does pretraining save on my scans, and how sure are we? "
         "Start with [bold]medssl demo[/bold].",
)


for _command in (
    data.phantom, data.manifest, data.check, data.prepare, data.preview, learn.pretrain, learn.finetune, judge.probe,
    learn.curve, judge.evaluate, judge.robustness, judge.ood, judge.predict, judge.report, hand_over.export,
    learn.demo,
):
    app.command()(_command)


class _Interrupted(BaseException):
    """Ctrl-C, which typer would keep to itself, or another request to stop."""


def _interrupt(signum: int, frame: object) -> None:
    raise _Interrupted(signum)


def main() -> None:
    """Runs the command line; exit status 1 for an error that has a message, 128 + n when stopped by signal n.

    What it writes shows patients, if only their pixels: nobody outside of the owner's group may read it.
    """
    os.umask(os.umask(0o077) | 0o007)
    logging.basicConfig(format="medssl: %(message)s", level=logging.WARNING)
    for number in STOPPING:
        signal.signal(number, _interrupt)
    try:
        app()
    except Stopped as stopped:
        _end(stopped, 128 + stopped.signal)
    except MedsslError as error:
        _end(error, 1)
    except OSError as error:  # a full disk, a folder without permission, a folder where a file should be
        _end(f"{error.filename or 'a file'}: {error.strerror or error}. "
             "Remedy: see that the path is right, may be written to, and that its disk has room.", 1)
    except (_Interrupted, KeyboardInterrupt) as interrupted:
        _end("interrupted; the same command goes on from whatever was finished, and a training from its checkpoint",
             128 + next(iter(interrupted.args), signal.SIGINT))


def _end(message: object, status: int) -> NoReturn:
    has_word = has_the_word(asked=status > 128)
    for number in (signal.SIGTERM, signal.SIGUSR1):  # of srun, when another task has ended
        signal.signal(number, signal.SIG_IGN)
    if has_word:
        print(f"medssl: {message}", file=sys.stderr)
    sys.exit(status)


@app.callback(invoke_without_command=True)
def _begin(context: typer.Context,
           version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit
    if context.invoked_subcommand not in ("pretrain", "finetune"):
        refuse_several(f"medssl {context.invoked_subcommand}")

"""
The shape that all commands share: options, languages, exit codes.

Rules of this module:

1. ``--data``, ``--lang`` and ``--json`` are accepted by every command and by the program itself.
2. Help is a text's key, translated when it is shown; options too.
3. A `KagimoriError` becomes a sentence, a hint and an exit code; nothing else is ever caught, so
   a traceback always means a fault of ours.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, TypeVar

import click

from kagimori import errors
from kagimori.cli.output import Output
from kagimori.cli.texts import LANGUAGES, Texts, language_of_environment

F = TypeVar("F", bound=Callable[..., Any])

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_PERMANENT = 3
EXIT_NEXT_WAITS = 4
EXIT_NOT_PROPAGATED = 5
EXIT_REFUSED = 6
EXIT_NOT_FOUND = 7

_EXIT_CODES: tuple[tuple[type[errors.KagimoriError], int], ...] = (
    (errors.NextKeyWaitsError, EXIT_NEXT_WAITS),
    (errors.NotPropagatedError, EXIT_NOT_PROPAGATED),
    (errors.KeyStateError, EXIT_REFUSED),
    (errors.RefusedError, EXIT_REFUSED),
    (errors.NotFoundError, EXIT_NOT_FOUND),
    (errors.ConfigError, EXIT_PERMANENT),
    (errors.RingMissingError, EXIT_PERMANENT),
    (errors.RingUnreadableError, EXIT_PERMANENT),
    (errors.SchemaError, EXIT_PERMANENT),
    # A payload that does not open says nothing of the installation.
    (errors.ProtectionError, EXIT_FAILURE),
)


def exit_code(error: errors.KagimoriError) -> int:
    """
    Return the documented exit code of an error.
    """
    for kind, code in _EXIT_CODES:
        if isinstance(error, kind):
            return code
    transient = getattr(error, "transient", None)
    return EXIT_PERMANENT if transient is False else EXIT_FAILURE


class Session:
    """
    What one invocation of the program carries: language, output, data folder.
    """

    def __init__(self) -> None:
        self.language = language_of_environment()
        self.as_json = False
        self.data: str | None = None

    @property
    def texts(self) -> Texts:
        """
        The catalogue of the chosen language.
        """
        return Texts(self.language)

    @property
    def output(self) -> Output:
        """
        Where this invocation writes to.
        """
        return Output(self.texts, as_json=self.as_json)


def session(context: click.Context) -> Session:
    """
    Return the session of an invocation.
    """
    return context.ensure_object(Session)


def _take(context: click.Context, option: click.Parameter, value: Any) -> None:
    # Options of the program and of the command both land here; one left out says nothing.
    if value is None or value is False:
        return
    setattr(session(context), str(option.name), value)


class Option(click.Option):
    """
    An option whose help is a text's key.
    """

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """
        Return the option's line of help in the session's language.
        """
        record = super().get_help_record(ctx)
        if record is None or not self.help:
            return record
        name, shown = record
        texts = session(ctx).texts
        if texts.has(self.help):
            shown = shown.replace(self.help, texts(self.help))
        return name, shown


def shared_options() -> list[click.Parameter]:
    """
    Return fresh copies of the options that every command has.
    """
    return [
        Option(
            ["--data"],
            metavar="FOLDER",
            help="option.data",
            callback=_take,
            expose_value=False,
        ),
        Option(
            ["--lang", "language"],
            type=click.Choice(LANGUAGES),
            help="option.lang",
            callback=_take,
            expose_value=False,
            is_eager=True,
        ),
        Option(
            ["--json", "as_json"],
            is_flag=True,
            help="option.json",
            callback=_take,
            expose_value=False,
            is_eager=True,
        ),
    ]


class _Translated(click.Command):
    def format_help_text(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        key = self.help or ""
        texts = session(ctx).texts
        if texts.has(key):
            formatter.write_paragraph()
            with formatter.indentation():
                for paragraph in texts(key).split("\n\n"):
                    formatter.write_text(paragraph)
                    formatter.write_paragraph()

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        found = super().get_help_option(ctx)
        if found is not None:
            found.help = session(ctx).texts("help.help")
        return found

    def get_short_help_str(self, limit: int = 45) -> str:
        context = click.get_current_context(silent=True)
        texts = session(context).texts if context else Texts("en")
        key = self.help or ""
        return texts(key).split("\n")[0] if texts.has(key) else key


class Command(_Translated):
    """
    A command: shared options, translated help, errors as sentences.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(shared_options())

    def invoke(self, ctx: click.Context) -> Any:
        """
        Run the command; a `KagimoriError` ends the program with its exit code.
        """
        with reported(session(ctx)):
            return super().invoke(ctx)


class Group(_Translated, click.Group):
    """
    A group whose commands are imported when they are named, so that each starts fast.

    Args:
        modules: the module that holds each command, by the command's name.
    """

    command_class = Command

    def __init__(
        self, *args: Any, modules: dict[str, str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(shared_options())
        self._modules = modules or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """
        Return the names of all commands, those not yet imported too.
        """
        return [*self._modules, *super().list_commands(ctx)]

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """
        Write one line a command; none is imported for it.
        """
        texts = session(ctx).texts
        rows = [(name, texts(f"help.{name}")) for name in self._modules]
        rows += [
            (name, found.get_short_help_str())
            for name in super().list_commands(ctx)
            if (found := self.commands.get(name)) is not None
        ]
        with formatter.section(texts("help.commands")):
            formatter.write_dl(rows)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """
        Return a command, importing its module first.
        """
        if cmd_name in self._modules:
            module = importlib.import_module(self._modules[cmd_name])
            found: click.Command = module.command
            return found
        return super().get_command(ctx, cmd_name)


@contextlib.contextmanager
def reported(current: Session) -> Iterator[None]:
    """
    Turn a `KagimoriError` into a sentence, a hint and an exit code.
    """
    try:
        yield
    except errors.KagimoriError as error:
        fail(current, error)


def fail(current: Session, error: errors.KagimoriError) -> NoReturn:
    """
    Say what went wrong and end the program with the error's exit code.
    """
    text, hint = current.texts.error(error)
    if current.as_json:
        current.output.json(
            {
                "error": error.code,
                "text": error.text,
                "hint": error.hint,
                **error.params,
            }
        )
    current.output.error(text, hint)
    sys.exit(exit_code(error))


def confirm(
    context: click.Context,
    yes: bool,  # noqa: FBT001 - the value of --yes
    key: str,
    /,
    **params: object,
) -> None:
    """
    Ask before something is destroyed; without a terminal to ask on, `--yes` must say so.

    Raises:
        RefusedError: nobody can be asked, or the answer was no.
    """
    if yes:
        return
    current = session(context)
    question = current.texts(key, **params)
    if not sys.stdin.isatty():
        raise errors.RefusedError(
            question, hint=current.texts("confirm.hint"), detail="no terminal"
        )
    if not click.confirm(question, err=True):
        raise errors.RefusedError(current.texts("confirm.no"))


def option(*names: str, **attributes: Any) -> Callable[[F], F]:
    """
    Declare an option whose help is a text's key.
    """
    return click.option(*names, cls=Option, **attributes)


def group(name: str, modules: Sequence[tuple[str, str]] = ()) -> Group:
    """
    Return a group whose help is the text ``help.<name>``.
    """
    return Group(
        name,
        help=f"help.{name}",
        modules=dict(modules),
        no_args_is_help=True,
    )

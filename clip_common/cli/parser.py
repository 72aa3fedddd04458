"""The argument parser of all verbs and of `hub run`: argparse with one-line errors and stricter rules."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from .reporting import emit, one_line

_NEGATIVE = re.compile(r"-\d+|-\d*\.\d+")
_TRUE, _FALSE = ("true", "1"), ("false", "0")


def truth(text: str) -> bool:
    """The type of a flag: True or False."""
    if text.lower() not in (*_TRUE, *_FALSE):
        raise argparse.ArgumentTypeError(f"is {text!r}, expected True or False")
    return text.lower() in _TRUE


class _Help(argparse.HelpFormatter):
    """Help with a first column that is wide enough for the longest verb."""

    def format_help(self) -> str:
        self._action_max_length += self._indent_increment  # argparse forgets it for verbs
        return super().format_help()


class _StoreOnce(argparse._StoreAction):
    """Stores a value; a second, different one is an error, because it is unclear which of them is meant."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        first = parser.stored.setdefault(self.dest, values) if self.option_strings else values
        if first is not values and first != values:
            raise argparse.ArgumentError(self, "is given twice with different values: give it once")
        super().__call__(parser, namespace, values, option_string)


class Parser(argparse.ArgumentParser):
    """An argument parser with one-line errors, whose flags may be followed by a positional argument.

    An option that is given twice is an error unless its action is "append". A value may begin with `-`,
    because no option has a single `-` and more than one letter.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, formatter_class=_Help)
        self.stored: dict[str, Any] = {}
        for name in (None, "store"):
            self.register("action", name, _StoreOnce)

    def _print_message(self, message: str, file: Any = None) -> None:
        if message and file is sys.stdout:  # help: argparse would ignore a full disk
            emit(message.removesuffix("\n"))
        else:
            super()._print_message(message, file)

    def error(self, message: str) -> NoReturn:
        """Print the option, the fault and how to get help; exit with status 2."""
        self.exit(2, self.fault(message) + "\n")

    def fault(self, message: str) -> str:
        """The error as one line: `--top_k is 0` instead of argparse's `argument --top_k: is 0`."""
        if found := re.fullmatch(r"argument (\S+?)(?:/\S+)?: expected one argument", message):
            message += f"; if the value begins with --, write {found[1]}=--x"
        message = re.sub(r"^argument (\S+):( is )?", lambda found: found[1] + (found[2] or ":"), message)
        return one_line(self.prog, f"{message} (see {self.prog} --help)")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse arguments. A flag takes the next word only if it is True or False: `--use_gpu photo.jpg`."""
        self.stored = {}
        words = self._values_joined(list(sys.argv[1:] if args is None else args))
        flags = {name for action in self._actions if action.type is truth for name in action.option_strings}
        for i, word in enumerate(words):
            if word == "--":
                break
            self._refuse_blank(word, words[i + 1 : i + 2])
            if word in flags and words[i + 1 : i + 2] and words[i + 1].lower() not in (*_TRUE, *_FALSE):
                words[i] += "=True"
        return super().parse_known_args(words, namespace)

    def _values_joined(self, words: list[str]) -> list[str]:
        """Join values that begin with `-` to their options, as argparse requires: `--thresholds=-0.1,0.2`.

        Raises:
            SystemExit: a word that begins with `-` is neither an option nor the value of one.
        """
        if self._subparsers is not None:  # the options may be those of a verb
            return words
        joined: list[str] = []
        for i, word in enumerate(words):
            if word == "--":
                return joined + words[i:]
            begins = re.match("-[^-]", word) and not self._is_option(word)
            if begins and joined and self._takes_a_value(joined[-1]):
                joined[-1] += f"={word}"
            elif begins and " " not in word and not _NEGATIVE.fullmatch(word):  # argparse accepts these
                self.error(f"{word} is not an option; if it is a value, put -- before it: -- {word}")
            else:
                joined.append(word)
        return joined

    def _is_option(self, word: str) -> bool:
        return word in self._option_string_actions

    def _takes_a_value(self, word: str) -> bool:
        """Whether a word is an option, or an abbreviation that argparse accepts, that takes one value."""
        named = {
            id(action): action
            for name, action in self._option_string_actions.items()
            if word.startswith("--") and (name == word if self._is_option(word) else name.startswith(word))
        }
        return len(named) == 1 and all(action.nargs is None for action in named.values())

    def _refuse_blank(self, word: str, after: Sequence[str]) -> None:
        """Reject an option with a blank value, which is mostly an unset shell variable."""
        if word.startswith("--") and (word.endswith("=") or list(after) == [""]):
            option = word.removesuffix("=")
            if option != "--labels":  # checked later, with a message that names the label
                self.error(f"{option} is blank")

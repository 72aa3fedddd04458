"""`python -m clip_common`."""

import os
import sys


def _leave_out_the_current_folder() -> None:
    """With `-m`, Python imports from the current folder first: a `json.py` next to the images would be run.

    This file may only import modules that Python has imported before it.
    """
    try:
        current = os.getcwd()  # noqa: PTH109
    except OSError:  # it is gone
        return
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
    if sys.path[0] in ("", current) and os.path.realpath(current) != os.path.realpath(root):
        del sys.path[0]


def _main() -> int:
    _leave_out_the_current_folder()
    from .cli.main import main

    return main()


sys.exit(_main())

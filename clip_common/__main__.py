"""`python -m clip_common`."""

import os
import sys


def _leave_out_the_current_folder() -> None:
    """`-m` imports from there first, so that a `json.py` beside the images would be run.

    Python has imported what this needs before; nothing else may be imported above.
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

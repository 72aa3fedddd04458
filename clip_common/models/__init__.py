"""The CLIP models in paddle.nn. Layers above import Paddle lazily, and always through this package.

Importing it removes the signal handlers that Paddle installs: they call malloc, so a process that gets a
signal inside malloc would deadlock.
"""

import contextlib
import signal

import paddle


def _without_signal_handlers() -> None:
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    paddle.disable_signal_handler()
    for number, handler in handlers.items():
        # Restore the handlers of this process, which only its main thread may do.
        if handler not in (None, signal.SIG_DFL):
            with contextlib.suppress(ValueError):
                signal.signal(number, handler)


_without_signal_handlers()

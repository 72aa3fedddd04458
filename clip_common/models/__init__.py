"""The CLIP models in paddle.nn: the only place above which Paddle is imported lazily.

Whatever of this package imports Paddle imports this too, and so takes away the signal handlers that Paddle
installs: they call malloc, and a process that is ended inside malloc waits for its own lock for ever.
"""

import contextlib
import signal

import paddle


def _without_signal_handlers() -> None:
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    paddle.disable_signal_handler()
    for number, handler in handlers.items():
        # What this process had set itself; only its main thread may set it again.
        if handler not in (None, signal.SIG_DFL):
            with contextlib.suppress(ValueError):
                signal.signal(number, handler)


_without_signal_handlers()

"""How a fork that ran a script ends."""

import atexit
import os
import sys
import threading
from collections.abc import Callable
from typing import NoReturn


def end_with(script: Callable[[], object]) -> NoReturn:
    """Call `script` and end this process with its exit code, as Python would but for one thing.

    Threads are waited for, exit handlers run and outputs are flushed; but modules are left as they
    are. A fork shares all that was imported with its parent, and taking that apart, object by
    object, would first copy each page of it: longer than many of the scripts take.
    """
    code = 0
    try:
        script()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 0xFF)

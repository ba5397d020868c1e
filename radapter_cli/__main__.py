"""Where the command begins: before anything is imported that takes time."""

import sys
from typing import NoReturn

INTERRUPTED = 130


def run() -> NoReturn:
    """The console entry point; Ctrl-C is no traceback, however early."""
    try:
        from radapter_cli import main
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    main.run()


if __name__ == "__main__":
    run()

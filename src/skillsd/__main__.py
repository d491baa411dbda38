"""Where the command begins: as little as can be, so that ctrl-C during the imports shows no traceback either."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """``skillsd``, and ``python -m skillsd``."""
    try:
        from skillsd.cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()

"""`python -m vpn.agent`: the same as `atlas node run`, without the start-up time of the whole command line."""

from __future__ import annotations

import sys

from runtime import AtlasError
from vpn.agent.run import run

if __name__ == "__main__":
    try:
        run()
    except AtlasError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)

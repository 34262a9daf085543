"""The start screen can be acted on: it shows what it means to, and what it says to type next works as it stands."""

from __future__ import annotations

import re
import subprocess

import trio

from runtime.log import MASK
from tests.e2e.stack import READY, stack

BARE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


async def test_what_it_says_to_type_next_works_in_a_new_shell() -> None:
    async with stack({"PATH": BARE_PATH}, migrated=True) as here, here.running():
        screen = here.screen
        assert MASK not in screen, "a word of ours is taken for a secret"
        assert "telegram_updates  not needed: payments.telegram.token is not set" in screen
        assert re.search(r"storefront +not needed: payments.telegram.token is not set", screen)
        assert ", 2 not needed" in screen
        steps = screen.partition(READY)[2].partition("\n\n")[0].splitlines()
        assert len(steps) > 4
        typed = await trio.run_process(
            ["/bin/sh", "-e", "-c", "\n".join(steps)],
            env=here.env,
            cwd=here.home,
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
        )
        said = typed.stdout.decode()
        assert typed.returncode == 0, said
        assert "money-in 1: customer 42 has access until" in said
        assert "activation" in said, "the last step shows the tree"

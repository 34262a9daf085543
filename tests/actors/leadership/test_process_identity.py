"""A process is told from every other one, living or dead, on this machine and elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys

import attrs

from actors.leadership.process_identity import ProcessIdentity


def test_a_living_process_is_known_to_live_and_is_read_back_as_itself() -> None:
    own = ProcessIdentity.own()
    assert ProcessIdentity.parse(str(own)) == own
    assert own.pid == os.getpid()
    assert (own.lives_here(), own.has_ended()) == (True, False)


def test_a_process_that_was_killed_has_ended_even_before_its_parent_takes_note() -> None:
    code = "from actors.leadership.process_identity import ProcessIdentity; print(ProcessIdentity.own(), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        identity = ProcessIdentity.parse(child.stdout.readline().strip())
        assert identity is not None
        assert identity.lives_here()
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now, and stays one
        assert identity.has_ended()


def test_a_pid_that_was_given_to_somebody_else_is_not_the_process_that_had_it() -> None:
    own = ProcessIdentity.own()
    assert attrs.evolve(own, started=own.started - 1).has_ended()


def test_nobody_can_tell_about_another_machine_or_another_container() -> None:
    own = ProcessIdentity.own()
    for elsewhere in (attrs.evolve(own, boot_id="another"), attrs.evolve(own, namespace="pid:[1]", pid=2**22 - 1)):
        assert (elsewhere.has_ended(), elsewhere.lives_here()) == (False, False)


def test_anything_else_is_no_identity() -> None:
    for text in ("", "main", "a/b/c/d", "a/b/1", "a/b/1/x"):
        assert ProcessIdentity.parse(text) is None

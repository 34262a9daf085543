"""The command line's end of the control socket. Plain blocking sockets: it must work in a process without a loop."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

from runtime.control.protocol import UNAVAILABLE, ControlError, decode, encode
from runtime.control.socket import short_path

TIMEOUT = 10.0
"""Seconds that an answer may take unless told otherwise."""


class ControlUnreachable(ControlError):
    """The socket does not answer. Exit code 69."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"cannot reach the system: is `atlas run` running? socket {path}: {why}", UNAVAILABLE)


class ControlTimeout(ControlError):
    """The socket took the request and did not answer in time. Exit code 69."""

    def __init__(self, path: Path, command: str, seconds: float) -> None:
        text = (
            f"no answer to {command} within {seconds:g} s on socket {path}: the process lives, but its event loop does "
            "not turn or the command takes longer (--timeout changes this); its log says what blocks it"
        )
        super().__init__(text, UNAVAILABLE)


def call(
    socket_path: Path,
    command: str,
    *,
    timeout: float = TIMEOUT,
    token: str | None = None,
    config: Path | None = None,
    **arguments: object,
) -> object:
    """Run one command and return its result. With `token` as the operator whose token it is, else as this unix user.

    Arguments that are None are left out. A system that runs another configuration than `config` refuses. Raises
    ControlUnreachable, ControlTimeout, and ControlError with the system's own words and exit code when it refuses.
    """
    result: object = None
    for is_item, value in _lines(socket_path, command, timeout, timeout, (token, config), arguments):
        if not is_item:
            result = value
    return result


def stream(
    socket_path: Path,
    command: str,
    *,
    timeout: float = TIMEOUT,
    token: str | None = None,
    config: Path | None = None,
    **arguments: object,
) -> Iterator[object]:
    """Run one command that streams and yield its items as they come, however long that takes. Raises like `call`."""
    for is_item, value in _lines(socket_path, command, timeout, None, (token, config), arguments):
        if is_item:
            yield value


def _lines(
    path: Path,
    command: str,
    connecting: float,
    waiting: float | None,
    caller: tuple[str | None, Path | None],
    arguments: dict[str, object],
) -> Iterator[tuple[bool, object]]:
    given = {name: value for name, value in arguments.items() if value is not None}
    token, config = caller
    request = {"command": command, "arguments": given} | ({} if token is None else {"token": token})
    if config is not None:
        request["config"] = str(config.resolve())
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(connecting)
        try:
            with short_path(path) as within_the_limit:
                connection.connect(within_the_limit)
            connection.sendall(encode(request))
        except TimeoutError as error:
            raise ControlTimeout(path, command, connecting) from error
        except OSError as error:
            raise ControlUnreachable(path, error.strerror or str(error)) from error
        connection.settimeout(waiting)
        with connection.makefile("rb") as answers:
            while True:
                try:
                    line = answers.readline()
                except TimeoutError as error:
                    raise ControlTimeout(path, command, waiting or 0.0) from error
                except OSError as error:
                    raise ControlUnreachable(path, error.strerror or str(error)) from error
                if not line:
                    raise ControlUnreachable(path, f"it hung up before it answered {command}")
                answer = decode(line)
                if "error" in answer:
                    error_told = answer["error"]
                    raise ControlError(str(error_told["message"]), int(error_told["exit_code"]))
                yield "item" in answer, answer.get("item", answer.get("result"))
                if "result" in answer:
                    return

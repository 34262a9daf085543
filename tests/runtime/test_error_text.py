"""Errors as text: bounded, redacted, and never an error of their own, whatever was raised."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from runtime.error_text import MAX_ERRORS, MAX_LEAVES, MAX_LINE, MAX_TEXT, error_text, leaves, message_of, summarise

KEY = "0f4cd2ab-1f8e-4f6a-9d25-7d3a2b1c0e9f"


class Unprintable(Exception):
    def __str__(self) -> str:
        raise SystemExit("no text")


class Interrupting(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt

    __repr__ = __str__


class NoString(Exception):
    def __str__(self) -> str:
        return 3  # type: ignore[return-value]  # that is what is wrong with it


class Liar(ExceptionGroup[Exception]):
    @property
    def exceptions(self) -> tuple[Exception, ...]:
        raise SystemExit


class Meta(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]  # as above
        raise KeyboardInterrupt


class Nameless(Exception, metaclass=Meta):
    pass


def caught(raise_it: Callable[[], None]) -> BaseException:
    try:
        raise_it()
    except BaseException as error:  # noqa: BLE001  # whatever it is
        return error
    raise AssertionError("it raised nothing")


def raise_chain(length: int) -> None:
    error: Exception = ValueError("the first")
    for number in range(length):
        following = ValueError(str(number))
        following.__cause__ = error
        error = following
    raise error


def nested(depth: int) -> BaseException:
    error: Exception = ValueError("innermost")
    for _ in range(depth):
        error = ExceptionGroup("around", [error])
    return error


def recurse() -> None:
    recurse()


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("no"), "ValueError: no"),
        (ValueError(), "ValueError"),
        (KeyError("teller"), "KeyError: 'teller'"),
        (ValueError(1, "b"), "ValueError: (1, 'b')"),
        (ValueError("two\nlines"), "ValueError: two\\nlines"),
        (FileNotFoundError(2, "No such file", "x"), "FileNotFoundError: [Errno 2] No such file: 'x'"),
        (ExceptionGroup("g", [ValueError(), ValueError()]), "ExceptionGroup: g (2 sub-exceptions)"),
        (Unprintable(), "Unprintable: <its text cannot be shown: SystemExit>"),
        (Interrupting(), "Interrupting: <its text cannot be shown: KeyboardInterrupt>"),
        (ValueError(Interrupting()), "ValueError: <Interrupting that cannot be shown: KeyboardInterrupt>"),
        (NoString(), "NoString: <its text cannot be shown: TypeError>"),
        (Nameless("x"), "Nameless: x"),
        (ValueError(f"key {KEY}"), "ValueError: key 0f4cd2ab…"),
        (ValueError("password=hunter2"), "ValueError: password=***"),
    ],
)
def test_an_error_is_one_line_with_no_secret_in_it(error: BaseException, text: str) -> None:
    assert error_text(error) == text
    assert text.split("\\n")[0] in "\n".join(summarise(error).lines())


@pytest.mark.parametrize(
    "make",
    [
        lambda: ValueError("x" * 300_000_000),
        lambda: ValueError(10**3_000_000),
        lambda: KeyError("x" * 100_000_000),
        lambda: ValueError(list(range(5_000_000))),
        lambda: ExceptionGroup("x" * 50_000_000, [ValueError(number) for number in range(200_000)]),
        lambda: nested(50_000),
        lambda: caught(lambda: raise_chain(200_000)),
        lambda: caught(recurse),
        lambda: Liar("g", [ValueError("inside")]),
    ],
)
def test_no_size_of_an_error_makes_its_text_long_or_slow(make: Callable[[], BaseException]) -> None:
    error = make()
    began = time.process_time()
    line, whole = error_text(error), "\n".join(summarise(error).lines())
    found = sum(1 for _ in leaves(error))
    assert time.process_time() - began < 0.5
    assert len(line) < MAX_LINE + 100
    assert len(whole) < 2 * MAX_ERRORS * MAX_TEXT
    assert found >= 0


def test_a_secret_at_the_cut_is_not_shown_by_half() -> None:
    for shift in range(60):
        text = error_text(ValueError("-" * (MAX_LINE + 1_024 - shift) + KEY + "-" * 5_000))
        assert KEY[:13] not in text
        assert KEY[:13] not in message_of(ValueError("password=a " * 300 + "-" * shift + KEY + "-" * 5_000), 2_300)


def test_causes_and_contexts_come_first_as_python_shows_them() -> None:
    def fail() -> None:
        try:
            try:
                raise KeyError("inner")  # noqa: TRY301  # what is tested is this
            except KeyError:
                raise ValueError("middle")  # noqa: B904  # the context is what is tested
        except ValueError as error:
            error.add_note("a note")
            raise RuntimeError("outer") from error

    lines = list(summarise(caught(fail)).lines())
    found = [line for line in lines if not line.startswith(" ") and line]
    assert found == [
        "Traceback (most recent call last):",
        "KeyError: 'inner'",
        "During handling of the above exception, another exception occurred:",
        "Traceback (most recent call last):",
        "ValueError: middle",
        "a note",
        "The above exception was the direct cause of the following exception:",
        "Traceback (most recent call last):",
        "RuntimeError: outer",
    ]
    assert any(line.strip().startswith('raise KeyError("inner")') for line in lines)


def test_a_group_shows_its_leaves_and_where_the_first_was_raised() -> None:
    def leaf(number: int) -> ValueError:
        def fail() -> None:
            raise ValueError(f"leaf {number}")

        error = caught(fail)
        assert isinstance(error, ValueError)
        return error

    count = MAX_LEAVES + 5
    summary = summarise(ExceptionGroup("many", [leaf(number) for number in range(count)]))
    text = "\n".join(summary.lines())
    assert "  | ValueError: leaf 0" in text
    assert f"  +---------------- {count - MAX_LEAVES} more are not shown" in text
    assert summary.where.endswith("leaf.<locals>.fail")


def test_an_error_in_a_circle_of_causes_is_shown_once() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    text = "\n".join(summarise(first).lines())
    assert (text.count("ValueError: first"), text.count("ValueError: second")) == (1, 1)


def test_a_recursion_shows_both_of_its_ends() -> None:
    summary = summarise(caught(recurse))
    assert summary.left_out > 900
    lines = list(summary.lines())
    assert f"  … {summary.left_out} frames are not shown" in lines
    assert lines[-1].startswith("RecursionError: maximum recursion depth exceeded")

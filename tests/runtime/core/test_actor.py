from __future__ import annotations

import attrs
import pytest

from runtime.core.actor import Actor, handler, reply_type
from runtime.core.ask import Deferred
from runtime.message import Message, Postponed, Request


@attrs.frozen
class Plain(Message):
    pass


@attrs.frozen
class Ask(Request[int]):
    pass


@attrs.frozen
class AskNothing(Request[None]):
    pass


@attrs.frozen
class AskEither(Request[int | str]):
    pass


# S-101
def test_the_table_holds_every_handler_by_its_message_type() -> None:
    @attrs.define(eq=False)
    class Good(Actor):
        @handler
        async def plain(self, message: Plain) -> None: ...

        @handler
        async def ask(self, message: Ask) -> int:
            return 1

        @handler
        async def either(self, message: AskEither) -> int | str | Deferred[int | str]:
            return 1

        @handler
        async def nothing(self, message: AskNothing) -> None: ...

    assert set(Good.handlers) == {Plain, Ask, AskEither, AskNothing}


# S-101
def test_a_handler_may_defer_or_postpone() -> None:
    @attrs.define(eq=False)
    class Good(Actor):
        @handler
        async def plain(self, message: Plain) -> Postponed | None: ...

        @handler
        async def ask(self, message: Ask) -> int | Deferred[int] | Postponed:
            return 1

    class Later(Good):
        @handler
        async def ask(self, message: Ask) -> Deferred[int]:  # narrower is what is meant
            return self.context.defer(message)

    assert Later.handlers[Ask] is Later.__dict__["ask"]
    assert Later.handlers[Plain] is Good.handlers[Plain]


def test_handlers_without_an_await_are_told_apart() -> None:
    class Mixed(Actor):
        @handler
        async def instant(self, message: Plain) -> None:
            del message

        @handler
        async def waits(self, message: Ask) -> int:
            async with self.context.services.config:  # type: ignore[attr-defined]  # never run
                return 1

    assert set(Mixed.instant_handlers) == {Plain}


# S-102
def test_two_handlers_for_one_message_are_an_error_when_the_class_is_made() -> None:
    with pytest.raises(TypeError, match="two handlers for Plain: one and two"):

        class Twice(Actor):
            @handler
            async def one(self, message: Plain) -> None: ...

            @handler
            async def two(self, message: Plain) -> None: ...


def test_a_second_handler_in_a_subclass_under_another_name_is_an_error() -> None:
    class Base(Actor):
        @handler
        async def one(self, message: Plain) -> None: ...

    with pytest.raises(TypeError, match="two handlers for Plain"):

        class Sub(Base):
            @handler
            async def two(self, message: Plain) -> None: ...


def test_a_method_that_overrides_a_handler_without_being_one_removes_it() -> None:
    class Base(Actor):
        @handler
        async def one(self, message: Plain) -> None: ...

    class Sub(Base):
        async def one(self, message: Plain) -> None: ...

    assert Plain not in Sub.handlers


# S-102
def test_an_argument_that_is_no_message_is_an_error() -> None:
    with pytest.raises(TypeError, match="must be annotated with a Message"):

        class Bad(Actor):
            @handler
            async def one(self, message: int) -> None: ...


def test_a_missing_annotation_is_an_error() -> None:
    with pytest.raises(TypeError, match="must be annotated with a Message"):

        class Bad(Actor):
            @handler
            async def one(self, message): ...  # type: ignore[no-untyped-def]  # that is the case


# S-102
def test_a_missing_reply_type_is_an_error() -> None:
    with pytest.raises(TypeError, match="reply type is missing"):

        class Bad(Actor):
            @handler
            async def one(self, message: Ask): ...  # type: ignore[no-untyped-def]  # that is the case


# S-102
@pytest.mark.parametrize("annotation", ["str", "int | str", "None", "Deferred[str]", "Postponed"])
def test_a_reply_type_that_is_not_the_requests_is_an_error(annotation: str) -> None:
    async def one(self: Actor, message: Ask) -> object:
        return message

    one.__annotations__["return"] = annotation
    with pytest.raises(TypeError, match="Ask is answered with 'int'"):
        type("Bad", (Actor,), {"one": handler(one)})


def test_a_plain_message_has_no_reply() -> None:
    with pytest.raises(TypeError, match="Plain is answered with 'NoneType'"):

        class Bad(Actor):
            @handler
            async def one(self, message: Plain) -> int:
                return 1


def test_an_annotation_that_cannot_be_resolved_is_an_error() -> None:
    async def one(self: Actor, message: Ask) -> int:
        return len(str(message))

    one.__annotations__["message"] = "Nowhere"
    with pytest.raises(TypeError, match="cannot resolve its annotations"):
        type("Bad", (Actor,), {"one": handler(one)})


# S-102
def test_a_handler_must_be_async() -> None:
    with pytest.raises(TypeError, match="must be `async def`"):

        class Bad(Actor):
            @handler  # type: ignore[type-var]  # that is the case
            def one(self, message: Plain) -> None: ...


# S-102
def test_a_handler_takes_the_message_and_nothing_else() -> None:
    with pytest.raises(TypeError, match="exactly one argument"):

        class Bad(Actor):
            @handler
            async def one(self, message: Plain, more: int) -> None: ...


def test_a_request_names_its_reply_type() -> None:
    class Nameless(Request):  # type: ignore[type-arg]  # that is the case
        pass

    assert reply_type(Ask) is int
    assert reply_type(AskNothing) is type(None)
    assert reply_type(Plain) is type(None)
    with pytest.raises(TypeError, match="must name its reply type"):
        reply_type(Nameless)

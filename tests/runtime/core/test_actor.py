from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import attrs
import pytest
import trio

from runtime.child import ChildSpec
from runtime.config.errors import ConfigErrors
from runtime.config.loader import load_text
from runtime.core.actor import Actor, handler, reply_type
from runtime.core.address import Address
from runtime.core.ask import Deferred
from runtime.core.services import Services
from runtime.core.worker import PeriodicWorker
from runtime.message import Message, Postponed, Request
from runtime.supervision.supervisor import SpecError, Supervisor
from runtime.testing.system import actor_system


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


def test_what_overrides_a_handler_without_being_a_method_removes_it() -> None:
    class Base(Actor):
        @handler
        async def one(self, message: Plain) -> None: ...

    class Sub(Base):
        one = None  # type: ignore[assignment]  # that is the case

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


# S-419
def test_a_public_coroutine_method_that_takes_a_message_is_a_forgotten_handler() -> None:
    with pytest.raises(TypeError, match=r"Bad\.plain takes a Plain and is no handler: put @handler above it"):

        @attrs.define(eq=False)
        class Bad(Actor):
            async def plain(self, message: Plain) -> None: ...

    @attrs.frozen
    class Here(Message):
        """Known inside this function alone."""

    with pytest.raises(TypeError, match=r"Bad\.here takes a Here and is no handler"):

        @attrs.define(eq=False)
        class AlsoBad(Actor):
            async def here(self, message: Here) -> None: ...

    @attrs.define(eq=False)
    class Parent(Actor):
        @handler
        async def plain(self, message: Plain) -> None: ...

    with pytest.raises(TypeError, match=r"Child\.plain takes a Plain and is no handler"):

        @attrs.define(eq=False)
        class Child(Parent):
            async def plain(self, message: Plain) -> None: ...

    @attrs.define(eq=False)
    class Good(Actor):
        async def _plain(self, message: Plain) -> None: ...

        async def anything(self, message: Message) -> None: ...

        async def two(self, message: Plain, more: int) -> None: ...

        async def unknown(self, message: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821  # that is the case

        def look(self, message: Plain) -> None: ...

    assert Good.handlers == {}


# S-419
@pytest.mark.parametrize("make", [list, dict, set, bytearray, trio.Event])
def test_one_mutable_object_for_all_incarnations_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(TypeError, match=rf"Bad\.state has one {make().__class__.__name__} as its default, .*factory=…"):

        @attrs.define(eq=False)
        class Bad(Actor):
            state: object = attrs.field(init=False, default=make())

    @attrs.define(eq=False)
    class Good(Actor):
        state: object = attrs.field(init=False, factory=make)
        number: int = 3
        names: tuple[str, ...] = ()

    @attrs.define(eq=False)
    class Better(Good):
        more: str = ""

    assert Better().state is not Better().state


# S-419
@pytest.mark.parametrize("hook", ["on_start", "after_start", "on_stop"])
def test_a_hook_that_is_waited_for_must_be_async_and_the_others_must_not(hook: str) -> None:
    with pytest.raises(TypeError, match=rf"Bad\.{hook} must be `async def`"):
        type("Bad", (Actor,), {hook: lambda self, *_: None})
    for other in ("inspect", "on_undelivered", "check_configuration"):

        async def wrong(self: Actor) -> None: ...

        with pytest.raises(TypeError, match=rf"Bad\.{other} must be `def`, not `async def`"):
            type("Bad", (Actor,), {other: wrong})
    with pytest.raises(TypeError, match="iterate must be `async def`"):
        type("Bad", (PeriodicWorker,), {"iterate": lambda self, budget: None})


class Forgotten(Actor):
    """Has fields, and no @attrs.define."""

    start: int
    state: list[int] = attrs.field(factory=list)
    shared: ClassVar[int] = 0


class Fieldless(Actor):
    """Needs none."""

    shared: ClassVar[int] = 0


# S-420
@pytest.mark.parametrize("make", [Forgotten, lambda: Forgotten()])
async def test_fields_without_attrs_define_are_refused_with_the_spec(make: Callable[[], Actor]) -> None:
    spec = ChildSpec("a", lambda: Address("a", make, Services()))
    wrong = r"the spec 'a' is of no use: .*Forgotten is not an attrs class: put @attrs\.define above .* share its start, state"
    with pytest.raises(SpecError, match=wrong):
        Supervisor("top", [spec])
    Supervisor("top", [ChildSpec("a", lambda: Address("a", Fieldless, Services()))])
    async with actor_system() as system:
        with pytest.raises(TypeError, match=r"put @attrs\.define above class Forgotten"):
            await system.start(Forgotten(), name="a")


# S-420
def test_a_configuration_that_names_such_a_class_is_refused() -> None:
    with pytest.raises(
        ConfigErrors, match=r"actor\.a\.actor: .*Forgotten is not an attrs class: put @attrs\.define above"
    ):
        load_text(f'[actor.a]\nactor = "{__name__}:Forgotten"\n')
    assert load_text(f'[actor.a]\nactor = "{__name__}:Fieldless"\n').children[0].actor is Fieldless

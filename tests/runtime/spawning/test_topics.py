"""Announcements between actors: published by one, told to all that subscribed."""

from __future__ import annotations

import attrs
import pytest
import trio.testing

from runtime.core.actor import Actor, handler
from runtime.core.ref import Ref
from runtime.message import Message, Request
from runtime.testing.system import OnCrash, actor_system


@attrs.frozen
class News(Message):
    text: str


@attrs.frozen
class GoodNews(News):
    """A kind of News."""


@attrs.frozen
class Unheard(Message):
    """No actor has a handler for it."""


@attrs.frozen
class Publish(Request[int]):
    news: Message


@attrs.frozen
class Heard(Request[tuple[str, ...]]):
    """What was heard."""


@attrs.frozen
class Leave(Request[None]):
    """Hear no more."""


@attrs.define(eq=False)
class Reader(Actor):
    wants: type[Message] = News
    heard: list[str] = attrs.field(init=False, factory=list)

    async def on_start(self) -> None:
        self.context.subscribe(self.wants)
        self.context.subscribe(GoodNews)

    @handler
    async def news(self, message: News) -> None:
        self.heard.append(message.text)

    @handler
    async def good_news(self, message: GoodNews) -> None:
        self.heard.append(message.text.upper())

    @handler
    async def get_heard(self, _: Heard) -> tuple[str, ...]:
        return tuple(self.heard)

    @handler
    async def leave(self, _: Leave) -> None:
        self.context.unsubscribe(News)


@attrs.define(eq=False)
class Writer(Actor):
    @handler
    async def write(self, message: Publish) -> int:
        return self.context.publish(message.news)


async def published(writer: Ref, news: Message) -> int:
    return await writer.ask(Publish(news), within=1)


# S-1210
async def test_what_is_published_is_told_once_to_each_that_subscribed_to_its_type() -> None:
    async with actor_system() as system:
        writer = await system.start(Writer())
        readers = [await system.start(Reader(), name=name) for name in ("a", "b")]
        assert (await published(writer, News("x")), await published(writer, GoodNews("y"))) == (2, 2)
        assert [await reader.ask(Heard(), within=1) for reader in readers] == [("x", "Y")] * 2
        await readers[0].ask(Leave(), within=1)
        assert await published(writer, News("z")) == 1
        assert await published(writer, Unheard()) == 0


# S-1210
async def test_a_subscription_ends_with_the_incarnation_and_the_next_one_subscribes_anew() -> None:
    async with actor_system() as system:
        writer = await system.start(Writer())
        reader = await system.start(Reader(), name="a", on_crash=OnCrash.RESTART)
        await system.kill(reader)
        await system.up(reader, 2)
        assert await published(writer, News("x")) == 1
        await system.stop(reader)
        assert (await published(writer, News("x")), system.services.topics.count(News)) == (0, 0)


# S-1210
async def test_one_whose_mailbox_is_full_loses_it_to_the_dead_letters_and_holds_up_nobody() -> None:
    async with actor_system() as system:
        writer = await system.start(Writer())
        await system.start(Reader(), name="a", capacity=1)
        await system.start(Reader(), name="b")
        publish = system.services.topics.publish
        assert (publish(News("1")), publish(News("2"))) == (2, 1)
        letters = system.services.deadletters.recent()
        assert [(letter.actor, letter.message) for letter in letters] == [("a", "News")]
        await trio.testing.wait_all_tasks_blocked()
        assert await published(writer, News("3")) == 2


# S-1210
async def test_subscribing_without_a_handler_is_refused() -> None:
    async with actor_system() as system:
        with pytest.raises(TypeError, match="Reader has no handler for Unheard"):
            await system.start(Reader(wants=Unheard))

"""A small tree that keeps books, under a real supervisor: what a chaos monkey is let loose on."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from runtime.child import ChildSpec, GiveUp, StopCause, StopReason
from runtime.core.actor import Actor, handler
from runtime.core.address import Address
from runtime.core.ask import Deferred
from runtime.core.ref import Ref
from runtime.core.services import Services
from runtime.errors import ActorCrashed, ActorRestarting, AskError
from runtime.events import EventBus
from runtime.message import Delivery, Message, Request
from runtime.supervision.supervisor import Supervisor

AUDIT_EVERY = 10.0
REFUSED = -1


@attrs.define(eq=False)
class Book:
    """What outlives every incarnation: the test's database."""

    sent: Counter[str] = attrs.field(factory=Counter)
    """Postings told to the ledger, by who told them."""
    written: defaultdict[str, list[int]] = attrs.field(factory=lambda: defaultdict(list))
    """Numbers of postings in the order in which they were written, by who told them."""
    running: Counter[str] = attrs.field(factory=Counter)
    twice: list[str] = attrs.field(factory=list)
    """Who was seen in two incarnations at once."""

    @property
    def lines(self) -> int:
        """All postings written."""
        return sum(len(numbers) for numbers in self.written.values())

    def post(self, ledger: Ref, sender: str) -> None:
        """Tell the ledger the sender's next posting."""
        if ledger.tell(Post(sender, self.sent[sender] + 1)) is Delivery.ACCEPTED:
            self.sent[sender] += 1


@attrs.frozen
class Post(Message):
    """Write this down."""

    sender: str
    number: int


@attrs.frozen
class CountLines(Request[int]):
    """How many postings are written."""


@attrs.frozen
class Buy(Request[int]):
    """Answered with the number of lines before the purchase, or REFUSED."""


@attrs.frozen
class Audit(Request[int]):
    """Answered later, by a task."""


@attrs.define(eq=False)
class Ledger(Actor):
    """Role: writes postings into the book. Owns nothing. On crash: the posting in hand is written or lost, never both."""

    book: Book

    @handler
    async def post(self, message: Post) -> None:
        """Write."""
        self.book.written[message.sender].append(message.number)
        self.context.failpoint("written")
        await trio.lowlevel.checkpoint()

    @handler
    async def count(self, _: CountLines) -> int:
        """Answer."""
        return self.book.lines


@attrs.define(eq=False)
class Desk(Actor):
    """Role: sells. Owns nothing. On crash: the purchase in hand may or may not have been posted."""

    book: Book

    @handler
    async def buy(self, _: Buy) -> int:
        """Ask the ledger, then post."""
        ledger = self.context.lookup("ledger")
        try:
            lines = await ledger.ask(CountLines(), within=5)
        except AskError:
            return REFUSED
        self.book.post(ledger, "desk")
        return lines


@attrs.define(eq=False)
class Auditor(Actor):
    """Role: counts now and then, and when asked. Owns two kinds of tasks. On crash: audits going on are lost."""

    async def on_start(self) -> None:
        """Begin to count now and then."""
        self.context.start_task(self._routine, name="routine")

    @handler
    async def audit(self, message: Audit) -> Deferred[int]:
        """Leave it to a task."""
        deferred = self.context.defer(message)
        self.context.start_task(self._answer, deferred, name="answer")
        return deferred

    async def _routine(self) -> None:
        while True:
            await trio.sleep(AUDIT_EVERY)  # rule-ok: an actor's own routine
            await self._count()

    async def _answer(self, deferred: Deferred[int]) -> None:
        deferred.reply(await self._count())

    async def _count(self) -> int:
        try:
            return await self.context.lookup("ledger").ask(CountLines(), within=5)
        except AskError:
            return REFUSED


class WatchedAddress(Address):
    """Notes in the book when it runs twice at once."""

    __slots__ = ("_book",)

    def __init__(self, name: str, actor: Actor, services: Services, book: Book) -> None:
        super().__init__(name, lambda: attrs.evolve(actor), services)
        self._book = book

    async def run(self, incarnation: int, *, task_status: trio.TaskStatus[None]) -> None:
        self._book.running[self.name] += 1
        if self._book.running[self.name] > 1:
            self._book.twice.append(f"{self.name}#{incarnation}")
        try:
            await super().run(incarnation, task_status=task_status)
        finally:
            self._book.running[self.name] -= 1


@attrs.define(eq=False)
class LedgerTree:
    """The running tree, and one round of work for it."""

    services: Services
    book: Book
    outcomes: list[tuple[str, float]] = attrs.field(factory=list)
    """Of each ask: what became of it, and the seconds that took."""

    def ref(self, name: str) -> Ref:
        """By name."""
        return self.services.registry.lookup(name)

    async def work(self) -> None:
        """Postings told by two senders, and six asks beside them."""
        async with trio.open_nursery() as nursery:
            for sender in ("anna", "bert"):
                nursery.start_soon(self._tell, sender)
            for _ in range(2):
                nursery.start_soon(self._ask, "desk", Buy())
                nursery.start_soon(self._ask, "auditor", Audit())
                nursery.start_soon(self._ask, "ledger", CountLines())

    async def _tell(self, sender: str) -> None:
        for _ in range(5):
            self.book.post(self.ref("ledger"), sender)
            await trio.lowlevel.checkpoint()

    async def _ask(self, name: str, message: Request[int]) -> None:
        began = trio.current_time()
        try:
            outcome = "answered" if await self.ref(name).ask(message, within=30) != REFUSED else "refused"
        except (ActorCrashed, ActorRestarting) as error:
            outcome = type(error).__name__
        self.outcomes.append((outcome, trio.current_time() - began))


@asynccontextmanager
async def ledger_tree() -> AsyncIterator[LedgerTree]:
    """Ledger, desk and auditor under one supervisor with the default backoff, which never gives up."""
    services, book = Services(events=EventBus(ring=10_000, log=None)), Book()
    addresses = [
        WatchedAddress(name, actor, services, book)
        for name, actor in {"ledger": Ledger(book), "desk": Desk(book), "auditor": Auditor()}.items()
    ]
    for address in addresses:
        services.registry.add(address)
    specs = [
        ChildSpec(address.name, lambda address=address: address, give_up=GiveUp.NEVER)  # type: ignore[misc]  # as mypy sees it
        for address in addresses
    ]
    supervisor = Supervisor("books", specs, emit=services.events.emit)
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run, 1)
        yield LedgerTree(services, book)
        supervisor.request_stop(StopReason(StopCause.SHUTDOWN, "the test is over"))

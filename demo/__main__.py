"""`python -m demo [--seed N] [--customers N] [--quick]`: a month of the shop on the real stack, and whether it all adds up."""

from __future__ import annotations

import secrets
import signal
import sys
import time
from typing import Final

import click
import httpx
import trio
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from demo.actions import ActionRunner
from demo.customers import Population, make_population
from demo.database import DemoDatabase, open_database
from demo.errors import DemoFailed
from demo.figures import fact, read_figures
from demo.front_end import FrontEnd
from demo.installation import Installation, installation
from demo.model import Model
from demo.month import Month
from demo.packets import site
from demo.providers import providers
from demo.summary import WIDTH, differences, show
from runtime import unwrap_group

CUSTOMERS: Final = 150
QUICK_CUSTOMERS: Final = 13
WRONG: Final = 1
_SHOWN_ERRORS: Final = 10
INTERRUPTED: Final = 130
VIOLATED: Final = 65


@click.command()
@click.option("--seed", type=int, default=1, show_default=True, help="Decides who comes and what they do.")
@click.option("--customers", type=click.IntRange(min=2), help=f"How many come.  [default: {CUSTOMERS}]")
@click.option("--quick", is_flag=True, help=f"Only {QUICK_CUSTOMERS} customers.")
def main(seed: int, customers: int | None, quick: bool) -> None:
    """Run a month of a simulated shop on a new, embedded installation, which is removed at the end.

    Exit code 0: every customer had the access and the balance that they ought to have at every moment, the revenue is what
    was paid, and `atlas verify` is clean. 1: something was not. 130: interrupted.
    """
    population = make_population(seed, customers or (QUICK_CUSTOMERS if quick else CUSTOMERS))
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    try:
        wrong = trio.run(_run_until_signal, population, seed, console, strict_exception_groups=True)
    except* Exception as group:  # noqa: BLE001  one error is shown, not the groups around it
        error = unwrap_group(group)
        if not isinstance(error, DemoFailed):
            raise error from None
        console.print(f"WRONG  {error}", style="red", markup=False)
        sys.exit(WRONG)
    if wrong is None:
        console.print("interrupted; everything was stopped and removed")
        sys.exit(INTERRUPTED)
    sys.exit(WRONG if wrong else 0)


async def _run_until_signal(population: Population, seed: int, console: Console) -> list[str] | None:
    """What `run` returns; None if Ctrl-C or TERM ended it before."""
    wrong: list[str] | None = None
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(wait)
            wrong = await run(population, seed, console)
            nursery.cancel_scope.cancel()
    return wrong


async def run(population: Population, seed: int, console: Console) -> list[str]:
    """The whole demo; returns what was wrong."""
    began, model, secret = time.monotonic(), Model(), secrets.token_urlsafe(32)
    console.print(f"{population.customers} customers, seed {seed}; starting database, node and supervisor …")
    async with providers() as outside, site() as page:
        shop = {"ATLAS__SHOP__KEYS": f"demo {secret}"}
        async with installation({**outside.environment, **shop}) as here, here.running():
            children = (await here.status())["children"]
            gateway = fact(children, "gateway", "listening")
            console.print(
                f"up after {time.monotonic() - began:.1f} s; the shop is at {gateway}, its data in {here.home}"
            )
            async with (
                httpx.AsyncClient(trust_env=False, timeout=30.0) as http,
                open_database(here.dsn, fact(children, "agent.local", "listening"), here.node_token) as database,
            ):
                front_end = FrontEnd(http, gateway, "demo", secret)
                runner = ActionRunner(database, front_end, gateway, outside, here, model, seed)
                with _progress(console) as bar:
                    task = bar.add_task("month", total=1.0, day="day 1", done="")

                    def progress(share: float, day: str) -> None:
                        done = f"{model.purchases} purchases, {model.renewals} renewals, {len(outside.telegram.sent)} notices"
                        bar.update(task, completed=min(share, 1.0), day=day, done=done)

                    month = Month(population, database, runner, model, page, progress)
                    await month.run()
                    progress(1.0, "the end")
                code, said = await here.command("verify", allowed=(0, 65, 75))
                status = await here.status()
                figures = await read_figures(
                    database, status, await database.value("SELECT count(*) FROM provider_events")
                )
                named = await _named_when_altered(here, database)
        wrong = [*month.problems, *differences(figures, model, len(outside.telegram.sent), month.killed)]
        if code:
            wrong.append(f"atlas verify ended with {code}: {said.strip()}")
        took = time.monotonic() - began
        show(
            console,
            figures,
            model,
            took=took,
            jumps=month.jumps,
            packets=month.packets,
            killed=month.killed,
            errors=len(here.errors),
        )
        console.print(f"atlas verify: {said.strip()}")
        if named is None:
            wrong.append("a withdrawal was altered on purpose, and atlas verify named nothing")
        elif named:
            console.print(f"the same after one row was altered on purpose: {named}", markup=False)
        for problem in wrong:
            console.print(f"WRONG  {problem}", style="red", markup=False)
        for line in here.errors[-_SHOWN_ERRORS:] if wrong else ():
            console.print(f"log    {line}", markup=False)
        if not wrong:
            console.print("every customer had what they paid for, at every moment, and nothing else", style="green")
        return wrong


async def _named_when_altered(here: Installation, database: DemoDatabase) -> str | None:
    """What the auditor says once one row is altered; None: nothing, though it was. Empty: there was none to alter."""
    number = await database.alter_a_withdrawal()
    if number is None:
        return ""
    code, said = await here.command("verify", allowed=(0, 65, 75))
    named = [
        line.strip() for line in said.splitlines() if "journal" in line and "withdrawal" in line and "derived" in line
    ]
    return named[0] if code == VIOLATED and named else None


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.fields[day]}"), BarColumn(), TextColumn("{task.fields[done]}"), TimeElapsedColumn())
    return Progress(*columns, console=console)


if __name__ == "__main__":
    main()

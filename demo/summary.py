"""The page at the end: what the month came to, beside what it ought to have come to."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from demo.figures import Figures
from demo.model import Model

WIDTH = 108


def differences(found: Figures, model: Model, sent: int, killed: Sequence[str] = ()) -> list[str]:
    """What the month came to and ought not to have, as sentences."""
    pairs = (
        ("customers", found.customers, len(model.accounts)),
        ("kopecks from outside by the ledger", found.money_from_outside, model.revenue),
        ("plans paid for through a provider", found.purchases, model.purchases),
        ("top-ups", found.topups, model.topups),
        ("payments credited because they were late", found.credited, model.credited_late),
        ("plans bought from the balance", found.balance_purchases, model.balance_purchases),
        ("renewals", found.renewals, model.renewals),
        ("reminders", found.reminders, model.reminders),
        ("kopecks of referral rewards", found.rewards, model.rewards),
        ("refunds", found.refunds, model.refunds),
        ("chargebacks", found.chargebacks, model.chargebacks),
        ("compensations", found.compensations, model.compensations),
        ("withdrawals paid out", found.withdrawals, model.withdrawals),
        ("messages that Telegram has got", sent, sum(found.notices.values())),
        ("messages that were given up", found.undelivered, 0),
        ("open cases", found.open_cases, 0),
    )
    told = [f"{what}: {is_so}, expected {expected}" for what, is_so, expected in pairs if is_so != expected]
    return [*told, *(f"{name} was killed and not restarted" for name in killed if name not in found.restarts)]


def show(
    console: Console,
    found: Figures,
    model: Model,
    *,
    took: float,
    jumps: int,
    packets: Sequence[str],
    killed: Sequence[str],
    errors: int,
) -> None:
    """Print the page."""
    table = Table(
        title="A month of the shop",
        show_header=False,
        title_justify="left",
        width=min(WIDTH, console.width),
        title_style="bold",
    )
    table.add_column(style="cyan", no_wrap=True)
    table.add_column()
    by_provider = ", ".join(f"{name} {count}" for name, count in found.charges.items())
    other = {kind: count for kind, count in found.notices.items() if not kind.startswith("reminder_")}
    restarts = ", ".join(f"{name} {count}" for name, count in found.restarts.items())
    waits = found.waits
    rows = (
        ("customers", f"{found.customers}, of whom {model.trials} began with a trial and {model.granted} with a gift"),
        (
            "revenue",
            f"{_roubles(found.money_from_outside)} from outside, by the ledger; expected {_roubles(model.revenue)}",
        ),
        ("payments", f"{sum(found.charges.values())} ({by_provider}), told in {found.deliveries} events"),
        (
            "purchases",
            f"plans {found.purchases}, top-ups {found.topups}, plans from the balance {found.balance_purchases}, "
            f"late payments credited {found.credited}",
        ),
        ("renewals", f"{found.renewals}, expected {model.renewals}"),
        ("referrals", f"{_roubles(found.rewards)} in rewards"),
        (
            "given back",
            f"{_roubles(model.given_back)}: refunds {found.refunds}, chargebacks {found.chargebacks}, withdrawals "
            f"{found.withdrawals}; compensations {found.compensations}",
        ),
        (
            "activation",
            f"p50 {found.activation_p50 * 1000:.0f} ms, p99 {found.activation_p99 * 1000:.0f} ms from the purchase to the "
            f"confirmed key ({found.activations} keys)",
        ),
        ("reminders", f"{found.reminders} sent, expected {model.reminders}"),
        ("other notices", f"{sum(other.values())} sent: " + ", ".join(f"{kind} {n}" for kind, n in other.items())),
        (
            "lease waits",
            f"{waits.leases} leases, 99 % within {waits.quantile_within(0.99) * 1000:g} ms, all within "
            f"{waits.quantile_within(1.0) * 1000:g} ms, {waits.spikes} spikes",
        ),
        ("restarts", f"{restarts or 'none'}; killed while customers were at it: {', '.join(killed) or 'none'}"),
        ("log", f"{errors} lines of level ERROR or CRITICAL"),
        ("packets", "\n".join(packets)),
        ("time", f"{jumps} jumps, {took:.0f} s of real time"),
    )
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _roubles(kopecks: int) -> str:
    return f"{kopecks // 100:,}.{kopecks % 100:02d} RUB".replace(",", " ")

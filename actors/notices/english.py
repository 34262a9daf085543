"""The notices in English, also for everybody whose language is not spoken here."""

from actors.notices.language import Language


def _plural(number: int) -> int:
    """1 day, 2 days."""
    return 0 if number == 1 else 1


_RENEWS_ITSELF = (
    "Your subscription{tariff} lasts until {expires_at}, another {left}, and renews itself. "
    "Make sure that your balance covers it."
)

ENGLISH = Language(
    code="en",
    months=(
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ),
    zone="Moscow time",
    thousands=",",
    decimals=".",
    plural=_plural,
    nouns={"days": ("day", "days"), "hours": ("hour", "hours"), "minutes": ("minute", "minutes")},
    words={"basic": "Basic", "plus": "Plus"},
    clauses={
        "tariff": " ({tariff} plan)",
        "days": " for {days}",
        "amount": "\nTaken from your balance: {amount}.",
        "expires_at": "\nAccess until {expires_at}.",
        "reason": "\nReason: {reason}",
    },
    texts={
        "purchase": "Payment received. {tariff} plan, {days}.\nAccess until {expires_at}.",
        "balance_credited": "{amount} was added to your balance.",
        "balance_credited.late": (
            "Your payment of {amount} came after the order had closed. Nothing is lost: it is on your balance."
        ),
        "balance_credited.duplicate": (
            "The order had been paid already. The second payment, {amount}, was added to your balance."
        ),
        "balance_credited.amount": "The payment did not match the order. {amount} was added to your balance.",
        "referral_reward": "A friend you invited has paid. You get {amount} ({percent} of the payment).",
        "renewal_succeeded": "Your subscription was renewed{days}: {tariff} plan.\nAccess until {expires_at}.{amount}",
        "renewal_lacks_funds": (
            "Your subscription{tariff} could not be renewed: your balance is below the price ({amount}).\n"
            "Top it up before {expires_at}, and it renews itself."
        ),
        "renewal_missed": (
            "Your subscription{tariff} was not renewed: your balance is below the price ({amount}). "
            "Access ended on {expires_at}.\nTo get it back, top up your balance and renew the subscription."
        ),
        "renewal_missed.late": (
            "Your subscription{tariff} was not renewed in time, and that is our fault: nothing was charged. Access ended on "
            "{expires_at}.\nTo get it back, renew the subscription."
        ),
        "refund_paid": "Your refund was made: {amount}.",
        "withdrawal_requested": "Your withdrawal of {amount} was received. The money is set aside until it is decided.",
        "withdrawal_requested@operator": "New withdrawal: {amount}. It has to be approved or rejected.",
        "withdrawal_approved": "Your withdrawal was made: {amount}.",
        "withdrawal_rejected": "Your withdrawal was rejected: {amount} is on your balance again.{reason}",
        "balance_adjusted": "Your balance was changed: {amount}.{reason}",
        "compensation_credited": "We could not give you the access you paid for. {amount} was added to your balance.{reason}",
        "access_granted": "Access was opened for you: {tariff} plan.\nAccess until {expires_at}.",
        "access_granted.trial": "Your trial has begun: {tariff} plan.\nAccess until {expires_at}.",
        "access_expired": "Your access has ended{tariff}. Renew the subscription to get it back.",
        "key_active": "Your key is ready. Open “My subscription” to connect.",
        "key_reissued": (
            "Your key was replaced. The link you had does not work any more: open “My subscription” and connect again."
            "{expires_at}"
        ),
        "reminder_paid_3d.auto_renew": _RENEWS_ITSELF,
        "reminder_paid_3d": "Your access{tariff} ends on {expires_at}, in {left}.\nRenew it in good time.",
        "reminder_paid_24h.auto_renew": _RENEWS_ITSELF,
        "reminder_paid_24h": "Your access{tariff} ends on {expires_at}, in {left}.\nRenew the subscription.",
        "reminder_paid_3h.auto_renew": _RENEWS_ITSELF,
        "reminder_paid_3h": "Your access{tariff} ends soon, in {left}: {expires_at}.\nRenew the subscription now.",
        "reminder_grant_24h": "The access{tariff} that you were given ends on {expires_at}, in {left}.",
        "reminder_grant_6h": "The access{tariff} that you were given ends on {expires_at}, in {left}.",
        "reminder_trial_6h_in": (
            "How does your trial{tariff} work for you? It is open until {expires_at}. If anything does not connect, write to us."
        ),
        "reminder_trial_48h_in": (
            "Your trial{tariff} is open until {expires_at}, for another {left}.\nDo you like it? Choose a plan."
        ),
        "reminder_trial_6h": "Your trial{tariff} ends soon, in {left}: {expires_at}.\nChoose a plan.",
        "case_opened@operator": "A human is needed: {kind}, {subject}. More: atlas cases",
    },
)

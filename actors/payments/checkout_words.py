"""What a customer reads when his payment is stopped before the money is taken, in Russian and English."""

from __future__ import annotations

from db.checkout import Verdict

_WORDS: dict[Verdict | None, tuple[str, str]] = {
    Verdict.UNKNOWN_ORDER: (
        "Этот счёт больше не действует. Выберите тариф ещё раз.",
        "This invoice is not valid any more. Please choose a plan again.",
    ),
    Verdict.NOT_YOURS: (
        "Этот счёт выставлен другому человеку. Откройте бота и выберите тариф сами.",
        "This invoice belongs to somebody else. Please open the bot and choose a plan yourself.",
    ),
    Verdict.PAID: ("Этот счёт уже оплачен.", "This invoice has been paid already."),
    Verdict.ENDED: (
        "Срок оплаты истёк. Выберите тариф ещё раз.",
        "The time to pay is over. Please choose a plan again.",
    ),
    Verdict.AMOUNT: (
        "Сумма не совпадает с заказом. Выберите тариф ещё раз.",
        "The amount is not that of your order. Please choose a plan again.",
    ),
    Verdict.NOT_SOLD: (
        "Этот тариф больше не продаётся. Выберите другой.",
        "This plan is not sold any more. Please choose another one.",
    ),
    Verdict.SOLD_OUT: (
        "Сейчас нет свободных мест. Попробуйте позже.",
        "There is no room for new customers right now. Please try again later.",
    ),
    None: (
        "Сейчас оплату принять не получается. Деньги не списаны, попробуйте через минуту.",
        "We cannot take a payment right now. You were not charged; please try again in a minute.",
    ),
}


def refusal(verdict: Verdict | None, language: str) -> str:
    """The reason in the customer's language, empty if he may pay. `None`: nobody could judge."""
    if verdict is Verdict.FINE:
        return ""
    russian, english = _WORDS[verdict]
    return english if language and not language.startswith("ru") else russian

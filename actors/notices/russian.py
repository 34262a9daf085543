"""The notices in Russian."""

from actors.notices.language import Language


def _plural(number: int) -> int:
    """1 день, 2 дня, 5 дней; 11 to 14 go with 5."""
    last, teens = number % 10, number % 100 // 10 == 1
    if last == 1 and not teens:
        return 0
    return 1 if 2 <= last <= 4 and not teens else 2


_RENEWS_ITSELF = (
    "Подписка{tariff} действует до {expires_at}, осталось {left}, и продлится сама. "
    "Проверьте, что на балансе хватит денег."
)

RUSSIAN = Language(
    code="ru",
    months=(
        "января",
        "февраля",
        "марта",
        "апреля",
        "мая",
        "июня",
        "июля",
        "августа",
        "сентября",
        "октября",
        "ноября",
        "декабря",
    ),
    zone="МСК",
    thousands="\u00a0",
    decimals=",",
    plural=_plural,
    nouns={
        "days": ("день", "дня", "дней"),
        "hours": ("час", "часа", "часов"),
        "minutes": ("минута", "минуты", "минут"),
    },
    words={"basic": "Базовый", "plus": "Плюс"},
    clauses={
        "tariff": " (тариф «{tariff}»)",
        "days": " на {days}",
        "amount": "\nСписано с баланса: {amount}.",
        "expires_at": "\nДоступ до {expires_at}.",
        "reason": "\nПричина: {reason}",
    },
    texts={
        "purchase": "Оплата прошла. Тариф «{tariff}», {days}.\nДоступ до {expires_at}.",
        "balance_credited": "На ваш баланс зачислено {amount}.",
        "balance_credited.late": (
            "Платёж {amount} пришёл, когда заказ уже закрылся. Деньги не пропали: они на вашем балансе."
        ),
        "balance_credited.duplicate": "Заказ уже был оплачен. Второй платёж, {amount}, зачислен на ваш баланс.",
        "balance_credited.amount": "Сумма платежа не совпала с заказом. {amount} зачислено на ваш баланс.",
        "referral_reward": "Друг по вашему приглашению оплатил доступ. Вам начислено {amount} ({percent} от платежа).",
        "renewal_succeeded": "Подписка продлена{days}: тариф «{tariff}».\nДоступ до {expires_at}.{amount}",
        "renewal_lacks_funds": (
            "Не получилось продлить подписку{tariff}: на балансе меньше, чем нужно ({amount}).\n"
            "Пополните баланс до {expires_at}, и она продлится сама."
        ),
        "renewal_missed": (
            "Подписка{tariff} не продлилась: на балансе меньше, чем нужно ({amount}). Доступ закончился {expires_at}.\n"
            "Чтобы вернуть его, пополните баланс и продлите подписку."
        ),
        "renewal_missed.late": (
            "Подписка{tariff} не продлилась вовремя, и это наша вина: деньги не списаны. Доступ закончился {expires_at}.\n"
            "Чтобы вернуть его, продлите подписку."
        ),
        "refund_paid": "Возврат оформлен: {amount}.",
        "withdrawal_requested": "Заявка на вывод принята: {amount}. Деньги отложены до решения.",
        "withdrawal_requested@operator": "Новая заявка на вывод: {amount}. Её нужно подтвердить или отклонить.",
        "withdrawal_approved": "Вывод выполнен: {amount}.",
        "withdrawal_rejected": "Вывод отклонён: {amount} снова на вашем балансе.{reason}",
        "balance_adjusted": "Баланс изменён: {amount}.{reason}",
        "compensation_credited": "Мы не смогли дать доступ, за который вы заплатили. {amount} зачислено на баланс.{reason}",
        "access_granted": "Вам открыт доступ: тариф «{tariff}».\nДоступ до {expires_at}.",
        "access_granted.trial": "Пробный доступ открыт: тариф «{tariff}».\nДоступ до {expires_at}.",
        "access_expired": "Доступ закончился{tariff}. Чтобы вернуть его, продлите подписку.",
        "key_active": "Ваш ключ готов. Откройте раздел «Моя подписка», чтобы подключиться.",
        "key_reissued": (
            "Ключ заменён. Прежняя ссылка больше не работает: откройте раздел «Моя подписка» и подключитесь заново."
            "{expires_at}"
        ),
        "reminder_paid_3d.auto_renew": _RENEWS_ITSELF,
        "reminder_paid_3d": "Доступ{tariff} заканчивается {expires_at}: осталось {left}.\nПродлите подписку заранее.",
        "reminder_paid_24h.auto_renew": _RENEWS_ITSELF,
        "reminder_paid_24h": "Доступ{tariff} заканчивается {expires_at}: осталось {left}.\nПродлите подписку.",
        "reminder_paid_3h.auto_renew": _RENEWS_ITSELF,
        "reminder_paid_3h": "Доступ{tariff} скоро закончится, осталось {left}: {expires_at}.\nПродлите подписку сейчас.",
        "reminder_grant_24h": "Подаренный доступ{tariff} заканчивается {expires_at}: осталось {left}.",
        "reminder_grant_6h": "Подаренный доступ{tariff} заканчивается {expires_at}: осталось {left}.",
        "reminder_trial_6h_in": (
            "Как работает пробный доступ{tariff}? Он открыт до {expires_at}. Если что-то не подключается, напишите нам."
        ),
        "reminder_trial_48h_in": (
            "Пробный доступ{tariff} открыт до {expires_at}: осталось {left}.\nПонравилось? Выберите тариф."
        ),
        "reminder_trial_6h": "Пробный доступ{tariff} скоро закончится, осталось {left}: {expires_at}.\nВыберите тариф.",
        "case_opened@operator": "Нужен человек: {kind}, {subject}. Подробности: atlas cases",
    },
)

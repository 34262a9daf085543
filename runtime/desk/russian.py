"""The desk's texts in Russian, by the English ones. What actors and errors say is shown as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

WORDS: Final[Mapping[str, str]] = {
    # the frame
    "Overview": "Обзор",
    "Tree": "Дерево",
    "Actor": "Актор",
    "Events": "События",
    "Pages": "Страницы",
    "Skip to the content": "К содержанию",
    "Sign in": "Войти",
    "Sign out": "Выйти",
    "live": "на связи",
    "not connected": "нет связи",
    "connecting": "соединение",
    "viewer": "наблюдатель",
    "support": "поддержка",
    "money": "деньги",
    "owner": "владелец",
    "That did not work": "Не получилось",
    # signing in
    "Your personal token": "Ваш личный токен",
    "An owner makes one: atlas operators add NAME --role ROLE": "Его создаёт владелец: atlas operators add NAME --role ROLE",
    "No operator with a token is declared, so no one can sign in.": "Нет ни одного оператора с токеном: войти не может никто.",
    "This makes the first one; then put what it prints into the configuration and run atlas reload:": (
        "Так создают первого; напечатанное внесите в конфигурацию и выполните atlas reload:"
    ),
    "No operator has this token.": "Такого токена нет ни у одного оператора.",
    "Too many tries. Wait a minute.": "Слишком много попыток. Подождите минуту.",
    # questions
    "Why?": "Зачем?",
    "Kept with your name.": "Сохранится вместе с вашим именем.",
    "Cancel": "Отмена",
    "Restart": "Перезапустить",
    "Pause": "Приостановить",
    "Resume": "Продолжить",
    "Drain": "Дослужить и остановить",
    "Stop": "Остановить",
    "Kill": "Прервать",
    "Messages that wait now:": "Сообщений ждёт сейчас:",
    "It is a group; this is for all its actors:": "Это группа; относится ко всем её акторам:",
    "It finishes its current message, stops in order, and starts again. What waits in its mailbox is kept.": (
        "Закончит текущее сообщение, остановится и запустится снова. Очередь сообщений сохранится."
    ),
    "It serves nothing but control messages until it is resumed, also over restarts. Messages wait in its mailbox.": (
        "Будет отвечать только на управляющие сообщения, пока его не продолжат, и после перезапусков. Остальные ждут."
    ),
    "It goes on with what waits in its mailbox.": "Продолжит с того, что ждёт в очереди.",
    "It handles what its mailbox has accepted, as far as half of its time to stop reaches, and stays down until it is "
    "restarted. New messages are refused.": (
        "Обработает принятое, насколько хватит половины времени на остановку, и не запустится, пока его не перезапустят. Новые "
        "сообщения отклоняются."
    ),
    "It finishes its current message and stays down until it is restarted.": (
        "Закончит текущее сообщение и не запустится, пока его не перезапустят."
    ),
    "It is interrupted at its next checkpoint. Its restart policy decides what follows; no restart attempt is counted.": (
        "Будет прерван в ближайшей точке. Что дальше, решает его политика перезапуска; попытка не засчитывается."
    ),
    "restarted": "перезапущен",
    "paused": "приостановлен",
    "resumed": "продолжен",
    "drained and stopped": "дослужил и остановлен",
    "stopped": "остановлен",
    "killed": "прерван",
    # the first page
    "All is well": "Всё в порядке",
    "The system is starting": "Система запускается",
    "The system is stopping": "Система останавливается",
    "Nothing waits for you.": "Ничто не ждёт вас.",
    "the others are well": "с остальными всё в порядке",
    "Look": "Смотреть",
    "more": "ещё",
    "Supervision": "Надзор",
    "actors": "акторов",
    "Heartbeats": "Пульс",
    "event loop": "цикл событий",
    "workers": "работники",
    "health check": "проверка здоровья",
    "What happened": "Что произошло",
    "all events": "все события",
    "Figures": "Показатели",
    "peak": "пик",
    "last hour": "последний час",
    "last day": "последние сутки",
    "Restarts a minute": "Перезапусков в минуту",
    "Messages waiting": "Сообщений в очередях",
    # actors
    "group": "группа",
    "restarts": "перезапусков",
    "mailbox": "очередь",
    "idle": "свободен",
    "busy": "занят",
    "stuck": "застрял",
    "starved": "не успевает",
    "waiting in a circle": "ждут друг друга по кругу",
    "not ready": "не готов",
    "not needed": "не нужен",
    "down": "не работает",
    "parked": "отложен",
    "unstopped": "не останавливается",
    "restarting": "перезапускается",
    "waiting": "ждёт запуска",
    "starting": "запускается",
    "stopping": "останавливается",
    "running": "работает",
    "up": "работает",
    "new": "ещё не запускался",
    "dead": "закончил",
    "Now": "Сейчас",
    "state": "состояние",
    "since": "уже",
    "ago": "назад",
    "incarnation": "воплощение",
    "starts again in": "запустится через",
    "handles": "обрабатывает",
    "nothing": "ничего",
    "last": "последнее",
    "waits for": "ждёт",
    "of": "из",
    "oldest message": "старейшее сообщение",
    "dropped, expired": "отброшено, просрочено",
    "Settings": "Настройки",
    "class": "класс",
    "needs": "нуждается в",
    "Where it stands": "Где стоит",
    "What it says of itself": "Что говорит о себе",
    "Last crash": "Последняя авария",
    "at": "в",
    "it handled": "обрабатывал",
    # events
    "Latest events": "Последние события",
    "Time": "Время",
    "Event": "Событие",
    "error": "ошибка",
    "warning": "предупреждение",
    "all": "все",
    "At least": "Не ниже",
    "Text": "Текст",
    "Correlation id": "Ид. корреляции",
    "Show": "Показать",
    "All": "Все",
}

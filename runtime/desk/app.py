"""The desk over HTTP: sign-in, pages, their streams, and what is done from them."""

from __future__ import annotations

import gzip
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, ClassVar, Final
from urllib.parse import parse_qs, quote, urlsplit

import attrs
import trio
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from runtime.control.protocol import ControlError
from runtime.desk.desk import LANGUAGES, STATIC, STREAMS, STREAMS_OF_ONE, Desk, asset, content, page_context
from runtime.desk.guard import Guard
from runtime.desk.page import Action, Download, NotFound, Page, View
from runtime.desk.session import LIFETIME
from runtime.desk.stream import PartsStream
from runtime.error_text import error_text
from runtime.errors import AtlasError
from runtime.events import Event
from runtime.http.routing import route
from runtime.http.sources import source_of
from runtime.operators.identity import Identity, NotAllowed, demand
from runtime.redaction import one_line, redact

_LONGEST_WHY: Final = 500
_LONGEST_TOKEN: Final = 1024
_LARGE: Final = 1024
_LANGUAGE: Final = "atlas_language"


@attrs.frozen
class DeskAction(Event):
    """An operator did something at the desk, or was refused."""

    level: ClassVar[int] = 20

    who: str
    action: str
    what: str
    why: str
    outcome: str
    is_done: bool
    identity: Identity = attrs.field(repr=False)
    is_kept: bool = attrs.field(default=False, repr=False)
    """The audit trail has it already, reason included."""

    def line(self) -> str:
        """Who did what to what, why, and what came of it."""
        what = f" {self.what}" if self.what else ""
        why = f' ("{self.why}")' if self.why else ""
        return f"{self.who} at the desk: {self.action}{what}{why}: {self.outcome}"


@attrs.frozen
class SignIn(Event):
    """Somebody signed in at the desk, or was refused."""

    who: str
    source: str
    is_done: bool

    def line(self) -> str:
        """Who, from where."""
        if self.is_done:
            return f"{self.who} signed in at the desk from {self.source}"
        return f"a sign-in at the desk from {self.source} was refused"


def desk_app(desk: Desk, hosts: Iterable[str] = (), public_url: str = "") -> ASGIApp:
    """The ASGI app of the desk. `hosts` are names, beside loopback and the host of `public_url`, that it answers to."""
    site = _Site(desk)
    routes = [
        Route("/sign-in", site.sign_in, methods=["GET", "POST"]),
        Route("/sign-out", site.sign_out, methods=["POST"]),
        Route("/language/{language}", site.set_language, methods=["POST"]),
        Route("/static/{digest}/{name}", site.static),
        Route("/stream", site.stream),
        Route("/ask/{action}", site.ask),
        Route("/act/{action}", site.act, methods=["POST"]),
        *(Route(page.path, site.page(page)) for page in desk.pages),
        Route("/{path:path}", site.missing),
    ]
    return Guard(route(routes), hosts, public_url)


class _Site:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._routes = [(Route(page.path, self.missing), page) for page in desk.pages]
        self._cookie = "__Host-atlas_desk" if desk.is_https else "atlas_desk"

    # --- pages

    def page(self, page: Page) -> Callable[[Request], Awaitable[Response]]:
        async def show(request: Request) -> Response:
            who = self._who(request)
            if who is None:
                return self._to_sign_in(request)
            view = View(self._desk, who, _language(request), request)
            try:
                demand(who, page.least, f"the page {page.path}")
                if page.download is not None:
                    return _kept(request, await page.download(view))
                extra = {} if page.context is None else await page.context(view)
            except NotAllowed as error:
                return self._error(view, 403, error)
            except NotFound as error:
                return self._error(view, 404, error)
            except (AtlasError, ControlError) as error:
                return self._error(view, 503, error)
            # The number first: what changes while the page is made is sent again, and not missed.
            version = self._desk.board.version
            sources = () if page.sources is None else page.sources(view)
            parts: dict[str, str] = {}
            for source in sources:
                parts |= self._desk.parts_of(source, view.language)
            return self._html(view, page, {"parts": parts, "version": version, "is_live": bool(sources), **extra})

        return show

    async def missing(self, request: Request) -> Response:
        """Whatever has no page."""
        who = self._who(request)
        if who is None:
            return self._to_sign_in(request)
        view = View(self._desk, who, _language(request), request)
        return self._error(view, 404, NotFound(f"there is no page {request.url.path[:80]}"))

    async def stream(self, request: Request) -> Response | ASGIApp:
        """The parts of the page `at`, from `since` on."""
        cookie = request.cookies.get(self._cookie, "")
        who = self._desk.sessions.identify(cookie)
        if who is None:
            return PlainTextResponse("sign in again\n", 401)
        if request.method == "HEAD" or "probe" in request.query_params:
            return Response(status_code=204)  # a page asks whether its session still lasts
        split = urlsplit(request.query_params.get("at", ""))
        for found, page in self._routes:
            scope: Scope = {"type": "http", "path": split.path, "root_path": "", "method": "GET", "headers": []}
            match, child = found.matches(scope)
            if match is Match.FULL and page.sources is not None:
                break
        else:
            return PlainTextResponse("this page has no stream\n", 404)
        if not (who.role is not None and who.role.includes(page.least)):
            return PlainTextResponse("not for this role\n", 403)
        seen = Request({**scope, **child, "query_string": split.query.encode("utf-8", "replace")})
        view = View(self._desk, who, _language(request), seen)
        since = request.headers.get("last-event-id") or request.query_params.get("since", "")
        parts = PartsStream(
            self._desk.board,
            page.sources(view),
            view.language,
            since,
            lambda: self._desk.sessions.identify(cookie) == who,
            self._desk.closing,
        )
        return self._counted(who, parts)

    def _counted(self, who: Identity, parts: PartsStream) -> Response | ASGIApp:
        streams = self._desk.streams
        if streams.total() >= STREAMS or streams[who.name] >= STREAMS_OF_ONE:
            return PlainTextResponse("too many pages are open; close one\n", 503, headers={"retry-after": "5"})

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            streams[who.name] += 1
            try:
                await parts(scope, receive, send)
            finally:
                streams[who.name] -= 1
                if not streams[who.name]:
                    del streams[who.name]

        return counted

    async def static(self, request: Request) -> Response:
        """A file that pages load. Its address has its digest, so that it may be kept."""
        name = request.path_params["name"]
        if name not in STATIC or request.url.path != asset(name):
            return PlainTextResponse("there is no such file\n", 404)
        headers = {"cache-control": "public, max-age=31536000, immutable"}
        return _packed(request, content(name), STATIC[name], 200, headers)

    # --- signing in

    async def sign_in(self, request: Request) -> Response:
        """Ask for the token, and take it."""
        if request.method != "POST":
            if self._who(request) is not None:
                return RedirectResponse("/", 303)
            return self._sign_in_page(request, "")
        source = source_of(request.scope)
        wait = self._desk.tries.wait(source)
        if wait:
            answer = self._sign_in_page(request, "Too many tries. Wait a minute.", 429)
            answer.headers["retry-after"] = str(int(wait) + 1)
            return answer
        form = await _form(request)
        token = form.get("token", "").strip()
        events = self._desk.system.services.events
        try:
            cookie = self._desk.sessions.sign_in(token[:_LONGEST_TOKEN])
        except NotAllowed:
            events.emit(SignIn("desk", "", str(source), is_done=False))
            return self._sign_in_page(request, "No operator has this token.", 403)
        who = self._desk.sessions.identify(cookie)
        events.emit(SignIn("desk", str(who), str(source), is_done=True))
        answer = RedirectResponse(_local(form.get("then", "")), 303)
        self._set_cookie(answer, self._cookie, cookie, LIFETIME)
        return answer

    def _sign_in_page(self, request: Request, wrong: str, status: int = 200) -> Response:
        language = _language(request)
        html = self._desk.render(
            "sign_in.html",
            language,
            wrong=wrong,
            then=_local(request.query_params.get("then", "")),
            has_operators=any(one.token_sha256 for one in self._desk.operators().declared.values()),
            languages=LANGUAGES,
        )
        return _packed(request, html.encode(), "text/html", status, {})

    async def sign_out(self, request: Request) -> Response:
        """End the session in this browser."""
        answer = RedirectResponse("/sign-in", 303)
        self._set_cookie(answer, self._cookie, "", 0)
        return answer

    async def set_language(self, request: Request) -> Response:
        """Choose a language for this browser."""
        language = request.path_params["language"]
        answer = RedirectResponse(_local(request.query_params.get("then", "")), 303)
        if language in LANGUAGES:
            self._set_cookie(answer, _LANGUAGE, language, 365 * 86400)
        return answer

    def _set_cookie(self, answer: Response, name: str, value: str, seconds: float) -> None:
        answer.set_cookie(
            name, value, max_age=int(seconds), path="/", httponly=True, samesite="lax", secure=self._desk.is_https
        )

    def _who(self, request: Request) -> Identity | None:
        return self._desk.sessions.identify(request.cookies.get(self._cookie, ""))

    def _to_sign_in(self, request: Request) -> Response:
        at = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/sign-in?then={_quoted(at)}" if at != "/" else "/sign-in", 303)

    # --- acting

    def _action_of(self, request: Request) -> tuple[View, Action] | Response:
        """Who wants which action, or the answer to a request of nobody who is known or for an action that there is not."""
        who = self._who(request)
        if who is None:
            return self._to_sign_in(request)
        view = View(self._desk, who, _language(request), request)
        action = self._desk.actions.get(request.path_params["action"])
        if action is None:
            return self._error(view, 404, NotFound(f"there is no action {request.path_params['action'][:60]}"))
        return view, action

    async def ask(self, request: Request) -> Response:
        """What will happen, and why it is to be done."""
        found = self._action_of(request)
        if isinstance(found, Response):
            return found
        view, action = found
        given = dict(request.query_params)
        try:
            demand(view.who, action.least, f'"{action.label}"')
            question = await action.ask(view, given)
        except NotAllowed as error:
            return self._error(view, 403, error)
        except (AtlasError, ControlError) as error:
            return self._error(view, 409, error)
        named = {field.name for field in question.fields}
        hidden = {name: value for name, value in given.items() if name not in named and name not in ("why", "back")}
        extra = {
            "action": action,
            "question": question,
            "hidden": hidden,
            "back": _local(given.get("back") or _path(request.headers.get("referer", ""))),
        }
        if request.headers.get("x-dialog"):
            html = self._desk.render("question.html", view.language, view=view, level=2, **extra)
            return _packed(request, html.encode(), "text/html", 200, {})
        return self._html(view, None, {"title": action.label, "body": "question.html", "level": 1, **extra})

    async def act(self, request: Request) -> Response:
        """Do it, and tell who did what and why."""
        found = self._action_of(request)
        if isinstance(found, Response):
            return found
        view, action = found
        form = await _form(request)
        why = one_line(form.pop("why", "").strip()[:_LONGEST_WHY])
        back = _local(form.pop("back", ""))
        try:
            status, outcome, is_done = await self._perform(view, action, form, why)
        except BaseException as error:
            # Also if the desk itself is restarted by it, and this request ends with it: it was asked for.
            self._tell(view.who, action, form, why, f"begun; its end was not seen: {error_text(error)}", is_done=False)
            raise
        self._tell(view.who, action, form, why, "done" if is_done else f"refused: {outcome}", is_done=is_done)
        if not is_done:
            return self._error(view, status, AtlasError(outcome))
        said = self._desk.say(outcome)
        return RedirectResponse(f"{back}{'&' if '?' in back else '?'}said={_quoted(said)}", 303)

    async def _perform(self, view: View, action: Action, form: Mapping[str, str], why: str) -> tuple[int, str, bool]:
        try:
            demand(view.who, action.least, f'"{action.label}"')
            if not why:
                return 400, "say why it is to be done: those who come after you will ask", False
            return 200, await action.act(view, form, why), True
        except NotAllowed as error:
            return 403, str(error), False
        except (AtlasError, ControlError) as error:
            return 409, str(error), False

    def _tell(
        self, who: Identity, action: Action, given: Mapping[str, str], why: str, outcome: str, *, is_done: bool
    ) -> None:
        what = given.get("name") or given.get("customer") or given.get("number") or given.get("charge") or ""
        what = f"{given['queue']} {what}" if "queue" in given else what
        self._desk.system.services.events.emit(
            DeskAction(
                "desk",
                str(who),
                action.name,
                one_line(redact(what[:80])),
                redact(why),
                one_line(redact(outcome)),
                is_done,
                who,
                is_kept=is_done and action.keeps_reason,
            )
        )

    # --- answers

    def _error(self, view: View, status: int, error: Exception) -> Response:
        return self._html(view, None, {"title": "That did not work", "body": "error.html", "error": str(error)}, status)

    def _html(self, view: View, page: Page | None, extra: Mapping[str, Any], status: int = 200) -> Response:
        query = view.request.query_params
        context = page_context(self._desk, view, page, extra)
        context.setdefault("is_live", False)
        context.setdefault("version", 0)
        context["said"] = self._desk.said(query.get("said", ""))
        context["title"] = extra.get("title") or (page.title if page is not None else "")
        context["body"] = extra.get("body") or (page.template if page is not None else "")
        # Its address without what was said once.
        rest = "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in query.multi_items() if name != "said")
        context["here"] = view.request.url.path + (f"?{rest}" if rest else "")
        context["languages"] = LANGUAGES
        html = self._desk.render("frame.html", view.language, **context)
        return _packed(view.request, html.encode(), "text/html", status, {})


def _packed(request: Request, body: bytes, kind: str, status: int, headers: Mapping[str, str]) -> Response:
    answer = Response(body, status, dict(headers), media_type=kind)
    answer.headers["vary"] = "accept-encoding, cookie, accept-language"
    if len(body) > _LARGE and "gzip" in request.headers.get("accept-encoding", ""):
        answer.body = gzip.compress(body, 5)
        answer.headers["content-encoding"] = "gzip"
        answer.headers["content-length"] = str(len(answer.body))
    return answer


def _kept(request: Request, file: Download) -> Response:
    headers = {"content-disposition": f'attachment; filename="{file.name}"'}
    return _packed(request, file.content.encode(), file.kind, 200, headers)


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form. What is no form has none."""
    body = await request.body()
    await trio.lowlevel.checkpoint()
    try:
        found = parse_qs(body.decode("utf-8"), keep_blank_values=True, max_num_fields=50)
    except ValueError:
        return {}
    return {name: values[-1] for name, values in found.items()}


def _language(request: Request) -> str:
    chosen = request.cookies.get(_LANGUAGE, "")
    if chosen in LANGUAGES:
        return chosen
    wanted = request.headers.get("accept-language", "")
    return next((one[:2] for one in wanted.lower().replace(" ", "").split(",") if one[:2] in LANGUAGES), LANGUAGES[0])


def _local(address: str) -> str:
    """The address, if it is a page of ours; else the first page."""
    is_ours = address.startswith("/") and not address.startswith(("//", "/\\")) and address.isprintable()
    return address if is_ours and "\\" not in address else "/"


def _path(referer: str) -> str:
    split = urlsplit(referer)
    return split.path + (f"?{split.query}" if split.query else "")


def _quoted(text: str) -> str:
    return quote(text, safe="")

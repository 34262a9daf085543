// Keeps a page live: replaces parts by id, puts new rows first, lets ages tick, and asks in a dialog.
const policy = window.trustedTypes
  ? trustedTypes.createPolicy("desk", { createHTML: (html) => html })
  : { createHTML: (html) => html };
const body = document.body;
const skew = Date.now() / 1000 - Number(body.dataset.now || Date.now() / 1000);
const russian = document.documentElement.lang === "ru";
const units = russian ? ["с", "мин", "ч", "д"] : ["s", "min", "h", "d"];

function duration(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} ${units[0]}`;
  if (s < 3600) return `${Math.floor(s / 60)} ${units[1]}`;
  if (s < 86400) return `${Math.floor(s / 3600)} ${units[2]} ${Math.floor((s % 3600) / 60)} ${units[1]}`;
  return `${Math.floor(s / 86400)} ${units[3]} ${Math.floor((s % 86400) / 3600)} ${units[2]}`;
}

function tick(root) {
  const now = Date.now() / 1000 - skew;
  for (const time of root.querySelectorAll("time[data-since]")) {
    const text = duration(now - Number(time.dataset.since));
    if (time.textContent !== text) time.textContent = text;
  }
}

function parse(html) {
  const box = document.createElement("template");
  box.innerHTML = policy.createHTML(html);
  tick(box.content);
  return box.content.firstElementChild;
}

function show(parts) {
  for (const [id, html] of Object.entries(parts)) {
    const old = document.getElementById(id);
    const fresh = parse(html);
    if (!fresh) continue;
    if (!old) {
      const into = document.getElementById(fresh.dataset.into || "");
      if (!into) continue;
      into.prepend(fresh);
      while (into.children.length > Number(into.dataset.keep)) into.lastElementChild.remove();
    } else if (!old.isEqualNode(fresh)) {
      const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
      old.replaceWith(fresh);
      if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
    }
  }
}

let source = null;
let since = body.dataset.since;
const live = document.getElementById("live");

function say(isLive) {
  if (!live || !body.dataset.stream) return;
  live.firstElementChild.className = `g ${isLive ? "good" : "late"}`;
  live.lastElementChild.textContent = isLive ? live.dataset.live : live.dataset.away;
}

function open() {
  if (source || document.hidden) return;
  source = new EventSource(`${body.dataset.stream}&since=${since}`);
  source.onopen = () => say(true);
  source.onmessage = (event) => {
    since = event.lastEventId;
    show(JSON.parse(event.data));
  };
  source.onerror = () => {
    say(false);
    if (source.readyState !== EventSource.CLOSED) return;
    close();
    // It ends for good on an answer that is no stream: the session may be over.
    setTimeout(async () => {
      const seen = await fetch(body.dataset.stream + "&probe=1", { method: "HEAD" }).catch(() => null);
      if (seen && seen.status === 401) location.reload();
      else open();
    }, 2000);
  };
}

function close() {
  source?.close();
  source = null;
}

if (body.dataset.stream) {
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", open);
  open();
}
tick(document);
setInterval(() => tick(document), 1000);

const dialog = document.getElementById("dialog");
document.addEventListener("click", async (event) => {
  const link = event.target.closest("a[data-ask], a[data-close]");
  if (!link || !dialog || event.metaKey || event.ctrlKey) return;
  if ("close" in link.dataset) {
    if (!dialog.open) return;
    event.preventDefault();
    dialog.close();
    return;
  }
  event.preventDefault();
  const answer = await fetch(link.href, { headers: { "X-Dialog": "1" } }).catch(() => null);
  if (!answer || !answer.ok) {
    location.assign(link.href);
    return;
  }
  dialog.replaceChildren(parse(await answer.text()));
  dialog.showModal();
  (dialog.querySelector("input:not([type=hidden])") || dialog).focus();
});

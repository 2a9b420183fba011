// What every page needs: its texts, asking the server, streams, countdowns, errors of fields.

// A request that has no answer after this time has failed, in milliseconds.
const REQUEST_TIME = 20_000;
// The server sends at least a comment every 15 s; a stream that says nothing for longer is dead.
const STREAM_SILENCE = 40_000;
// The longest event that is taken, in characters.
const EVENT_MAX = 65_536;
// Pauses before a stream is begun again, in milliseconds; the last one stays.
const STREAM_PAUSES = [1_000, 2_000, 5_000, 10_000];

export const byId = (id) => document.getElementById(id);
export const lang = document.body.dataset.lang;
export const pause = (millis) => new Promise((done) => { setTimeout(done, millis); });

// A text of the page's table, with values for its {names}.
export function text(key, values = {}) {
  const found = byId("texts").content.querySelector(`[data-text="${key}"]`).textContent;
  return found.replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole));
}

// Says which view is shown; set last, when all of it stands.
export function view(name) {
  byId("loading").hidden = name !== "loading";
  // The page's own heading stands in for that of a part that is not there.
  const others = [...document.querySelectorAll("h1:not(#page-heading)")];
  byId("page-heading").hidden = others.some((heading) => heading.offsetParent !== null);
  byId("retry").hidden = name !== "failed";
  document.body.dataset.view = name;
}

export function say(words) { byId("status").textContent = words; }
export function fail(words) {
  byId("problem").textContent = words;
  if (words) byId("problem").scrollIntoView({ block: "nearest" });
}
export function hush() { say(""); fail(""); }

// Puts a part into its place. A part is the answer of this page's own server, where every text was
// escaped; a script never makes markup of its own. The browser holds to that: by the page's policy
// (Trusted Types) only what passed here may become markup.
const parts = self.trustedTypes?.createPolicy("countersign-part", { createHTML: (html) => html });
export function setPart(place, part) {
  const keep = stateOf(place);
  place.innerHTML = parts ? parts.createHTML(part) : part;
  keep();
  for (const time of place.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    time.textContent = at.toLocaleString(document.documentElement.lang, {
      dateStyle: "medium",
      timeStyle: "short",
    });
  }
  tick();
}

// Notes what a person has typed, chosen, opened, and where they are: what comes in its place takes
// it over, so that nothing is lost when a part comes anew.
function stateOf(place) {
  const fields = [...place.querySelectorAll("input[id], select[id]")];
  const noted = fields.map(({ id, value, checked }) => ({ id, value, checked }));
  const opened = [...place.querySelectorAll("details[id]")].map(({ id, open }) => ({ id, open }));
  const focused = place.contains(document.activeElement) ? document.activeElement.id : "";
  return () => {
    for (const { id, value, checked } of noted) {
      const field = byId(id);
      if (field) Object.assign(field, { value, checked });
    }
    for (const { id, open } of opened) {
      const details = byId(id);
      if (details) details.open = open;
    }
    if (focused) byId(focused)?.focus();
  };
}

// The server's time, as far as its answers have told it: a phone's clock may be wrong.
let ahead = Number(document.body.dataset.now) - Date.now();
export const serverNow = () => Date.now() + ahead;

function learnTime(response) {
  const said = Date.parse(response.headers.get("date") ?? "");
  // To the second; what is closer than that is known already.
  if (Math.abs(said - serverNow()) > 1_500) ahead = said - Date.now();
}

// Why a request was not answered as hoped: status 0 without an answer.
export class Failure extends Error {
  constructor(status, check, detail = "") {
    super(check);
    this.status = status;
    this.check = check;
    // Under which the bank finds it.
    this.incident = /\binc_[\w-]+/.exec(detail)?.[0];
  }
}

// Asks this server. The answer is a success, or a Failure is thrown.
export async function ask(method, path, headers = {}, body = undefined, signal = undefined) {
  let response;
  try {
    response = await fetch(path, {
      method,
      body,
      headers: { ...headers, "accept-language": document.documentElement.lang },
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
      signal: signal ?? AbortSignal.timeout(REQUEST_TIME),
    });
  } catch {
    throw new Failure(0, "network");
  }
  learnTime(response);
  if (response.ok) return response;
  let problem = {};
  try {
    problem = await response.json();
  } catch {
    // Not this server's words: the status says enough.
  }
  throw new Failure(response.status, String(problem.check ?? ""), String(problem.detail ?? ""));
}

// The whole text of an answer; a connection that breaks off in it is a Failure too.
export async function textOf(response) {
  try {
    return await response.text();
  } catch {
    throw new Failure(0, "network");
  }
}

// What a failure is to a person, where a page has no better words.
export function wordsFor(failure) {
  if (failure.status === 0) return text("Offline");
  if (failure.status === 429) return text("TooMany");
  return text(failure.status >= 500 ? "ServerTrouble" : "LoadFailed");
}

// Shows where a payment stands after an answer, by the page's own `show`; `unknown` is what to say
// if the server cannot be reached.
export async function afterwards(show, words, unknown) {
  try {
    await show(true);
    if (words) say(words);
  } catch (failure) {
    fail(failure.status === 0 ? unknown : wordsFor(failure));
  }
}

// Says whether the server can be reached.
export function online(reached) {
  const note = byId("offline-note");
  if (!reached) {
    if (!note.textContent) note.textContent = text("Offline");
  } else if (note.textContent) {
    note.textContent = "";
    const again = text("OnlineAgain");
    say(again);
    setTimeout(() => { if (byId("status").textContent === again) say(""); }, 10_000);
  }
}

// Reads server-sent events for as long as the page lives. `open(signal, lastId)` begins a stream
// and gives its response; `heard(kind)` is called for each event; `refused(failure)` for a failure
// that no waiting mends, and then it ends. Begins again when the connection is lost, when nothing
// was heard for too long, and when a sleeping tab wakes.
export async function listen(open, heard, refused) {
  let lastId;
  let failures = 0;
  for (;;) {
    const stopped = new AbortController();
    let latest = Date.now();
    const watch = setInterval(() => {
      if (Date.now() - latest > STREAM_SILENCE) stopped.abort();
    }, 5_000);
    const woken = () => {
      if (!document.hidden && Date.now() - latest > STREAM_SILENCE) stopped.abort();
    };
    document.addEventListener("visibilitychange", woken);
    try {
      const response = await open(stopped.signal, lastId);
      online(true);
      failures = 0;
      for await (const event of eventsOf(response, () => { latest = Date.now(); })) {
        if (event.id !== undefined) lastId = event.id;
        if (event.data) heard(event.kind);
      }
    } catch (failure) {
      const status = failure instanceof Failure ? failure.status : 0;
      if (status === 401 || status === 403 || status === 404) {
        refused(failure);
        return;
      }
      if (failures > 0) online(false); // the first break may be the server's tidy end
      failures += 1;
    } finally {
      clearInterval(watch);
      document.removeEventListener("visibilitychange", woken);
      stopped.abort();
    }
    await pause(STREAM_PAUSES[Math.min(failures, STREAM_PAUSES.length - 1)]);
  }
}

// The events of a stream (HTML, section 9.2.6), as far as this server uses them.
async function* eventsOf(response, alive) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    alive();
    rest += value;
    const blocks = rest.split("\n\n");
    rest = blocks.pop();
    if (rest.length > EVENT_MAX) throw new Failure(0, "event-too-long");
    for (const block of blocks) {
      const event = { kind: "", data: "" };
      for (const line of block.split("\n")) {
        const [, name, value] = /^(\w+): ?(.*)$/.exec(line) ?? [];
        if (name === "event") event.kind = value;
        if (name === "id") event.id = value;
        if (name === "data") event.data += value;
      }
      yield event;
    }
  }
}

// Counts down every `[data-until]` in the page, by the server's time. At the end of one the event
// `timeup` is told once.
function tick() {
  for (const place of document.querySelectorAll("[data-until]")) {
    const left = Math.max(0, Math.ceil((Number(place.dataset.until) - serverNow()) / 1_000));
    const [h, min, s] = [Math.floor(left / 3_600), Math.floor(left / 60) % 60, left % 60];
    let words = text("TimeIsUp");
    if (h > 0) words = text("LeftHours", { h, min });
    else if (min > 0) words = text("LeftMinutes", { min, s });
    else if (left > 0) words = text("LeftSeconds", { s });
    if (place.textContent !== words) place.textContent = words;
    // Said aloud once, not every second.
    if (place.id === "countdown" && left === 60) say(text("OneMinuteLeft"));
    if (left === 0 && !place.dataset.over) {
      place.dataset.over = "yes";
      document.dispatchEvent(new Event("timeup"));
    }
  }
}
setInterval(tick, 1_000);

// What was typed, as digits or letters: full-width forms of an input method, spaces and hyphens do
// not matter.
export const typed = (input) => input.value.normalize("NFKC").replace(/[\s-]/g, "");

// Shows what is wrong with a field, or with null that nothing is. The field names the place of its
// error in aria-describedby.
export function fieldError(input, key) {
  byId(`${input.id}-error`).textContent = key ? text(key) : "";
  if (key) input.setAttribute("aria-invalid", "true");
  else input.removeAttribute("aria-invalid");
  return !key;
}

// What was said to be wrong is being put right.
document.addEventListener("input", ({ target }) => {
  if (target.getAttribute("aria-invalid")) fieldError(target, null);
});

// Whether all fields are right; the first wrong one gets the focus.
export function check(fields) {
  const wrong = fields.filter(([input, right, key]) => !fieldError(input, right ? null : key));
  wrong[0]?.[0].focus();
  return wrong.length === 0;
}

// Runs one action at a time: what is pressed twice is done once. The buttons say that they wait.
let busy = false;
export const isBusy = () => busy;
export async function once(action) {
  if (busy) return;
  busy = true;
  document.body.dataset.busy = "yes"; // what is said now stays in sight
  const buttons = [...document.querySelectorAll("button")];
  for (const button of buttons) button.setAttribute("aria-disabled", "true");
  try {
    await action();
  } finally {
    busy = false;
    delete document.body.dataset.busy;
    for (const button of buttons) button.removeAttribute("aria-disabled");
  }
}

// Takes what stands behind the # of the address, if it has the form, and removes it from address
// and history: it is a secret. `keep` stores what was found. An address that is opened in this tab
// later is taken too, and the page begins again.
export function takeFragment(form, keep) {
  const take = () => {
    const found = form.exec(location.hash);
    if (!found) return false;
    history.replaceState(null, "", location.pathname + location.search);
    keep(found);
    return true;
  };
  take();
  addEventListener("hashchange", () => { if (take()) location.reload(); });
}

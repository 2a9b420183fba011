// The phone's first page: connects this phone, then lists what waits for its payer.

import {
  byId, fail, fieldError, hush, lang, listen, once, online, pause, say, setPart, text, textOf,
  typed, view, wordsFor,
} from "./common.js";
import { known, meet } from "./helper.js";
import { askAs, enrol, load } from "./session.js";

// How often the list is looked at without being told, in milliseconds: payments end too.
const LOOK_EVERY = 15_000;

let session;
// Counts the looks: an answer that a later one has overtaken is dropped.
let looks = 0;

meet();

function showEnrol(signedOut) {
  byId("payments").hidden = true;
  byId("enrol").hidden = false;
  byId("signed-out").hidden = !signedOut;
  view("enrol");
}

function showList() {
  byId("enrol").hidden = true;
  byId("payments").hidden = false;
  byId("helper-note").hidden = known() === null;
  view("payments");
}

// Fetches the list. Returns false once the session is refused.
async function look() {
  looks += 1;
  const mine = looks;
  try {
    const answer = await askAs(session, "GET", `/phone/parts/payments?lang=${lang}`);
    const part = await textOf(answer);
    online(true);
    if (mine !== looks) return true;
    replaceList(part);
    if (document.body.dataset.view !== "payments") {
      fail("");
      showList();
    }
  } catch (failure) {
    if (failure.status === 401) {
      hush();
      showEnrol(true);
      return false;
    }
    if (failure.status === 0) online(false);
    if (document.body.dataset.view === "payments") return true; // what stands there may stay
    fail(wordsFor(failure));
    view("failed");
  }
  return true;
}

// Puts a new list in the place of the old; who stood on a payment stands on it again.
let latest;
function replaceList(part) {
  if (part === latest) return;
  const place = byId("payments-part");
  const chosen = document.activeElement?.closest?.("a.payment")?.dataset.payment;
  const before = new Set(idsIn(place));
  setPart(place, part);
  if (chosen) place.querySelector(`[data-payment="${chosen}"]`)?.focus();
  if (latest !== undefined && idsIn(place).some((id) => !before.has(id))) say(text("NewPayment"));
  else if (idsIn(place).length === 0) say("");
  latest = part;
}

function idsIn(place) {
  return [...place.querySelectorAll("[data-payment]")].map((item) => item.dataset.payment);
}

let watching = false;
async function watch() {
  if (watching) return;
  watching = true;
  const open = (signal, lastId) => {
    const more = lastId ? { "last-event-id": lastId } : {};
    return askAs(session, "GET", "/v1/phone/events", undefined, more, signal);
  };
  // What waits is told of at each beginning, one by one: one look is enough for all.
  let soon;
  const heard = () => {
    clearTimeout(soon);
    soon = setTimeout(look, 100);
  };
  const stream = listen(open, heard, () => { look(); });
  const ended = stream.then(() => true);
  while (await Promise.race([ended.then(() => false), pause(LOOK_EVERY).then(() => true)])) {
    if (!document.hidden && !(await look())) break;
  }
  watching = false;
}

async function begin() {
  try {
    session = await load();
  } catch (reason) {
    fail(text(reason.message));
    view("failed");
    return;
  }
  if (!session?.token) {
    showEnrol(false);
    return;
  }
  if (await look()) watch();
}

byId("enrol-form").addEventListener("submit", (event) => {
  event.preventDefault();
  once(async () => {
    hush();
    const input = byId("code");
    const code = typed(input).toUpperCase();
    if (!fieldError(input, /^[A-Z0-9]{24}$/.test(code) ? null : "CodeForm")) {
      input.focus();
      return;
    }
    say(text("Connecting"));
    try {
      session = await enrol(code.match(/.{4}/g).join("-"));
    } catch (failure) {
      say("");
      if (failure.status === 403 && failure.check === "enrolment-code") {
        fieldError(input, "CodeRefused");
        input.focus();
      } else {
        fail(failure.status === undefined ? text("NeedsStorage") : wordsFor(failure));
      }
      return;
    }
    byId("enrol-form").reset();
    if (await look()) {
      watch();
      say(text("Connected"));
      byId("payments-heading")?.focus();
    }
  });
});

for (const id of ["try-again", "retry"]) {
  byId(id).addEventListener("click", () => {
    hush();
    view("loading");
    byId("enrol").hidden = true;
    begin();
  });
}

document.addEventListener("timeup", () => { if (session) setTimeout(look, 1_000); });
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && watching) look();
});

begin();

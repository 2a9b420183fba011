// One payment on the phone: shows it, and sends the payer's answer, once.

import {
  afterwards, byId, check, fail, fieldError, hush, isBusy, lang, once, online, pause, say, setPart,
  text, textOf, typed, view, wordsFor,
} from "./common.js";
import { NoAnswer, confirm, known, meet } from "./helper.js";
import { askAs, load } from "./session.js";

// How often a payment that waits is looked at, in milliseconds: it may be answered elsewhere.
const LOOK_EVERY = 4_000;

const id = location.pathname.split("/").pop();
let session;
let state;

meet();

// Fetches the payment and shows it. `lead` says whether the focus goes to how it ended.
async function show(lead) {
  const path = `/phone/parts/payments/${id}`;
  const part = await textOf(await askAs(session, "GET", `${path}?lang=${lang}`));
  online(true);
  setPart(byId("payment"), part);
  state = byId("payment-view").dataset.state;
  const open = byId("approve-form") !== null;
  if (open) prepare();
  view(open ? "payment" : "ended");
  if (!open && lead) {
    hush();
    byId("result-heading").focus();
  }
}

function prepare() {
  if (known()) {
    const digits = byId("digits-area");
    if (digits && !typed(byId("digits"))) digits.open = false;
    byId("approve-helper").addEventListener("click", () => once(byHelper));
  }
  offerWays();
  byId("approve-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const digits = byId("digits");
    const wantsHelper = known() && (!digits || (!typed(digits) && !byId("digits-area").open));
    if (wantsHelper) once(byHelper);
    else if (digits) once(byDigits);
  });
  byId("reject-form").addEventListener("input", () => { byId("reason-error").textContent = ""; });
  byId("reject-form").addEventListener("submit", (event) => {
    event.preventDefault();
    once(reject);
  });
}

// Shows the ways that there are to confirm.
function offerWays() {
  byId("helper-area").hidden = !known();
  const none = byId("no-device");
  if (none) none.hidden = known() !== null;
  byId("match-area").hidden = !known() && none !== null;
}

const matchCode = () => typed(byId("match-code"));
const matchField = () => [byId("match-code"), /^\d{2}$/.test(matchCode()), "MatchForm"];

async function byDigits() {
  hush();
  const digits = byId("digits");
  const fields = [matchField(), [digits, /^\d{8}$/.test(typed(digits)), "DigitsForm"]];
  if (!check(fields)) return;
  const deviceSerial = byId("device").value;
  await answer({
    method: "ocra",
    deviceSerial,
    digits: typed(digits),
    matchCode: matchCode(),
  });
}

async function byHelper() {
  hush();
  if (!check([matchField()])) return;
  say(text("LookAtDevice"));
  let given;
  try {
    given = await confirm(byId("payment-view").dataset.request);
  } catch (reason) {
    if (!(reason instanceof NoAnswer)) throw reason;
    say("");
    fail(text(reason.words));
    offerWays();
    const digits = byId("digits-area");
    if (digits) digits.open = true;
    return;
  }
  await answer({ ...given, matchCode: matchCode() });
}

async function reject() {
  hush();
  const chosen = document.querySelector("input[name=reason]:checked");
  byId("reason-error").textContent = chosen ? "" : text("ReasonMissing");
  if (!chosen) {
    byId("reason-not-mine").focus();
    return;
  }
  await answer({ method: "reject", reason: chosen.value });
}

// Sends an answer, once. What became of it is what the server then shows of the payment.
async function answer(given) {
  say(text("Sending"));
  try {
    await askAs(session, "POST", `/v1/payments/${id}/authorisations`, given);
  } catch (failure) {
    await refused(failure);
    return;
  }
  await afterwards(show, "", text("AnswerUnknown"));
}

async function refused(failure) {
  say("");
  if (failure.status === 401) {
    signedOut();
  } else if (failure.status === 409) {
    await afterwards(show, text("AnsweredAlready"), text("AnswerUnknown"));
  } else if (failure.status === 422) {
    // It may have been the last try: then the payment has ended, and its end is shown.
    await afterwards(show, "", text("AnswerUnknown"));
    if (byId("approve-form")) {
      const reference = failure.incident ? text("Reference", { id: failure.incident }) : "";
      fail(`${text("AnswerRefused")} ${reference}`.trim());
      byId("match-code").focus();
    }
  } else if (failure.status === 0 || failure.status >= 500) {
    online(failure.status !== 0);
    fail(text("AnswerUnknown"));
  } else {
    fail(wordsFor(failure));
  }
}

function signedOut() {
  say("");
  location.assign(`/phone?lang=${lang}`);
}

// Looks whether the payment was answered elsewhere, taken back, or has run out of time.
async function look() {
  if (isBusy() || document.hidden || document.body.dataset.view !== "payment") return;
  try {
    const now = await (await askAs(session, "GET", `/v1/phone/payments/${id}`)).json();
    online(true);
    if (now.status !== state && !isBusy()) {
      await show(true);
      if (document.body.dataset.view === "ended") say(text("EndedMeanwhile"));
    }
    // An answer whose fate was unknown has not arrived: it may be given again.
    else if (byId("problem").textContent === text("AnswerUnknown")) fail("");
  } catch (failure) {
    if (failure.status === 401) signedOut();
    else if (failure.status === 0) online(false);
  }
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
    fail(text("NotConnected"));
    view("enrol");
    return;
  }
  try {
    await show(false);
  } catch (failure) {
    if (failure.status === 401) {
      signedOut();
      return;
    }
    online(failure.status !== 0);
    fail(failure.status === 404 ? text("NotYours") : wordsFor(failure));
    view("failed");
    return;
  }
  for (;;) {
    await pause(LOOK_EVERY);
    await look();
  }
}

byId("retry").addEventListener("click", () => {
  hush();
  location.reload();
});
document.addEventListener("timeup", () => setTimeout(look, 500));
document.addEventListener("visibilitychange", look);

begin();

// The checkout beside an initiating terminal: shows how a payment stands as it happens, and takes
// the digits of a device without a phone.

import {
  Failure, afterwards, ask, byId, check, fail, hush, isBusy, lang, listen, once, online, say,
  setPart, takeFragment, text, textOf, typed, view, wordsFor,
} from "./common.js";

const id = location.pathname.split("/").pop();
// The key came in the address, behind the #, which no server is sent. It stays in this tab.
const PLACE = `checkout:${id}`;
takeFragment(/^#([A-Za-z0-9_-]{22})$/, ([, key]) => sessionStorage.setItem(PLACE, key));
const key = sessionStorage.getItem(PLACE);

const headers = { authorization: `Checkout ${key}` };

async function show(lead) {
  const part = await textOf(await ask("GET", `/checkout/parts/${id}?lang=${lang}`, headers));
  online(true);
  const place = byId("checkout");
  const before = byId("checkout-view")?.dataset.state;
  setPart(place, part);
  const open = byId("match-code-shown") !== null;
  byId("offline-form")?.addEventListener("submit", (event) => {
    event.preventDefault();
    once(byDigits);
  });
  view(open ? "pending" : "ended");
  const heading = byId("result-heading");
  if (heading && before && before !== byId("checkout-view").dataset.state) {
    hush();
    if (lead) heading.focus();
    else say(heading.textContent);
  }
}

async function byDigits() {
  hush();
  const [serial, digits] = [byId("device-serial"), byId("digits")];
  const deviceSerial = serial.value.normalize("NFKC").trim();
  const fields = [
    [serial, deviceSerial !== "", "SerialForm"],
    [digits, /^\d{8}$/.test(typed(digits)), "DigitsForm"],
  ];
  if (!check(fields)) return;
  say(text("Sending"));
  const body = JSON.stringify({ deviceSerial, digits: typed(digits) });
  const more = { ...headers, "content-type": "application/json" };
  try {
    await ask("POST", `/v1/checkout/${id}/answers`, more, body);
  } catch (failure) {
    await refused(failure);
    return;
  }
  await afterwards(show, "", text("AnswerUnknown"));
}

async function refused(failure) {
  say("");
  if (failure.status === 409) {
    await afterwards(show, text("AnsweredAlready"), text("AnswerUnknown"));
  } else if (failure.status === 422) {
    // It may have been the last try: then the payment has ended, and its end is shown.
    await afterwards(show, "", text("AnswerUnknown"));
    if (!byId("offline-form")) return;
    const reference = failure.incident ? text("Reference", { id: failure.incident }) : "";
    fail(`${text("AnswerRefused")} ${reference}`.trim());
    byId("digits").focus();
  } else if (failure.status === 0 || failure.status >= 500) {
    fail(text("AnswerUnknown"));
  } else {
    fail(wordsFor(failure));
  }
}

function lost(failure) {
  if (failure.status === 401) {
    sessionStorage.removeItem(PLACE);
    byId("checkout").replaceChildren();
    fail(text("CheckoutNoKey"));
    view("no-key");
    return;
  }
  online(failure.status !== 0);
  fail(wordsFor(failure));
  view("failed");
}

async function begin() {
  if (!key) {
    lost(new Failure(401, "no-key"));
    return;
  }
  try {
    await show(false);
  } catch (failure) {
    lost(failure);
    return;
  }
  const open = (signal, lastId) => {
    if (document.body.dataset.view === "ended") throw new Failure(404, "ended");
    const last = lastId ?? byId("checkout-view").dataset.version;
    const more = { ...headers, "last-event-id": last };
    return ask("GET", `/v1/checkout/${id}/events`, more, undefined, signal);
  };
  const heard = async () => {
    if (isBusy()) return; // the answer under way shows what became of it
    try {
      await show(false);
    } catch (failure) {
      if (failure.status === 0) online(false);
    }
  };
  await listen(open, heard, (failure) => { if (failure.status === 401) lost(failure); });
}

byId("retry").addEventListener("click", () => { location.reload(); });
document.addEventListener("timeup", () => setTimeout(() => show(false).catch(() => {}), 500));

begin();

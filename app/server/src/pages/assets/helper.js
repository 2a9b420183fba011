// The helper: a program on this computer that has the security device. It is told of by the address
// that it prints, `#helper=PORT.TOKEN`; each token is good for one request, and its answer brings
// the next.

import { takeFragment } from "./common.js";

const FRAGMENT = /^#helper=(\d{1,5})\.([A-Za-z0-9_-]{16,128})$/;
// In this tab only, and gone with it.
const PLACE = "helper";

// Keeps what the address says of a helper. To be called before anything else of a page.
export function meet() {
  takeFragment(FRAGMENT, ([, port, token]) => {
    // Below are the ports of the system's services.
    if (Number(port) >= 1024) remember({ port: Number(port), token });
  });
}

function remember(helper) {
  if (helper) sessionStorage.setItem(PLACE, JSON.stringify(helper));
  else sessionStorage.removeItem(PLACE);
}

// The helper that this tab knows, or null.
export function known() {
  try {
    return JSON.parse(sessionStorage.getItem(PLACE));
  } catch {
    return null;
  }
}

// Which words fit to the helper's refusals.
const WORDS = {
  "helper-token": "HelperToken",
  "helper-busy": "HelperBusy",
  "declined": "HelperDeclined",
  "pin-wrong": "HelperPinWrong",
  "pin-blocked": "HelperPinBlocked",
  "pin-locked": "HelperPinBlocked",
};

// Why the helper has no answer; `words` is a key of the texts.
export class NoAnswer extends Error {
  constructor(words) {
    super(words);
    this.words = words;
  }
}

// A device's answer and nothing else of what a helper says: whoever listens on its port.
function answerOf(said) {
  const { method, deviceSerial, signature, digits } = said ?? {};
  if (typeof deviceSerial !== "string") return null;
  if (method === "pki" && typeof signature === "string") return { method, deviceSerial, signature };
  if (method === "ocra" && typeof digits === "string") return { method, deviceSerial, digits };
  return null;
}

// Has the device confirm a payment's request: its answer, as the server wants it. It takes as long
// as the holder takes; nothing is sent a second time.
export async function confirm(request) {
  const { port, token } = known() ?? {};
  if (!port) throw new NoAnswer("HelperGone");
  let response;
  let said;
  try {
    response = await fetch(`http://127.0.0.1:${port}/confirm`, {
      method: "POST",
      mode: "cors",
      credentials: "omit",
      cache: "no-store",
      redirect: "error",
      referrerPolicy: "no-referrer",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ token, request }),
    });
    said = await response.json();
  } catch {
    throw new NoAnswer("HelperGone");
  }
  if (typeof said.next === "string") remember({ port, token: said.next });
  const given = response.ok ? answerOf(said.answer) : null;
  if (given) return given;
  const name = String(said.error?.check ?? "");
  if (name === "helper-token") remember(null);
  const shown = WORDS[name] ?? (name.startsWith("request-") ? "HelperRequest" : "HelperNoDevice");
  throw new NoAnswer(shown);
}

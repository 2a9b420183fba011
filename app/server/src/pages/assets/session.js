// The phone's session: a token, and a key that this browser does not give away. Each request
// carries a proof made with the key (DPoP, RFC 9449), so that the token alone opens nothing,
// wherever it was read.

import { Failure, ask, serverNow } from "./common.js";

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256" };
const SIGNATURE = { name: "ECDSA", hash: "SHA-256" };
// How far the clock may have been off before a refused request is worth another try, in
// milliseconds.
const CLOCK_OFF = 5_000;

const bytesOf = (words) => new TextEncoder().encode(words);

function base64url(bytes) {
  const letters = btoa(String.fromCharCode(...new Uint8Array(bytes)));
  return letters.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

const sha256 = async (words) => base64url(await crypto.subtle.digest("SHA-256", bytesOf(words)));

// Where the session is kept: a database of this site, in this browser. The key lies in it as an
// object that signs, not as bytes.
function database() {
  return new Promise((done, failed) => {
    const opening = indexedDB.open("countersign", 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore("session");
    opening.onsuccess = () => done(opening.result);
    opening.onerror = () => failed(opening.error);
  });
}

async function inStore(mode, work) {
  const opened = await database();
  try {
    return await new Promise((done, failed) => {
      const transaction = opened.transaction("session", mode);
      const asked = work(transaction.objectStore("session"));
      transaction.oncomplete = () => done(asked.result);
      transaction.onabort = () => failed(transaction.error);
    });
  } finally {
    opened.close();
  }
}

const keep = (name, session) => inStore("readwrite", (store) => store.put(session, name));

// The session of this phone, or nothing. Why there can be none is a key of the texts.
export async function load() {
  if (!self.isSecureContext || !self.crypto?.subtle) throw new Error("NeedsSecureContext");
  try {
    return await inStore("readonly", (store) => store.get("phone"));
  } catch {
    throw new Error("NeedsStorage");
  }
}

// Connects this phone with a one-time code. The key is kept before the code is used: a browser that
// keeps nothing must not use up the code.
export async function enrol(code) {
  const pair = await crypto.subtle.generateKey(ALGORITHM, false, ["sign"]);
  const { kty, crv, x, y } = await crypto.subtle.exportKey("jwk", pair.publicKey);
  const session = { privateKey: pair.privateKey, publicJwk: { kty, crv, x, y } };
  try {
    await keep("enrolling", session);
  } catch {
    throw new Error("NeedsStorage");
  }
  const body = JSON.stringify({ code, sessionKey: session.publicJwk });
  const headers = { "content-type": "application/json" };
  const answer = await ask("POST", "/v1/phone/enrolments", headers, body);
  session.token = (await answer.json()).token;
  await keep("phone", session);
  await inStore("readwrite", (store) => store.delete("enrolling"));
  return session;
}

// The proof for one request, good once and for a minute.
async function proofOf(session, method, path, body) {
  const url = new URL(path, location.href);
  const header = { typ: "dpop+jwt", alg: "ES256", jwk: session.publicJwk };
  const claims = {
    jti: base64url(crypto.getRandomValues(new Uint8Array(16))),
    htm: method,
    htu: url.origin + url.pathname,
    iat: Math.floor(serverNow() / 1_000),
    ath: await sha256(session.token),
  };
  if (body) claims.bh = await sha256(body);
  const written = [header, claims].map((part) => base64url(bytesOf(JSON.stringify(part))));
  const input = written.join(".");
  const signature = await crypto.subtle.sign(SIGNATURE, session.privateKey, bytesOf(input));
  return `${input}.${base64url(signature)}`;
}

// Asks the server as this phone. A refusal that came of a wrong clock, which the refusal itself has
// set right, is asked again once: the server has done nothing for the first.
export async function askAs(session, method, path, value, more = {}, signal = undefined) {
  const body = value === undefined ? undefined : JSON.stringify(value);
  const attempt = async () => {
    const headers = {
      ...more,
      authorization: `DPoP ${session.token}`,
      dpop: await proofOf(session, method, path, body),
    };
    if (body) headers["content-type"] = "application/json";
    return ask(method, path, headers, body, signal);
  };
  const before = serverNow() - Date.now();
  try {
    return await attempt();
  } catch (failure) {
    const moved = Math.abs(serverNow() - Date.now() - before);
    const again = failure instanceof Failure && failure.status === 401 && moved > CLOCK_OFF;
    if (!again) throw failure;
    return attempt();
  }
}

//! Pages that others frame, call or rob: clickjacking, requests across sites, stolen sessions.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use libtest_mimic::Failed;
use serde_json::{Value, json};
use testkit::parts::Chromium;

use crate::Check;
use crate::bank::{Bank, Said};
use crate::browser::Browser;
use crate::foreign_site::ForeignSite;
use crate::host::Database;

pub(crate) const TRIALS: [(&str, Check); 6] = [
    ("another_site_cannot_frame_a_page", another_site_cannot_frame_a_page),
    ("another_site_cannot_send_an_answer", another_site_cannot_send_an_answer),
    ("a_stolen_token_is_of_no_use_elsewhere", a_stolen_token_is_of_no_use_elsewhere),
    ("a_proof_is_good_once_and_for_one_request", a_proof_is_good_once_and_for_one_request),
    ("the_phones_key_does_not_leave_the_browser", the_phones_key_does_not_leave_the_browser),
    ("markup_in_a_payment_is_only_text", markup_in_a_payment_is_only_text),
];

/// How long an answer over a socket may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// What the page keeps, as an expression for a script.
const KEPT: &str = "await new Promise((done, failed) => {
    const opening = indexedDB.open('countersign');
    opening.onerror = () => failed(opening.error);
    opening.onsuccess = () => {
        const asking = opening.result.transaction('session').objectStore('session').get('phone');
        asking.onerror = () => failed(asking.error);
        asking.onsuccess = () => done(asking.result);
    };
})";
/// Puts what the page sends next to this path into `window.caught`, and does not send it.
const CATCH: &str = "
    const send = window.fetch;
    window.fetch = async (input, options) => {
        const request = new Request(input, options);
        if (!new URL(request.url).pathname.startsWith('/phone/parts/')) return send(input, options);
        window.caught = Object.fromEntries(request.headers);
        throw new TypeError('caught');
    };";

impl Bank {
    /// A request as any program can make it, to a server that speaks plain HTTP.
    fn say(&self, line: &str, heads: &[(&str, &str)], body: &str) -> Result<Said, Failed> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.ports.https))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut head = format!("{line} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\n", self.ports.https);
        for (name, value) in heads {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        write!(stream, "{head}connection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let split = answer.windows(4).position(|end| end == b"\r\n\r\n").ok_or("no answer")?;
        let head = String::from_utf8(answer[..split].to_vec())?;
        let status = head.get(9..12).ok_or("no status")?.parse()?;
        Ok(Said { status, head: head.to_lowercase(), body: answer[split + 4..].to_vec() })
    }

    /// Refused with this status and check.
    fn say_refused(
        &self,
        line: &str,
        heads: &[(&str, &str)],
        body: &str,
        (status, check): (u16, &str),
    ) -> Result<(), Failed> {
        let said = self.say(line, heads, body)?;
        let told: Value = serde_json::from_slice(&said.body)?;
        assert_eq!((said.status, &told["check"]), (status, &json!(check)), "{line}: {told}");
        Ok(())
    }
}

fn another_site_cannot_frame_a_page(chromium: &Chromium) -> Result<(), Failed> {
    let bank = Bank::plain(&Database::Sqlite)?;
    let id = bank.pending("12.34")?;
    let checkout = bank.checkout(&id)?.url;
    let phone = Browser::open(chromium, "en")?;
    bank.connect(&phone)?;
    let frame = |id: &str, url: &str| format!("<iframe id='{id}' src='{url}'></iframe>");
    let site = ForeignSite::serve(&[
        ("/own", "<p id='own'>free prizes</p>".to_owned()),
        (
            "/",
            [
                frame("control", "/own"),
                frame("phone", &format!("{}/phone", bank.url())),
                frame("payment", &format!("{}/phone/payments/{id}", bank.url())),
                frame("checkout", &checkout),
            ]
            .concat(),
        ),
    ])?;
    // In the browser that is connected as the payer's phone.
    phone.go(&site.url("/"))?;
    assert_eq!(phone.in_frame("#control", |page| page.text("#own"))?, "free prizes");
    for framed in ["#phone", "#payment", "#checkout"] {
        phone.in_frame(framed, |page| {
            assert!(!page.shows("#main")?, "{framed}: {}", page.text("body")?);
            let own = page.script("return document.URL", Vec::new())?;
            let own = own.as_str().unwrap_or_default();
            assert!(own.starts_with("chrome-error:"), "{framed}: {own}");
            Ok(())
        })?;
    }
    // Neither for a browser that says nothing of where it frames.
    for path in ["/phone", &format!("/phone/payments/{id}"), &format!("/checkout/{id}")] {
        let said = bank.say(&format!("GET {path}"), &[], "")?;
        assert_eq!(said.status, 200, "{path}");
        for head in ["frame-ancestors 'none'", "x-frame-options: deny", "no-referrer", "nosniff"] {
            assert!(said.head.contains(head), "{path}: {head}: {}", said.head);
        }
    }
    Ok(())
}

fn another_site_cannot_send_an_answer(chromium: &Chromium) -> Result<(), Failed> {
    let mut bank = Bank::plain(&Database::Sqlite)?;
    bank.phone("phone")?;
    let id = bank.pending("12.34")?;
    // The thief even has the token of a phone that is a program's, without a key of its own.
    let token = std::fs::read_to_string(bank.host.path("phone/token"))?;
    let bearer = format!("Bearer {}", token.trim());
    let target = format!("/v1/payments/{id}/authorisations");
    let answer = r#"{"method":"reject","reason":"changed-mind"}"#;
    let url = format!("{}{target}", bank.url());
    let form = format!(
        "<form id='f' method='post' enctype='text/plain' action='{url}'>\
         <input name='{{\"method\":\"reject\",\"reason\":\"changed-mind\",\"x\":\"' value='\"}}'>\
         </form>"
    );
    let site = ForeignSite::serve(&[("/", "<h1>free prizes</h1>".to_owned()), ("/form", form)])?;
    let thief = Browser::open(chromium, "en")?;
    thief.go(&site.url("/"))?;
    let call = |mode: &str, heads: &Value| {
        format!(
            "(await fetch('{url}', {{ method: 'POST', mode: '{mode}', headers: {heads}, \
             body: '{answer}' }})).type"
        )
    };
    let heads = json!({ "content-type": "application/json", "authorization": bearer });
    assert_eq!(
        thief.promise(&format!("await {}", &call("cors", &heads)))?,
        json!("error: TypeError")
    );
    let blind = thief.promise(&call("no-cors", &json!({ "content-type": "text/plain" })))?;
    assert_eq!(blind, json!("opaque"), "it arrives, and nothing can be read");
    thief.go(&site.url("/form"))?;
    thief.script("document.getElementById('f').submit()", Vec::new())?;
    thief.wait("an answer", |page| Ok(page.url()?.starts_with(&bank.url())))?;
    assert_eq!(bank.stands(&id)?.0, "pending", "nothing came of any");

    // The same as bytes: refused for where it comes from, before anything else is looked at.
    let heads = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let line = format!("POST {target}");
    for from in ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost"] {
        let heads = [&heads[..], &[("origin", from)]].concat();
        bank.say_refused(&line, &heads, answer, (403, "origin"))?;
    }
    for site in ["cross-site", "same-site"] {
        let heads = [&heads[..], &[("sec-fetch-site", site), ("sec-fetch-mode", "cors")]].concat();
        bank.say_refused(&line, &heads, answer, (403, "origin"))?;
    }
    assert_eq!(bank.stands(&id)?.0, "pending");
    let own = bank.url();
    let heads =
        [&heads[..], &[("origin", own.as_str()), ("sec-fetch-site", "same-origin")]].concat();
    assert_eq!(bank.say(&line, &heads, answer)?.status, 201, "from its own page it is taken");
    assert_eq!(bank.stands(&id)?, ("rejected".to_owned(), json!("changed-mind")));
    bank.books_hold()
}

/// The token is taken out of the payer's browser; without the key beside it, it opens nothing.
fn a_stolen_token_is_of_no_use_elsewhere(chromium: &Chromium) -> Result<(), Failed> {
    let mut bank = Bank::plain(&Database::Sqlite)?;
    bank.phone("phone")?;
    let id = bank.pending("12.34")?;
    let phone = Browser::open(chromium, "en")?;
    bank.connect(&phone)?;
    let token = phone.promise(&format!("({KEPT}).token"))?;
    let token = token.as_str().filter(|token| token.starts_with("csp_")).ok_or("no token")?;

    // By a program: alone, or as what it is but without a proof.
    let program = std::fs::read_to_string(bank.host.path("phone/token"))?;
    for path in ["/v1/phone", "/v1/phone/payments", "/phone/parts/payments"] {
        let line = format!("GET {path}");
        for scheme in ["Bearer", "DPoP"] {
            let stolen = format!("{scheme} {token}");
            bank.say_refused(&line, &[("authorization", &stolen)], "", (401, "token"))?;
        }
        let good = format!("Bearer {}", program.trim());
        assert_eq!(bank.say(&line, &[("authorization", &good)], "")?.status, 200, "{path}");
    }
    let line = format!("POST /v1/payments/{id}/authorisations");
    let (stolen, reject) =
        (format!("Bearer {token}"), r#"{"method":"reject","reason":"not-mine"}"#);
    let heads = [("authorization", stolen.as_str()), ("content-type", "application/json")];
    bank.say_refused(&line, &heads, reject, (401, "token"))?;

    // By another browser, which has a key of its own and puts the token beside it.
    let thief = Browser::open(chromium, "en")?;
    bank.connect(&thief)?;
    let swap = format!(
        "const kept = {KEPT}; kept.token = '{token}';
         await new Promise(done => {{
            const opening = indexedDB.open('countersign');
            opening.onsuccess = () => {{
                const change = opening.result.transaction('session', 'readwrite');
                change.objectStore('session').put(kept, 'phone');
                change.oncomplete = () => done();
            }};
         }})"
    );
    thief.promise(&format!("await (async () => {{ {swap} }})()"))?;
    thief.go(&format!("{}/phone", bank.url()))?;
    thief.wait_view("enrol")?;
    assert!(thief.shows("#signed-out")?, "{}", thief.text("main")?);
    assert!(!thief.text("body")?.contains("12.34"));
    // The payer's own browser notices nothing.
    phone.reload()?;
    phone.wait_for(&format!("#payment-list a.payment[data-payment='{id}']"))?;
    assert_eq!(bank.stands(&id)?.0, "pending");
    bank.books_hold()
}

/// A proof that was seen on its way is worth what it was made for, once.
fn a_proof_is_good_once_and_for_one_request(chromium: &Chromium) -> Result<(), Failed> {
    let mut bank = Bank::plain(&Database::Sqlite)?;
    let id = bank.pending("12.34")?;
    let phone = Browser::open(chromium, "en")?;
    bank.connect(&phone)?;
    phone.devtools("Page.addScriptToEvaluateOnNewDocument", &json!({ "source": CATCH }))?;
    // The page makes a proof for each request; the request is kept from leaving.
    let caught = || -> Result<(String, String), Failed> {
        phone.go(&format!("{}/phone", bank.url()))?;
        phone.wait("a request", |page| {
            Ok(page.script("return window.caught ?? null", Vec::new())? != Value::Null)
        })?;
        let heads = phone.script("return window.caught", Vec::new())?;
        let text = |name: &str| heads[name].as_str().map(str::to_owned).ok_or("not in the head");
        Ok((text("authorization")?, text("dpop")?))
    };
    let line = "GET /phone/parts/payments";
    let (token, proof) = caught()?;
    let heads = [("authorization", token.as_str()), ("dpop", proof.as_str())];
    let said = bank.say(line, &heads, "")?;
    let shown = String::from_utf8(said.body)?;
    assert!(said.status == 200 && shown.contains(&id), "the first to use it: {shown}");
    bank.say_refused(line, &heads, "", (401, "token"))?;

    // For another page, by another method, or after it was changed.
    for other in ["GET /v1/phone/payments", "HEAD /phone/parts/payments"] {
        let (token, proof) = caught()?;
        let heads = [("authorization", token.as_str()), ("dpop", proof.as_str())];
        assert_eq!(bank.say(other, &heads, "")?.status, 401, "{other}");
    }
    let reject = r#"{"method":"reject","reason":"not-mine"}"#;
    let (token, proof) = caught()?;
    let heads = [("authorization", token.as_str()), ("dpop", proof.as_str())];
    let heads = [&heads[..], &[("content-type", "application/json")]].concat();
    let answer = format!("POST /v1/payments/{id}/authorisations");
    bank.say_refused(&answer, &heads, reject, (401, "token"))?;
    let (token, proof) = caught()?;
    let (signed, signature) = proof.rsplit_once('.').ok_or("no signature")?;
    let changed = format!("{signed}.{}", signature.chars().rev().collect::<String>());
    let heads = [("authorization", token.as_str()), ("dpop", changed.as_str())];
    bank.say_refused(line, &heads, "", (401, "token"))?;
    assert_eq!(bank.stands(&id)?.0, "pending");
    bank.books_hold()
}

fn the_phones_key_does_not_leave_the_browser(chromium: &Chromium) -> Result<(), Failed> {
    let bank = Bank::new(&Database::Sqlite)?;
    let phone = Browser::open(chromium, "en")?;
    bank.connect(&phone)?;
    let kept = phone.promise(&format!("Object.keys({KEPT}).sort()"))?;
    assert_eq!(kept, json!(["privateKey", "publicJwk", "token"]));
    let key = format!("({KEPT}).privateKey");
    assert_eq!(phone.promise(&format!("({key}).type"))?, json!("private"));
    assert_eq!(phone.promise(&format!("({key}).extractable"))?, json!(false));
    for format in ["pkcs8", "jwk", "raw"] {
        let export = format!("await crypto.subtle.exportKey('{format}', {key}).then(() => 'out')");
        let told = phone.promise(&export)?;
        assert!(told.as_str().is_some_and(|told| told.starts_with("error: ")), "{format}: {told}");
    }
    // It signs, so the expression did find a key; and nothing of it lies elsewhere.
    let sign = format!(
        "(await crypto.subtle.sign({{ name: 'ECDSA', hash: 'SHA-256' }}, {key}, \
         new Uint8Array(1))).byteLength"
    );
    assert_eq!(phone.promise(&sign)?, json!(64));
    assert_eq!(phone.promise(&format!("({KEPT}).publicJwk.d ?? 'none'"))?, json!("none"));
    let elsewhere = "return [document.cookie, localStorage.length, sessionStorage.length]";
    assert_eq!(phone.script(elsewhere, Vec::new())?, json!(["", 0, 0]));
    Ok(())
}

/// What a shop writes is shown as it stands, on every page.
fn markup_in_a_payment_is_only_text(chromium: &Chromium) -> Result<(), Failed> {
    let bank = Bank::new(&Database::Sqlite)?;
    let markup = "<img src=x onerror=alert(1)><b>2 & teas";
    let words = ["pay", "--from", "PAYER0001", "--to", "SHOP0001", "--payee", markup];
    let more = ["--currency", "CNY", "--order", markup, "--amount", "1.00", "--no-wait"];
    let asked = bank.run("till", &[&words[..], &more].concat())?.ok()?.json()?;
    let id = asked["id"].as_str().ok_or("no id")?;
    let phone = Browser::open(chromium, "en")?;
    bank.connect(&phone)?;
    let item = format!("#payment-list a.payment[data-payment='{id}']");
    phone.wait_for(&item)?;
    assert!(phone.text(&item)?.contains(markup), "{}", phone.text(&item)?);
    bank.look_at(&phone, id)?;
    assert_eq!(
        (phone.text("#order")?, phone.text("#payee-name")?),
        (markup.to_owned(), markup.to_owned())
    );
    phone.go(&bank.checkout(id)?.url)?;
    phone.wait_view("pending")?;
    assert_eq!(
        (phone.text("#order")?, phone.text("#payee-name")?),
        (markup.to_owned(), markup.to_owned())
    );
    let made = "return document.querySelectorAll('main img, main b').length";
    assert_eq!(phone.script(made, Vec::new())?, json!(0));
    Ok(())
}

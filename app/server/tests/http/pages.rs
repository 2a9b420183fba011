//! The pages of phone and checkout: headers, languages, parts, and what others wrote in them (D2).

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use countersign_server::http;
use serde_json::json;

use crate::bank::{Bank, order_with};
use crate::browsers::Browser;
use crate::world::{Answer, World, build};

const HOST: &str = "pay.test:8443";

/// A request as a browser sends it that opens an address.
fn opened(path: &str, language: &str) -> Request<Body> {
    Request::get(path)
        .header(header::HOST, HOST)
        .header(header::ACCEPT, "text/html,application/xhtml+xml,*/*;q=0.8")
        .header(header::ACCEPT_LANGUAGE, language)
        .header("sec-fetch-site", "none")
        .header("sec-fetch-mode", "navigate")
        .header("sec-fetch-dest", "document")
        .body(Body::empty())
        .unwrap()
}

async fn open(world: &World, path: &str) -> Answer {
    world.send(opened(path, "en")).await
}

fn part(path: &str, authorisation: &str) -> Request<Body> {
    let mut request = build(Method::GET, path, "", Body::empty());
    request.headers_mut().insert(header::HOST, HOST.parse().unwrap());
    request.headers_mut().insert(header::AUTHORIZATION, authorisation.parse().unwrap());
    request
}

/// The key of a payment's checkout.
async fn checkout_key(bank: &Bank, id: &str) -> String {
    let path = format!("/v1/payments/{id}/checkout");
    let told = bank.world.send(part(&path, &format!("Bearer {}", bank.till))).await.json();
    told["url"].as_str().unwrap_or_else(|| panic!("{told}")).split_once('#').unwrap().1.to_owned()
}

/// Checks the headers that every page, part and file has.
#[track_caller]
fn assert_kept_to_itself(answer: &Answer, helper: bool) {
    let policy = answer.header("content-security-policy");
    for rule in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",
    ] {
        assert!(policy.split("; ").any(|given| given == rule), "{rule}: {policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains("* "), "{policy}");
    assert_eq!(policy.contains("http://127.0.0.1:*"), helper, "{policy}");
    for (name, value) in [
        ("x-frame-options", "DENY"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    assert!(answer.header("permissions-policy").contains("camera=()"));
    assert_eq!(answer.header("set-cookie"), "", "no cookie lets anyone in");
}

#[tokio::test]
async fn every_page_part_and_file_keeps_to_itself() {
    let bank = Bank::new().await;
    let payer = bank.payer("KEY-1", "PAYER0001").await;
    let id = bank.pending("k-1").await["id"].as_str().unwrap().to_owned();
    let key = checkout_key(&bank, &id).await;
    let (bearer, checkout) = (format!("Bearer {}", payer.phone), format!("Checkout {key}"));
    for (request, helper) in [
        (opened("/phone", "en"), true),
        (opened(&format!("/phone/payments/{id}"), "en"), true),
        (part("/phone/parts/payments", &bearer), true),
        (part(&format!("/phone/parts/payments/{id}"), &bearer), true),
        (opened(&format!("/checkout/{id}"), "en"), false),
        (part(&format!("/checkout/parts/{id}"), &checkout), false),
    ] {
        let path = request.uri().path().to_owned();
        let shown = bank.world.send(request).await;
        assert_eq!(shown.status, StatusCode::OK, "{path}: {shown:?}");
        assert_kept_to_itself(&shown, helper);
        assert_eq!(shown.header("content-type"), "text/html; charset=utf-8", "{path}");
        assert_eq!(shown.header("cache-control"), "no-store", "{path}");
    }
    // Refusals too: they are rendered where a page was to be.
    for path in ["/phone/parts/payments", "/checkout/parts/pay_x"] {
        let refused = bank.world.send(part(path, "Bearer none")).await;
        refused.assert_check(401, "token");
        assert_kept_to_itself(&refused, path.starts_with("/phone"));
    }
    for path in ["/nothing", "/assets/nothing.js", "/phone/payments"] {
        let missing = open(&bank.world, path).await;
        assert_eq!(missing.status, StatusCode::NOT_FOUND);
        assert_kept_to_itself(&missing, false);
    }
}

#[tokio::test]
async fn browsers_are_told_to_keep_to_https_where_it_is_configured() {
    let mut world = World::new().await;
    let paths = ["/phone", "/checkout/pay_1", "/assets/page.css", "/checkout/parts/pay_1", "/no"];
    for (public, said) in [
        (None, ""),
        (Some("https://localhost:8443"), ""),
        (Some("https://pay.test:8443"), "max-age=31536000"),
    ] {
        world.router = http::router(
            world.service.clone(),
            http::metrics::install(),
            tokio::sync::watch::channel(false).1,
            http::Site::new(false, public.map(str::to_owned)),
        );
        for path in paths {
            let shown = open(&world, path).await;
            let header = shown.header("strict-transport-security");
            assert_eq!(header, said, "{public:?} {path}");
        }
    }
}

#[tokio::test]
async fn files_are_typed_and_not_sent_twice() {
    let world = World::new().await;
    for (name, kind) in [
        ("page.css", "text/css; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
        ("common.js", "text/javascript; charset=utf-8"),
        ("payment.js", "text/javascript; charset=utf-8"),
    ] {
        let path = format!("/assets/{name}");
        let file = open(&world, &path).await;
        assert_eq!((file.status, file.header("content-type")), (StatusCode::OK, kind));
        assert_eq!(file.header("cache-control"), "no-cache");
        assert_kept_to_itself(&file, false);
        let etag = file.header("etag").to_owned();
        let mut again = opened(&path, "en");
        again.headers_mut().insert(header::IF_NONE_MATCH, etag.parse().unwrap());
        let again = world.send(again).await;
        assert_eq!((again.status, again.text.as_str()), (StatusCode::NOT_MODIFIED, ""));
        assert_eq!(again.header("etag"), etag);
        let mut other = opened(&path, "en");
        other.headers_mut().insert(header::IF_NONE_MATCH, "\"0\"".parse().unwrap());
        assert_eq!(world.send(other).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn the_language_is_chosen_or_the_browsers() {
    let world = World::new().await;
    for (path, accepted, tag, words) in [
        ("/phone", "en-GB,en;q=0.9", "en", "Connect this phone"),
        ("/phone", "zh-CN,zh;q=0.9,en;q=0.1", "zh-Hans", "绑定本手机"),
        ("/phone?lang=zh", "en", "zh-Hans", "绑定本手机"),
        ("/phone?lang=en", "zh", "en", "Connect this phone"),
        ("/phone?lang=%22%3E%3Cscript%3E", "fr", "en", "Connect this phone"),
        ("/checkout/pay_1?lang=zh", "en", "zh-Hans", "正在加载"),
    ] {
        let page = world.send(opened(path, accepted)).await;
        assert!(page.text.contains(&format!("<html lang=\"{tag}\">")), "{path}: {}", page.text);
        assert!(page.text.contains(words), "{path}: {}", page.text);
        assert_eq!(page.header("vary"), "Accept-Language");
        assert!(page.text.contains("href=\"?lang=en\"") && page.text.contains("href=\"?lang=zh\""));
    }
}

#[tokio::test]
async fn a_shell_tells_nothing_to_who_has_proven_nothing() {
    let bank = Bank::new().await;
    let id = bank.pending("k-1").await["id"].as_str().unwrap().to_owned();
    for path in ["/phone/payments/", "/checkout/"] {
        let known = open(&bank.world, &format!("{path}{id}")).await;
        let unknown = open(&bank.world, &format!("{path}pay_none")).await;
        assert_eq!((known.status, unknown.status), (StatusCode::OK, StatusCode::OK));
        assert_eq!(known.text, unknown.text, "{path}: alike, whether there is such a payment");
        for said in ["Tea Shop", "12.34", "PAYER0001", "SHOP0001"] {
            assert!(!known.text.contains(said), "{path}: {said}");
        }
    }
}

#[tokio::test]
async fn parts_are_for_who_proves_that_they_are_theirs() {
    let bank = Bank::new().await;
    let payer = bank.payer("KEY-1", "PAYER0001").await;
    let other = bank.payer("KEY-2", "SHOP0001").await;
    let id = bank.pending("k-1").await["id"].as_str().unwrap().to_owned();
    let (list, one) = ("/phone/parts/payments", format!("/phone/parts/payments/{id}"));
    let get = async |path: &str, token: &str| {
        bank.world.send(part(path, &format!("Bearer {token}"))).await
    };
    assert!(get(list, &payer.phone).await.text.contains(&format!("data-payment=\"{id}\"")));
    assert!(get(&one, &payer.phone).await.text.contains("id=\"approve-form\""));
    assert!(get(list, &other.phone).await.text.contains("id=\"payments-empty\""));
    get(&one, &other.phone).await.assert_check(404, "not-found");
    for token in ["", "csp_wrong", &bank.world.admin, &bank.till] {
        get(list, token).await.assert_check(401, "token");
        get(&one, token).await.assert_check(401, "token");
    }
    // The checkout's key opens its own payment and nothing else.
    let second = bank.ask("k-2", &order_with("/endToEndIdentification", json!("O-2"))).await.json();
    let (key, second) = (checkout_key(&bank, &id).await, second["id"].as_str().unwrap().to_owned());
    let shown =
        bank.world.send(part(&format!("/checkout/parts/{id}"), &format!("Checkout {key}"))).await;
    assert!(shown.text.contains("id=\"match-code-shown\""), "{shown:?}");
    assert!(!shown.text.contains("PAYE R000 1"), "the payer's account is not for bystanders");
    for (path, authorisation) in [
        (format!("/checkout/parts/{second}"), format!("Checkout {key}")),
        (format!("/checkout/parts/{id}"), format!("Bearer {}", payer.phone)),
        (one.clone(), format!("Checkout {key}")),
    ] {
        bank.world.send(part(&path, &authorisation)).await.assert_check(401, "token");
    }
}

#[tokio::test]
async fn a_browsers_part_needs_a_proof_for_that_very_part() {
    let bank = Bank::new().await;
    let browser = Browser::enrolled(&bank.world, "PAYER0001").await;
    let id = bank.pending("k-1").await["id"].as_str().unwrap().to_owned();
    let path = format!("/phone/parts/payments/{id}");
    let shown = browser.get(&bank.world, &path).await;
    assert_eq!(shown.status, StatusCode::OK, "{shown:?}");
    assert!(shown.text.contains("data-state=\"pending\""), "{shown:?}");
    // Its token, read somewhere and used without the key.
    let stolen = bank.world.send(part(&path, &format!("Bearer {}", browser.token))).await;
    stolen.assert_check(401, "token");
}

#[tokio::test]
async fn what_a_shop_wrote_stays_text_on_both_screens() {
    let bank = Bank::new().await;
    let payer = bank.payer("KEY-1", "PAYER0001").await;
    let order = order_with("/remittanceInformation", json!("</dd><img src=x onerror=alert(1)>"));
    let asked = bank.ask("k-1", &order).await.json();
    let id = asked["id"].as_str().unwrap_or_else(|| panic!("{asked}"));
    let key = checkout_key(&bank, id).await;
    for (path, authorisation) in [
        ("/phone/parts/payments".to_owned(), format!("Bearer {}", payer.phone)),
        (format!("/phone/parts/payments/{id}"), format!("Bearer {}", payer.phone)),
        (format!("/checkout/parts/{id}"), format!("Checkout {key}")),
    ] {
        let shown = bank.world.send(part(&path, &authorisation)).await;
        assert_eq!(shown.status, StatusCode::OK, "{shown:?}");
        assert!(!shown.text.contains("<img"), "{path}: {}", shown.text);
        assert!(shown.text.contains("&lt;/dd&gt;&lt;img src=x onerror=alert(1)&gt;"), "{path}");
    }
}

#[tokio::test]
async fn parts_speak_the_language_that_was_asked_for() {
    let bank = Bank::new().await;
    let payer = bank.payer("KEY-1", "PAYER0001").await;
    let id = bank.pending("k-1").await["id"].as_str().unwrap().to_owned();
    for (lang, words) in [("zh", "收款人"), ("en", "Account of the payee")] {
        let path = format!("/phone/parts/payments/{id}?lang={lang}");
        let shown = bank.world.send(part(&path, &format!("Bearer {}", payer.phone))).await;
        assert!(shown.text.contains(words), "{lang}: {}", shown.text);
        let list = format!("/phone/parts/payments?lang={lang}");
        let list = bank.world.send(part(&list, &format!("Bearer {}", payer.phone))).await;
        assert!(list.text.contains(&format!("/phone/payments/{id}?lang={lang}")), "{list:?}");
    }
}

#[tokio::test]
async fn a_rejection_is_shown_on_both_screens() {
    let bank = Bank::new().await;
    let payer = bank.payer("KEY-1", "PAYER0001").await;
    let id = bank.pending("k-1").await["id"].as_str().unwrap().to_owned();
    let key = checkout_key(&bank, &id).await;
    let reject = json!({ "method": "reject", "reason": "not-mine" }).to_string();
    let path = format!("/v1/payments/{id}/authorisations");
    let rejected = bank.world.send(build(Method::POST, &path, &payer.phone, reject.into())).await;
    assert_eq!(rejected.status, StatusCode::CREATED, "{rejected:?}");
    let phone = part(&format!("/phone/parts/payments/{id}"), &format!("Bearer {}", payer.phone));
    let phone = bank.world.send(phone).await.text;
    assert!(phone.contains("data-outcome=\"rejected\"") && !phone.contains("<form"), "{phone}");
    assert!(phone.contains("locked against further payments"), "{phone}");
    let shop = part(&format!("/checkout/parts/{id}"), &format!("Checkout {key}"));
    let shop = bank.world.send(shop).await.text;
    assert!(shop.contains("data-outcome=\"rejected\"") && !shop.contains("<form"), "{shop}");
    assert!(shop.contains("did not start this payment") && !shop.contains("id=\"qr\""), "{shop}");
}

#[tokio::test]
async fn people_are_told_in_words_and_programs_by_a_problem() {
    let world = World::new().await;
    let shown = world.send(opened("/phon?lang=zh", "en")).await;
    assert_eq!(shown.header("content-type"), "text/html; charset=utf-8");
    assert!(shown.text.contains("找不到页面"), "{}", shown.text);
    assert!(shown.text.contains(shown.header("x-request-id")), "{}", shown.text);
    let told = world.send(Request::get("/phon").body(Body::empty()).unwrap()).await;
    told.assert_check(404, "path");
    // Another site's frame is no navigation of a person's own: it is refused, and not as a page.
    let mut framed = opened("/phone", "en");
    framed.headers_mut().insert("sec-fetch-site", "cross-site".parse().unwrap());
    framed.headers_mut().insert("sec-fetch-dest", "iframe".parse().unwrap());
    let framed = world.send(framed).await;
    assert_eq!(framed.status, StatusCode::FORBIDDEN);
    assert!(!framed.text.contains("enrol-form"), "{}", framed.text);
    assert_kept_to_itself(&framed, false);
    // A link from another site is one.
    let mut linked = opened("/phone", "en");
    linked.headers_mut().insert("sec-fetch-site", "cross-site".parse().unwrap());
    assert_eq!(world.send(linked).await.status, StatusCode::OK);
}

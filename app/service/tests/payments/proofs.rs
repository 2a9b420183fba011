//! Phones that prove a key of their own (D2, D5): the subset of RFC 9449 that is taken, and every
//! way in which a proof fails.

use std::sync::Arc;
use std::time::Duration;

use countersign_crypto::{Provider, Secret, SecureElement, aws_lc};
use countersign_service::{PhoneActor, PhoneProof, ServiceError, SessionKey};
use countersign_store::Tx;
use data_encoding::BASE64URL_NOPAD;
use der::asn1::UintRef;
use der::{Decode, Sequence};
use serde_json::{Value, json};

use crate::bank::{Bank, Place, check, rng};

const URL: &str = "https://bank.example:8443/v1/phone/payments";
const BODY: &[u8] = br#"{"method":"reject","reason":"changed-mind"}"#;

/// A phone in a browser: its key is not its token.
pub(crate) struct Browser {
    pub(crate) key: Arc<dyn SecureElement>,
    pub(crate) id: String,
    pub(crate) token: String,
}

/// A request and what proves it, before it is signed.
pub(crate) struct Claimed {
    pub(crate) header: Value,
    pub(crate) claims: Value,
    pub(crate) method: &'static str,
    pub(crate) url: &'static str,
    pub(crate) body: &'static [u8],
}

#[derive(Sequence)]
struct Pair<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

fn p256() -> Provider {
    aws_lc::provider()
}

fn sha256(bytes: &[u8]) -> String {
    BASE64URL_NOPAD.encode(&p256().hash.hash(&[bytes]))
}

/// `r ‖ s`, as JSON Web Signatures have it.
fn raw(signature: &[u8]) -> Vec<u8> {
    let pair = Pair::from_der(signature).unwrap();
    let half = |number: UintRef<'_>| {
        let mut half = vec![0; 32 - number.as_bytes().len()];
        half.extend_from_slice(number.as_bytes());
        half
    };
    [half(pair.r), half(pair.s)].concat()
}

fn key() -> Arc<dyn SecureElement> {
    p256().signature.generate(&mut rng()).unwrap().key
}

fn jwk(key: &dyn SecureElement) -> Value {
    let (x, y) = key.public_key()[1..].split_at(32);
    let encode = |half| BASE64URL_NOPAD.encode(half);
    json!({ "kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y) })
}

pub(crate) fn session_key(key: &dyn SecureElement) -> SessionKey {
    let jwk = jwk(key);
    let member = |name: &str| jwk[name].as_str().unwrap().to_owned();
    SessionKey::from_jwk("EC", "P-256", &member("x"), &member("y")).unwrap()
}

/// Signs parts as they are.
fn signed(key: &dyn SecureElement, header: &str, claims: &str) -> String {
    let encode = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
    let input = format!("{}.{}", encode(header), encode(claims));
    let signature = raw(&key.sign(&mut rng(), input.as_bytes()).unwrap());
    format!("{input}.{}", BASE64URL_NOPAD.encode(&signature))
}

impl Browser {
    pub(crate) async fn enrol(bank: &Bank, accounts: &[&str]) -> Self {
        let accounts: Vec<String> = accounts.iter().map(|it| (*it).to_owned()).collect();
        let allowed = bank.service.allow_phone(&bank.admin, "browser", &accounts).await.unwrap();
        Self::with_code(bank, allowed.code.expose()).await
    }

    async fn with_code(bank: &Bank, code: &str) -> Self {
        let key = key();
        let code = Secret::copied_from(code.as_bytes());
        let session = Some(session_key(&*key));
        let enrolled = bank.service.enrol_phone("127.0.0.1", &code, session).await.unwrap();
        Self { key, id: enrolled.record.phone.id, token: enrolled.token.to_string() }
    }

    /// What is right for a request with a body, now.
    pub(crate) fn claimed(&self, bank: &Bank) -> Claimed {
        let number = BASE64URL_NOPAD.encode(&std::array::from_fn::<u8, 16, _>(|_| {
            let mut byte = [0];
            rand_core::Rng::fill_bytes(&mut rng(), &mut byte);
            byte[0]
        }));
        Claimed {
            header: json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": jwk(&*self.key) }),
            claims: json!({
                "jti": number,
                "htm": "POST",
                "htu": URL,
                "iat": bank.service.now().as_secs(),
                "ath": sha256(self.token.as_bytes()),
                "bh": sha256(BODY),
            }),
            method: "POST",
            url: URL,
            body: BODY,
        }
    }

    async fn shows(&self, bank: &Bank, claimed: &Claimed) -> Result<PhoneActor, ServiceError> {
        let jwt = signed(&*self.key, &claimed.header.to_string(), &claimed.claims.to_string());
        self.shows_text(bank, claimed, &jwt).await
    }

    async fn shows_text(
        &self,
        bank: &Bank,
        claimed: &Claimed,
        jwt: &str,
    ) -> Result<PhoneActor, ServiceError> {
        let Claimed { method, url, body, .. } = *claimed;
        let proof = PhoneProof { jwt, method, url, body };
        bank.service.authorise_phone_with(&self.token, &proof).await
    }

    /// The phone, with a good proof.
    pub(crate) async fn actor(&self, bank: &Bank) -> PhoneActor {
        self.shows(bank, &self.claimed(bank)).await.unwrap()
    }

    /// Is refused, outside as anything is; and in the audit under this name.
    async fn refused(&self, bank: &Bank, claimed: &Claimed, name: &str) {
        let jwt = signed(&*self.key, &claimed.header.to_string(), &claimed.claims.to_string());
        self.refused_text(bank, claimed, &jwt, name).await;
    }

    async fn refused_text(&self, bank: &Bank, claimed: &Claimed, jwt: &str, name: &str) {
        let before = self.refusals(bank).await.len();
        let error = self.shows_text(bank, claimed, jwt).await.unwrap_err();
        assert_eq!(error, ServiceError::Unauthenticated, "{name}");
        let found = self.refusals(bank).await;
        assert_eq!((found.len(), found.last().unwrap().as_str()), (before + 1, name));
        // One row a second: the next refusal has its row too.
        bank.pass(Duration::from_secs(1));
    }

    async fn refusals(&self, bank: &Bank) -> Vec<String> {
        let rows = bank.audit_of(&self.id).await;
        let refused = rows.into_iter().filter(|row| row.entry.action == "phone.authorise");
        refused.map(|row| row.entry.check.unwrap()).collect()
    }
}

pub(crate) async fn a_proof_opens_once(place: Place) {
    let bank = Bank::new(place).await;
    let browser = Browser::enrol(&bank, &["PAYER1"]).await;
    let claimed = browser.claimed(&bank);
    let jwt = signed(&*browser.key, &claimed.header.to_string(), &claimed.claims.to_string());
    let phone = browser.shows_text(&bank, &claimed, &jwt).await.unwrap();
    assert_eq!(phone.id(), browser.id);
    assert!(phone.serves(&bank.payer.id));
    browser.refused_text(&bank, &claimed, &jwt, "proof-replayed").await;
    // Nor at another server, at whose clock it may be young.
    let other = bank.another().await;
    let Claimed { method, url, body, .. } = claimed;
    let proof = PhoneProof { jwt: &jwt, method, url, body };
    assert_eq!(
        other.authorise_phone_with(&browser.token, &proof).await.err().unwrap().check(),
        "token"
    );
    // Another phone's proof may have the same id.
    let second = Browser::enrol(&bank, &["PAYER1"]).await;
    let mut same = second.claimed(&bank);
    same.claims["jti"] = claimed.claims["jti"].clone();
    second.shows(&bank, &same).await.unwrap();
    // Without a body, and with a query and a fragment, which do not count.
    let mut get = browser.claimed(&bank);
    (get.method, get.body) = ("GET", b"");
    get.claims["htm"] = json!("GET");
    get.claims.as_object_mut().unwrap().remove("bh");
    get.url = "https://bank.example:8443/v1/phone/payments?wait=1#x";
    browser.shows(&bank, &get).await.unwrap();
    // The stored ids go when no server would take them any more, and not before.
    assert_eq!(bank.service.sweep_events().await.unwrap(), 0);
    bank.pass(Duration::from_secs(400));
    assert_eq!(bank.service.sweep_events().await.unwrap(), 3);
}

/// What ails the events' tables must not let used proofs pile up.
pub(crate) async fn used_proofs_go_although_events_cannot(place: Place) {
    let bank = Bank::new(place).await;
    let browser = Browser::enrol(&bank, &["PAYER1"]).await;
    browser.actor(&bank).await;
    bank.pass(Duration::from_secs(400));
    let run = async |statement: &'static str| {
        let work = move |tx: &mut Tx<'_>| tx.execute(statement, &[]);
        bank.store().run_tx("spoil", work).await.unwrap();
    };
    run("ALTER TABLE webhook_deliveries RENAME TO webhook_deliveries_away").await;
    bank.service.sweep_events().await.unwrap_err();
    run("ALTER TABLE webhook_deliveries_away RENAME TO webhook_deliveries").await;
    assert_eq!(bank.service.sweep_events().await.unwrap(), 0, "the proof went before");
}

pub(crate) async fn one_proof_at_two_servers_opens_once(place: Place) {
    let bank = Bank::new(place).await;
    let browser = Arc::new(Browser::enrol(&bank, &["PAYER1"]).await);
    let servers = [bank.service.clone(), bank.another().await];
    for _ in 0..8 {
        let claimed = browser.claimed(&bank);
        let (header, claims) = (claimed.header.to_string(), claimed.claims.to_string());
        let jwt = Arc::new(signed(&*browser.key, &header, &claims));
        let mut racing = tokio::task::JoinSet::new();
        for service in servers.iter().cycle().take(6) {
            let (service, browser, jwt) = (service.clone(), browser.clone(), jwt.clone());
            racing.spawn(async move {
                let proof = PhoneProof { jwt: &jwt, method: "POST", url: URL, body: BODY };
                service.authorise_phone_with(&browser.token, &proof).await
            });
        }
        let said = racing.join_all().await;
        let opened = said.iter().filter(|it| it.is_ok()).count();
        let refused = |it: &&Result<_, _>| matches!(it, Err(ServiceError::Unauthenticated));
        assert_eq!((opened, said.iter().filter(refused).count()), (1, 5));
    }
}

pub(crate) async fn a_proof_is_verified_in_every_suite(place: Place) {
    // The server's own keys are SM2; a browser has P-256.
    let bank = Bank::of_sm2(place).await;
    let browser = Browser::enrol(&bank, &["PAYER1"]).await;
    browser.actor(&bank).await;
    let mut claimed = browser.claimed(&bank);
    claimed.claims["ath"] = json!(sha256(b"another token"));
    browser.refused(&bank, &claimed, "proof-token").await;
}

pub(crate) async fn wrong_claims_are_refused_alike(place: Place) {
    let bank = Bank::new(place).await;
    let browser = Browser::enrol(&bank, &["PAYER1"]).await;
    let claim = async |member: &str, value: Value, name: &str| {
        let mut claimed = browser.claimed(&bank);
        claimed.claims[member] = value;
        browser.refused(&bank, &claimed, name).await;
    };
    let header = async |member: &str, value: Value, name: &str| {
        let mut claimed = browser.claimed(&bank);
        claimed.header[member] = value;
        browser.refused(&bank, &claimed, name).await;
    };
    header("typ", json!("JWT"), "proof-type").await;
    header("alg", json!("none"), "proof-algorithm").await;
    header("alg", json!("HS256"), "proof-algorithm").await;
    header("alg", json!("ES384"), "proof-algorithm").await;
    header("crit", json!(["exp"]), "proof-form").await;
    header("jwk", jwk(&*key()), "proof-key").await;
    header("jwk", json!({ "kty": "oct", "crv": "P-256", "x": "", "y": "" }), "proof-key").await;
    let mut private = jwk(&*browser.key);
    private["d"] = json!("AQAB");
    header("jwk", private, "proof-form").await;
    claim("jti", json!("short"), "proof-id").await;
    claim("jti", json!("x".repeat(129)), "proof-id").await;
    claim("htm", json!("GET"), "proof-method").await;
    claim("htm", json!("post"), "proof-method").await;
    for url in [
        "https://bank.example:8443/v1/phone",
        "https://evil.example:8443/v1/phone/payments",
        "https://bank.example/v1/phone/payments",
        "http://bank.example:8443/v1/phone/payments",
        "https://user@bank.example:8443/v1/phone/payments",
        "/v1/phone/payments",
    ] {
        claim("htu", json!(url), "proof-url").await;
    }
    claim("ath", json!(sha256(b"another token")), "proof-token").await;
    claim("ath", json!(""), "proof-token").await;
    claim("bh", json!(sha256(b"{}")), "proof-body").await;
    claim("bh", Value::Null, "proof-body").await;
    claim("nonce", json!("x"), "proof-form").await;
    claim("iat", json!(bank.service.now().as_secs() as f64 + 0.5), "proof-form").await;
    claim("iat", json!(-1), "proof-form").await;
    // A body that the proof does not know of, and a hash of one that is not there.
    let mut claimed = browser.claimed(&bank);
    claimed.body = b"";
    browser.refused(&bank, &claimed, "proof-body").await;
    // A minute before and after, and not a second more.
    for (seconds, name) in
        [(-61, Some("proof-old")), (-60, None), (60, None), (61, Some("proof-future"))]
    {
        let mut claimed = browser.claimed(&bank);
        let at = bank.service.now().as_secs().checked_add_signed(seconds).unwrap();
        claimed.claims["iat"] = json!(at);
        match name {
            Some(name) => browser.refused(&bank, &claimed, name).await,
            None => assert!(browser.shows(&bank, &claimed).await.is_ok(), "{seconds}"),
        }
    }
    for (iat, name) in [(json!(0), "proof-old"), (json!(u64::MAX), "proof-future")] {
        claim("iat", iat, name).await;
    }
    browser.actor(&bank).await;
}

pub(crate) async fn what_is_no_proof_is_refused(place: Place) {
    let bank = Bank::new(place).await;
    let browser = Browser::enrol(&bank, &["PAYER1"]).await;
    let claimed = browser.claimed(&bank);
    let (header, claims) = (claimed.header.to_string(), claimed.claims.to_string());
    let good = signed(&*browser.key, &header, &claims);
    let parts: Vec<&str> = good.split('.').collect();
    let twice = claims.replacen("{", r#"{"htm":"GET","#, 1);
    let two_keys = header.replacen("{", &format!(r#"{{"jwk":{},"#, jwk(&*key())), 1);
    let other = BASE64URL_NOPAD.encode(claims.replace("POST", "PUT").as_bytes());
    let texts = [
        (String::new(), "proof-form"),
        ("..".to_owned(), "proof-form"),
        (format!("{}.{}", parts[0], parts[1]), "proof-form"),
        (format!("{good}.{}", parts[2]), "proof-form"),
        (format!("{good}="), "proof-form"),
        (format!(" {good}"), "proof-form"),
        (good.replacen('.', "+.", 1), "proof-form"),
        (signed(&*browser.key, "{}", &claims), "proof-form"),
        (signed(&*browser.key, &header, "[]"), "proof-form"),
        (signed(&*browser.key, &header, &format!("{claims}x")), "proof-form"),
        (signed(&*browser.key, &header, &twice), "proof-form"),
        (signed(&*browser.key, &two_keys, &claims), "proof-form"),
        (format!("{good}{}", "A".repeat(2048)), "proof-size"),
        // Signed with another key, nothing, half of it, or for other claims.
        (signed(&*key(), &header, &claims), "proof-signature"),
        (format!("{}.{}.", parts[0], parts[1]), "proof-signature"),
        (format!("{}.{}.{}", parts[0], parts[1], &parts[2][..40]), "proof-signature"),
        (format!("{}.{other}.{}", parts[0], parts[2]), "proof-signature"),
        (format!("{}.{}.{}", parts[0], parts[1], "A".repeat(86)), "proof-signature"),
    ];
    for (text, name) in &texts {
        browser.refused_text(&bank, &claimed, text, name).await;
    }
    // None of them has used the good one up.
    browser.shows_text(&bank, &claimed, &good).await.unwrap();
}

/// A token counts in the one way in which its phone was enrolled.
pub(crate) async fn tokens_and_proofs_are_not_mixed(place: Place) {
    let bank = Bank::new(place).await;
    let service = &bank.service;
    let browser = Browser::enrol(&bank, &["PAYER1"]).await;
    let bearer = service.authorise_phone(&browser.token).await.unwrap_err();
    assert_eq!(bearer, ServiceError::Unauthenticated);
    assert_eq!(browser.refusals(&bank).await, ["proof-missing"]);
    let again = service.authorise_phone_again(&browser.token).await.unwrap();
    assert_eq!(again.id(), browser.id, "a stream looks whether the token is live");

    let allowed = service.allow_phone(&bank.admin, "program", &["PAYER1".into()]).await.unwrap();
    let code = Secret::copied_from(allowed.code.expose().as_bytes());
    let enrolled = service.enrol_phone("127.0.0.1", &code, None).await.unwrap();
    let program = Browser {
        key: key(),
        id: enrolled.record.phone.id.clone(),
        token: enrolled.token.to_string(),
    };
    service.authorise_phone(&program.token).await.unwrap();
    program.refused(&bank, &program.claimed(&bank), "proof-unexpected").await;
    // Nobody's token is not worth a row, and a proof makes it no better.
    let nobody = Browser { token: format!("csp_{}", "A".repeat(43)), ..program };
    assert_eq!(check(nobody.shows(&bank, &nobody.claimed(&bank)).await), "token");
    assert_eq!(nobody.refusals(&bank).await.len(), 1);
    // A thief who has the token makes a key of his own.
    let thief = Browser { key: key(), id: browser.id.clone(), token: browser.token.clone() };
    thief.refused(&bank, &thief.claimed(&bank), "proof-key").await;
}

/// Enrolling again replaces token and key; revoking ends both at once.
pub(crate) async fn a_key_is_replaced_and_revoked(place: Place) {
    let bank = Bank::new(place).await;
    let service = &bank.service;
    let first = Browser::enrol(&bank, &["PAYER1"]).await;
    let renewed = service.renew_phone_code(&bank.admin, &first.id).await.unwrap();
    first.actor(&bank).await;
    let second = Browser::with_code(&bank, renewed.code.expose()).await;
    assert_eq!(first.id, second.id);
    assert_eq!(check(first.shows(&bank, &first.claimed(&bank)).await), "token");
    second.actor(&bank).await;
    let mixed = Browser { key: first.key, id: second.id.clone(), token: second.token.clone() };
    mixed.refused(&bank, &mixed.claimed(&bank), "proof-key").await;
    // As a program: from then on the new token alone counts, and no key is left.
    let renewed = service.renew_phone_code(&bank.admin, &second.id).await.unwrap();
    let code = Secret::copied_from(renewed.code.expose().as_bytes());
    let enrolled = service.enrol_phone("127.0.0.1", &code, None).await.unwrap();
    assert_eq!(enrolled.record.phone.session_key, None);
    service.authorise_phone(&enrolled.token).await.unwrap();
    assert_eq!(check(second.shows(&bank, &second.claimed(&bank)).await), "token");
    // And with a key again, to be revoked: at this server and at the other one.
    let renewed = service.renew_phone_code(&bank.admin, &second.id).await.unwrap();
    let third = Browser::with_code(&bank, renewed.code.expose()).await;
    let other = bank.another().await;
    third.actor(&bank).await;
    other.revoke_phone(&bank.admin, &third.id, "lost").await.unwrap();
    assert_eq!(check(third.shows(&bank, &third.claimed(&bank)).await), "token");
    assert_eq!(check(service.authorise_phone_again(&third.token).await), "token");
    assert_eq!(service.phone(&third.id).await.unwrap().phone.session_key, None);
}

pub(crate) async fn a_session_key_is_a_point_of_the_curve(place: Place) {
    let bank = Bank::new(place).await;
    let good = jwk(&*key());
    let member = |name: &str| good[name].as_str().unwrap();
    let (x, y) = (member("x"), member("y"));
    let point = session_key(&*bank_key(&bank));
    assert_eq!(point.point()[0], 4);
    let short = BASE64URL_NOPAD.encode(&[1; 31]);
    for (kty, crv, x, y) in [
        ("EC", "P-384", x, y),
        ("OKP", "P-256", x, y),
        ("EC", "P-256", x, x),
        ("EC", "P-256", "", y),
        ("EC", "P-256", &short, y),
        ("EC", "P-256", x, &format!("{y}=")),
        ("EC", "P-256", &BASE64URL_NOPAD.encode(&[0; 32]), &BASE64URL_NOPAD.encode(&[0; 32])),
    ] {
        assert_eq!(
            check(SessionKey::from_jwk(kty, crv, x, y)),
            "session-key",
            "{kty} {crv} {x} {y}"
        );
    }
}

fn bank_key(bank: &Bank) -> Arc<dyn SecureElement> {
    bank.device.key.clone()
}

//! Whatever is sent, the answer is a success or a problem that blames the client.

use axum::body::Body;
use axum::http::{Method, Request};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::world::{World, build};

const POSTS: &[&str] = &[
    "/v1/approvals/apr_00000000-0000-7000-8000-000000000000/votes",
    "/v1/keks",
    "/v1/keks/kek_00000000-0000-7000-8000-000000000000/components",
    "/v1/keks/kek_00000000-0000-7000-8000-000000000000/retire",
    "/v1/keys",
    "/v1/keys/import",
    "/v1/keys/key_00000000-0000-7000-8000-000000000000/export",
    "/v1/keys/key_00000000-0000-7000-8000-000000000000/retire",
    "/v1/accounts",
    "/v1/accounts/acc_00000000-0000-7000-8000-000000000000/freeze",
    "/v1/accounts/acc_00000000-0000-7000-8000-000000000000/close",
    "/v1/accounts/acc_00000000-0000-7000-8000-000000000000/overdraft",
    "/v1/payments",
    "/v1/payments/pay_00000000-0000-7000-8000-000000000000/cancel",
    "/v1/payments/pay_00000000-0000-7000-8000-000000000000/authorisations",
    "/v1/payments/pay_00000000-0000-7000-8000-000000000000/joint",
    "/v1/payments/pay_00000000-0000-7000-8000-000000000000/refunds",
    "/v1/devices/joint",
    "/v1/payments/pay_00000000-0000-7000-8000-000000000000/reversal",
    "/v1/phone/enrolments",
    "/v1/checkout/pay_00000000-0000-7000-8000-000000000000/answers",
    "/v1/postings",
    "/v1/readers",
    "/v1/readers/rdr_00000000-0000-7000-8000-000000000000/block",
    "/v1/readers/rdr_00000000-0000-7000-8000-000000000000/unblock",
    "/v1/readers/rdr_00000000-0000-7000-8000-000000000000/revoke",
    "/v1/readers/rdr_00000000-0000-7000-8000-000000000000/reports",
    "/v1/readers/rdr_00000000-0000-7000-8000-000000000000/transactions",
    "/v1/readers/rdr_00000000-0000-7000-8000-000000000000/decisions/dec_1/reverse",
    "/v1/sam-hosts",
    "/v1/rki/roll",
    "/v1/rki/authorities/rka_00000000-0000-7000-8000-000000000000/revoke",
    "/v1/rebinds",
    "/v1/injections",
    "/v1/injections/inj_00000000-0000-7000-8000-000000000000/cancel",
    "/v1/runs",
    "/v1/runs/run_00000000-0000-7000-8000-000000000000/close",
    "/v1/terminals",
    "/v1/terminals/enrolments",
    "/v1/terminals/trm_00000000-0000-7000-8000-000000000000/block",
    "/v1/terminals/trm_00000000-0000-7000-8000-000000000000/unbind",
    "/v1/sams/05.03-20260101-0000000001-0000000001/drain",
    "/v1/sam-hosts/smh_00000000-0000-7000-8000-000000000000/revoke",
    "/v1/webhooks",
    "/v1/webhooks/whk_00000000-0000-7000-8000-000000000000/disable",
    "/v1/webhooks/whk_00000000-0000-7000-8000-000000000000/enable",
    "/v1/webhooks/whk_00000000-0000-7000-8000-000000000000/remove",
    "/v1/webhook-deliveries/dlv_00000000-0000-7000-8000-000000000000/resend",
];

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[A-Za-z0-9+/]{0,64}={0,2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let name = prop_oneof![Just("request".to_owned()), Just("reason".to_owned()), ".{0,8}"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(name, inner, 0..4).prop_map(|members| json!(members)),
        ]
    })
}

/// A value in the place where the routes look for one.
fn any_request() -> impl Strategy<Value = Value> {
    prop_oneof![
        any_json(),
        any_json().prop_map(|value| json!({ "request": value })),
        any_json().prop_map(|value| json!({ "reason": value })),
        (".{0,70}", ".{0,40}").prop_map(|(serial, code)| {
            json!({ "serial": serial, "code": code, "request": "AQID", "krdRequest": "AQID" })
        }),
        (".{0,70}", ".{0,140}")
            .prop_map(|(serial, model)| { json!({ "serial": serial, "model": model }) }),
        ("(kdh|ca-kdh|root|.{0,9})", any::<u32>())
            .prop_map(|(role, bits)| json!({ "role": role, "bits": bits })),
        (".{0,70}", ".{0,3}", any::<u32>()).prop_map(|(name, code, number)| {
            json!({ "name": name, "scope": "shared", "usage": code, "algorithm": "A", "mode": "D",
                "length": number, "components": number })
        }),
        (any::<u32>(), "[0-9a-fA-F]{0,140}").prop_map(|(number, hex)| {
            json!({ "number": number, "component": hex, "kcv": hex })
        }),
        (".{0,20}", "[A-E0-9]{0,200}").prop_map(|(id, block)| {
            json!({ "name": "k", "kekId": id, "block": block, "scope": "shared" })
        }),
        ".{0,300}".prop_map(|text| json!({ "reason": text })),
        (".{0,80}", ".{0,80}", ".{0,80}").prop_map(|(kind, text, reference)| {
            json!({ "kind": kind, "text": text, "reference": reference })
        }),
        // A transaction, a commitment of a length that a form has, and digits.
        ("[A-Za-z0-9_-]{0,64}", "A[QgwA]([A-Za-z0-9_-]{64}|[A-Za-z0-9_-]{0,200})", "[0-9 -]{0,20}")
            .prop_map(|(bytes, commitment, digits)| {
                json!({ "transaction": bytes, "deviceSerial": "CARD-1", "signature": bytes,
                    "commitment": commitment, "jointPassword": digits })
            }),
        (".{0,70}", "(PAYER0001|.{0,40})").prop_map(|(label, account)| {
            json!({ "request": "AQID", "label": label, "accounts": [account] })
        }),
        (".{0,30}", "[A-Za-z0-9_-]{0,50}").prop_map(|(code, half)| {
            json!({ "code": code,
                "sessionKey": { "kty": "EC", "crv": "P-256", "x": half, "y": half } })
        }),
        ("[0-9.e-]{0,30}", ".{0,5}", ".{0,50}").prop_map(|(amount, currency, reference)| {
            let outcome = "paid";
            json!({ "amount": amount, "currency": currency, "reference": reference,
                "outcome": outcome })
        }),
        ("[0-9.e-]{0,30}", ".{0,5}", ".{0,50}").prop_map(|(amount, currency, text)| {
            json!({ "instructedAmount": { "amount": amount, "currency": currency },
                "endToEndIdentification": text, "debtorAccount": { "identification": text },
                "creditorAccount": { "identification": "SHOP0001" }, "creditor": { "name": text },
                "remittanceInformation": text, "initiatingParty": { "name": text } })
        }),
        (".{0,40}", "[A-Z]{0,4}", "[0-9.-]{0,20}").prop_map(|(text, currency, amount)| {
            json!({ "identification": text, "holder": text, "currency": currency,
                "overdraft": amount })
        }),
        "(?s).{0,300}".prop_map(|text| {
            let armour = "CERTIFICATE REQUEST-----";
            json!({ "request": format!("-----BEGIN {armour}\n{text}\n-----END {armour}") })
        }),
    ]
}

fn check(world: &World, runtime: &tokio::runtime::Runtime, request: Request<Body>) {
    let answer = runtime.block_on(world.send(request));
    assert!(answer.status.as_u16() < 500, "{answer:?}");
    if !answer.status.is_success() {
        let check = answer.json()["check"].as_str().unwrap_or_default().to_owned();
        answer.assert_check(answer.status.as_u16(), &check);
    }
}

#[test]
fn no_body_makes_the_server_fail() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let world = runtime.block_on(World::new());
    let bodies = prop_oneof![
        any_request().prop_map(|value| value.to_string().into_bytes()),
        prop::collection::vec(any::<u8>(), 0..200),
    ];
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(400));
    let result = runner.run(&(0..POSTS.len(), bodies), |(index, body)| {
        let mut request = build(Method::POST, POSTS[index], &world.admin, Body::from(body));
        request.headers_mut().insert("idempotency-key", "key".parse().unwrap());
        check(&world, &runtime, request);
        Ok(())
    });
    result.unwrap();
}

#[test]
fn no_query_and_no_path_makes_the_server_fail() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let world = runtime.block_on(World::new());
    let part = "[a-zA-Z0-9=&%+_.~-]{0,80}";
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(400));
    let result = runner.run(&(part, part, 0..3_usize), |(id, query, form)| {
        let path = match form {
            0 => format!("/v1/readers/{id}?{query}"),
            1 => format!("/v1/reads?readerId={id}&cursor={query}"),
            _ => format!("/v1/readers?limit={id}&{query}"),
        };
        if path.parse::<axum::http::Uri>().is_ok() {
            check(&world, &runtime, build(Method::GET, &path, &world.admin, Body::empty()));
        }
        Ok(())
    });
    result.unwrap();
}

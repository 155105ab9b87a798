//! Tokens that do not hold, as a table: what each tries is its name.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};
use tidegate::auth::token::TokenError;

use super::{AUDIENCE, Checker, ISSUER, addressed};
use crate::support::forge::{Issuer, b64, hmac, now};

/// A forged token, and what it tries.
pub type Forged = (String, String);

/// Set into claims and headers where there is room, and searched for in what is said of the token.
pub const PLANTED: &str = "PLANTED";

/// The settings under which everything here is checked.
pub fn settings() -> String {
    format!("audience = '{AUDIENCE}'\nissuer = '{ISSUER}'")
}

fn named(name: impl Into<String>, token: impl Into<String>) -> Forged {
    (name.into(), token.into())
}

/// Everything that can be wrong with a token for this secret.
pub fn for_secret(issuer: &Issuer) -> Vec<Forged> {
    [forms(issuer), algorithms(issuer), headers(issuer), payloads(issuer), claims(issuer), signatures(issuer)]
        .concat()
}

/// Its form.
fn forms(issuer: &Issuer) -> Vec<Forged> {
    let good = issuer.token("HS256", &addressed());
    let parts: Vec<&str> = good.split('.').collect();
    let mut large = addressed();
    large["padding"] = json!("x".repeat(8 * 1024));
    vec![
        named("nothing", ""),
        named("a word", PLANTED),
        named("dots alone", ".."),
        named("two parts", format!("{}.{}", parts[0], parts[1])),
        named("four parts", format!("{good}.{}", parts[2])),
        named("five parts, as of an encrypted token", format!("{good}.{0}.{0}", parts[2])),
        named("a dot behind it", format!("{good}.")),
        named("a dot before it", format!(".{good}")),
        named("a space behind it", format!("{good} ")),
        named("a line's end behind it", format!("{good}\n")),
        named("a scheme before it", format!("Bearer {good}")),
        named("quotes around it", format!("\"{good}\"")),
        named("a NUL within", good.replacen('.', "\0.", 1)),
        named("letters that look alike", good.replacen('e', "е", 1)),
        named("padded", format!("{good}=")),
        named("a padded header, signed", issuer.seal("HS256", format!("{}=.{}", parts[0], parts[1]))),
        named(
            "the JSON serialization",
            json!({"protected": parts[0], "payload": parts[1], "signature": parts[2]}).to_string(),
        ),
        named("longer than 8 KiB", issuer.token("HS256", &large)),
        named("a megabyte", format!("{good}{}", "A".repeat(1 << 20))),
    ]
}

/// Which algorithm it claims.
fn algorithms(issuer: &Issuer) -> Vec<Forged> {
    let claims = addressed().to_string();
    let mut forged = Vec::new();
    for none in ["none", "None", "NONE", "nOnE", ""] {
        let parts = format!("{}.{}", b64(json!({"alg": none}).to_string()), b64(&claims));
        forged.push(named(format!("alg {none:?}, unsigned"), format!("{parts}.")));
        forged.push(named(format!("alg {none:?}, signed"), issuer.seal("HS256", parts)));
    }
    let wrong = [
        json!("hs256"),
        json!("HS256 "),
        json!("HS1"),
        json!("RS256"),
        json!("ES256"),
        json!("EdDSA"),
        json!("ES256K"),
        json!("A256GCM"),
        json!("dir"),
        json!(null),
        json!(0),
        json!(["HS256"]),
        json!({"HS256": 1}),
        json!(true),
    ];
    for algorithm in wrong {
        let header = json!({"alg": algorithm}).to_string();
        forged.push(named(format!("alg {algorithm}"), issuer.text("HS256", &header, &claims)));
    }
    forged.push(named("no alg", issuer.text("HS256", r#"{"typ":"JWT"}"#, &claims)));
    forged.push(named("no alg, enc", issuer.text("HS256", r#"{"enc":"A256GCM"}"#, &claims)));
    forged.push(named("a header of another hash", issuer.text("HS256", r#"{"alg":"HS512"}"#, &claims)));
    forged
}

/// What else its header says.
fn headers(issuer: &Issuer) -> Vec<Forged> {
    let claims = addressed().to_string();
    let deep = format!(r#"{{"alg":"HS256","x":{}{}}}"#, "[".repeat(1000), "]".repeat(1000));
    let mut forged = Vec::new();
    for header in [
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"alg":"HS256","alg":"HS256"}"#,
        r#"{"alg":"HS256","\u0061lg":"none"}"#,
        r#"{"alg":"HS256","kid":"a","kid":"b"}"#,
        r#"{"alg":"HS256","x":1,"x":1}"#,
        r#"{"alg":"HS256","crit":["exp"],"exp":1}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"{"alg":"HS256","crit":null}"#,
        r#"{"alg":"HS256","crit":["b64"],"b64":true}"#,
        r#"{"alg":"HS256","b64":false}"#,
        r#"{"alg":"HS256","kid":1}"#,
        r#"{"alg":"HS256","kid":null}"#,
        r#"{"alg":"HS256","kid":["a"]}"#,
        r#"{"alg":"HS256"}{"alg":"HS256"}"#,
        r#"{"alg":"HS256"} trailing"#,
        r#"{"alg":"HS256""#,
        r#"["HS256"]"#,
        r#""HS256""#,
        "null",
        "",
        "\u{feff}{\"alg\":\"HS256\"}",
        &deep,
    ] {
        let shown: String = header.chars().take(60).collect();
        forged.push(named(format!("header {shown}"), issuer.text("HS256", header, &claims)));
    }
    let bytes = b"{\"alg\":\"HS256\",\"x\":\"\xff\"}";
    forged.push(named(
        "a header not in UTF-8",
        issuer.seal("HS256", format!("{}.{}", b64(bytes), b64(&claims))),
    ));
    // Keys that come with the token, or by its word.
    let evil = Issuer::rsa();
    let jku = "https://evil.example/PLANTED";
    for (name, header) in [
        ("its own key, jwk", json!({"alg": "RS256", "jwk": evil.jwk("evil")})),
        ("its own key, jku", json!({"alg": "RS256", "jku": jku})),
        ("its own key, x5u", json!({"alg": "RS256", "x5u": jku})),
        ("its own key, x5c", json!({"alg": "RS256", "x5c": [b64(evil.public_der())]})),
        ("its own key, kid a URL", json!({"alg": "RS256", "kid": jku})),
    ] {
        forged.push(named(name, evil.text("RS256", &header.to_string(), &claims)));
    }
    let own = Issuer::secret();
    forged.push(named(
        "its own secret, jwk",
        own.text("HS256", &json!({"alg": "HS256", "jwk": own.jwk("evil")}).to_string(), &claims),
    ));
    for (kid, secret) in [
        ("/dev/null", &b""[..]),
        ("../../../../dev/null", b""),
        ("../../../../proc/sys/kernel/randomize_va_space", b"2\n"),
        ("x' UNION SELECT 'secret", b"secret"),
        ("key|whoami", b"root"),
        ("", b""),
    ] {
        let parts = format!("{}.{}", b64(json!({"alg": "HS256", "kid": kid}).to_string()), b64(&claims));
        let signature = b64(hmac(if secret.is_empty() { b"\0" } else { secret }, "HS256", parts.as_bytes()));
        forged.push(named(format!("kid {kid:?}"), format!("{parts}.{signature}")));
    }
    forged
}

/// Its payload as a whole.
fn payloads(issuer: &Issuer) -> Vec<Forged> {
    let header = r#"{"alg":"HS256"}"#;
    let text = addressed().to_string();
    let body = &text[1..];
    let mut forged = Vec::new();
    for payload in [
        String::new(),
        "null".into(),
        "\"alice\"".into(),
        format!("[{text}]"),
        format!("{text}{text}"),
        format!("{text} x"),
        text[..text.len() - 1].to_owned(),
        format!("\u{feff}{text}"),
        format!("{{\"sub\":\"mallory\",{body}"),
        format!("{{\"\\u0073ub\":\"mallory\",{body}"),
        format!("{{\"exp\":99999999999,{body}"),
        format!("{{\"aud\":\"{AUDIENCE}\",{body}"),
        format!("{{\"iss\":\"{ISSUER}\",{body}"),
        format!("{{\"channels\":[\"*\"],{body}"),
        format!("{{\"publish\":[\"*\"],{body}"),
        format!("{{\"nbf\":0,\"nbf\":0,{body}"),
        format!("{{\"x\":0,\"x\":0,{body}"),
        format!("{{\"x\":\"\\ud800\",{body}"),
        format!("{{\"x\":1e999,{body}"),
        format!("{{\"x\":NaN,{body}"),
        format!("{{\"x\":{}{},{body}", "[".repeat(1000), "]".repeat(1000)),
    ] {
        let shown: String = payload.chars().take(40).collect();
        forged.push(named(format!("payload {shown}"), issuer.text("HS256", header, &payload)));
    }
    let bytes = [b"{\"x\":\"\xff\",", body.as_bytes()].concat();
    forged.push(named(
        "a payload not in UTF-8",
        issuer.seal("HS256", format!("{}.{}", b64(header), b64(bytes))),
    ));
    forged.push(named("a payload not in base64", issuer.seal("HS256", format!("{}.{text}", b64(header)))));
    // Three bits of the last letter say nothing; one text has one spelling.
    let spelled = b64(format!("{text}{}", " ".repeat(2 - (text.len() + 1) % 3 % 3)));
    if let Some(other) = respelled(&spelled) {
        forged.push(named(
            "a payload spelled another way",
            issuer.seal("HS256", format!("{}.{other}", b64(header))),
        ));
    }
    forged
}

/// The same bytes in another spelling, which a lax decoder takes; `None` where all bits count.
fn respelled(text: &str) -> Option<String> {
    const LETTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = LETTERS.find(text.chars().last()?)?;
    let spare = [1, 0, 4, 2][text.len() % 4];
    let other = (spare > 1).then(|| LETTERS.as_bytes()[last | 1] as char)?;
    Some(format!("{}{other}", &text[..text.len() - 1])).filter(|spelled| spelled != text)
}

/// Single claims.
fn claims(issuer: &Issuer) -> Vec<Forged> {
    let long = "x".repeat(257);
    let cases: Vec<(&str, Vec<Value>)> = vec![
        (
            "exp",
            vec![
                json!(null),
                json!(format!("{}", now() + 60)),
                json!(true),
                json!([now() + 60]),
                json!({"PLANTED": 1}),
                json!(-1),
                json!(0),
                json!(now() - 60),
                json!(1e300),
                json!((now() + 60) * 1000),
                json!(""),
            ],
        ),
        ("nbf", vec![json!(now() + 3600), json!(1e18), json!("0"), json!([0]), json!(true)]),
        (
            "sub",
            vec![
                json!(null),
                json!(""),
                json!(7),
                json!(["alice"]),
                json!({"a": 1}),
                json!(true),
                json!(long),
                json!("a\nb"),
                json!("a\u{0}b"),
            ],
        ),
        (
            "aud",
            vec![
                json!(null),
                json!(""),
                json!("Tidegate"),
                json!("tidegate "),
                json!("tidegate.evil"),
                json!("PLANTED"),
                json!([]),
                json!(["other"]),
                json!([["tidegate"]]),
                json!(7),
                json!({"tidegate": 1}),
                json!("*"),
            ],
        ),
        (
            "iss",
            vec![
                json!(null),
                json!(""),
                json!("https://issuer.example"),
                json!("https://issuer.example//"),
                json!("http://issuer.example/"),
                json!("https://issuer.example.evil/"),
                json!("HTTPS://ISSUER.EXAMPLE/"),
                json!("PLANTED"),
                json!(7),
                json!([ISSUER]),
            ],
        ),
        (
            "channels",
            vec![
                json!(null),
                json!("*"),
                json!("a,b"),
                json!({"*": 1}),
                json!([1]),
                json!([["*"]]),
                json!(["a*b"]),
                json!(["**"]),
                json!([""]),
                json!(["PLANTED ä"]),
                json!(["a", null]),
                json!(["a\r\nb"]),
                json!(["{a}"]),
                json!(["x".repeat(201)]),
                json!(true),
            ],
        ),
        ("publish", vec![json!(null), json!("*"), json!([1]), json!(["?"]), json!({}), json!(1)]),
    ];
    let mut forged = Vec::new();
    for (name, values) in cases {
        for value in values {
            let mut claims = addressed();
            claims[name] = value.clone();
            let shown: String = value.to_string().chars().take(40).collect();
            forged.push(named(format!("{name} = {shown}"), issuer.token("HS256", &claims)));
        }
    }
    for name in ["exp", "sub", "aud", "iss"] {
        let mut claims = addressed();
        claims.as_object_mut().expect("an object").remove(name);
        forged.push(named(format!("no {name}"), issuer.token("HS256", &claims)));
    }
    forged
}

/// Its signature.
fn signatures(issuer: &Issuer) -> Vec<Forged> {
    let good = issuer.token("HS256", &addressed());
    let (parts, signature) = good.rsplit_once('.').expect("a signature");
    let bytes = issuer.sign("HS256", parts.as_bytes());
    let with = |bytes: &[u8]| format!("{parts}.{}", b64(bytes));
    let mut admin = addressed();
    admin["channels"] = json!(["*"]);
    let elsewhere = issuer.token("HS256", &admin);
    let claims = elsewhere.split('.').nth(1).expect("claims");
    let header = good.split('.').next().expect("a header");
    let mut flipped = bytes.clone();
    flipped[0] ^= 1;
    vec![
        named("no signature", format!("{parts}.")),
        named("a signature cut short", with(&bytes[..31])),
        named("half a signature", with(&bytes[..16])),
        named("one byte of a signature", with(&bytes[..1])),
        named("a signature and a byte", with(&[&bytes[..], &[0]].concat())),
        named("a signature twice", with(&[&bytes[..], &bytes].concat())),
        named("zeros for a signature", with(&[0; 32])),
        named("a bit of the signature turned", with(&flipped)),
        named(
            "the signature of another token",
            format!("{parts}.{}", elsewhere.rsplit_once('.').expect("it").1),
        ),
        named("claims of another token", format!("{header}.{claims}.{signature}")),
        named("another secret", Issuer::secret().token("HS256", &addressed())),
        named(
            "a longer hash than the header says",
            issuer.text("HS512", r#"{"alg":"HS256"}"#, &addressed().to_string()),
        ),
        named(
            "a signature spelled another way",
            format!("{parts}.{}", respelled(signature).expect("spare bits")),
        ),
        named(
            "hex for base64",
            format!("{parts}.{}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
        ),
    ]
}

/// What is wrong for public keys alone.
fn for_public(issuer: &Issuer, own: &str) -> Vec<Forged> {
    let claims = addressed().to_string();
    let text = issuer.key_text();
    let der = issuer.public_der();
    let mut forged = Vec::new();
    // The public key as a secret, in each form in which somebody may have it.
    let solid: String = text.lines().filter(|line| !line.starts_with('-')).collect();
    for (form, secret) in [
        ("PEM", text.as_bytes()),
        ("PEM without its last line's end", text.trim_end().as_bytes()),
        ("DER", &der),
        ("base64", solid.as_bytes()),
    ] {
        for algorithm in ["HS256", "HS384", "HS512"] {
            let parts = format!("{}.{}", b64(json!({"alg": algorithm}).to_string()), b64(&claims));
            let signature = b64(hmac(secret, algorithm, parts.as_bytes()));
            forged.push(named(
                format!("{own}: {algorithm} with the public key in {form}"),
                format!("{parts}.{signature}"),
            ));
        }
    }
    for none in ["none", "NONE"] {
        let parts = format!("{}.{}", b64(json!({"alg": none}).to_string()), b64(&claims));
        forged.push(named(format!("{own}: {none}"), format!("{parts}.")));
    }
    // The algorithm of one kind of key, signed by a key of that kind.
    for (other, algorithms) in Issuer::all() {
        for algorithm in algorithms.iter().filter(|algorithm| **algorithm != own) {
            let kind_is_own = std::mem::discriminant(&other) == std::mem::discriminant(issuer);
            let name = if kind_is_own { "another key" } else { "another kind of key" };
            forged.push(named(
                format!("{own}: {algorithm} by {name}"),
                other_of(&other).text(algorithm, &json!({"alg": algorithm}).to_string(), &claims),
            ));
        }
    }
    let good = issuer.text(own, &json!({"alg": own}).to_string(), &claims);
    let (parts, _) = good.rsplit_once('.').expect("a signature");
    let signature = issuer.sign(own, parts.as_bytes());
    let len = signature.len();
    for (name, bytes) in [
        ("no signature", vec![]),
        ("a signature cut short", signature[..len - 1].to_vec()),
        ("a signature and a byte", [&signature[..], &[0]].concat()),
        ("a zero and a signature", [&[0], &signature[..]].concat()),
        ("zeros", vec![0; len]),
        ("ones", [vec![0; len / 2 - 1], vec![1], vec![0; len / 2 - 1], vec![1]].concat()),
        ("0xff", vec![0xff; len]),
        ("halves changed round", [&signature[len / 2..], &signature[..len / 2]].concat()),
    ] {
        forged.push(named(format!("{own}: {name}"), format!("{parts}.{}", b64(bytes))));
    }
    forged
}

/// The same kind of key, and another key.
fn other_of(issuer: &Issuer) -> Issuer {
    match issuer {
        Issuer::Secret(_) => Issuer::secret(),
        Issuer::Rsa(_) => Issuer::other_rsa(),
        Issuer::P256(_) => Issuer::p256(),
        Issuer::P384(_) => Issuer::p384(),
        Issuer::Ed25519(_) => Issuer::ed25519(),
    }
}

fn assert_refused(checker: &Checker, forged: &[Forged]) {
    for (name, token) in forged {
        match checker.check(token) {
            Ok(_) => panic!("it holds: {name}"),
            Err(TokenError::Unavailable) => panic!("nobody is away: {name}"),
            Err(error) => {
                let said = format!("{error} {error:?}");
                assert!(!said.contains(PLANTED) && !said.contains("alice"), "{name}: {said}");
            }
        }
    }
}

#[test]
fn a_forged_token_for_a_secret_does_not_hold() {
    let issuer = Issuer::secret();
    let checker = Checker::with(&issuer, &settings());
    let forged = for_secret(&issuer);
    assert!(forged.len() > 150, "{}", forged.len());
    assert_refused(&checker, &forged);
    assert!(checker.check(&issuer.token("HS256", &addressed())).is_ok());
}

#[test]
fn a_forged_token_for_a_public_key_does_not_hold() {
    for (issuer, algorithms) in Issuer::all().into_iter().skip(1) {
        let checker = Checker::with(&issuer, &settings());
        assert_refused(&checker, &for_public(&issuer, algorithms[0]));
        assert!(checker.check(&issuer.token(algorithms[0], &addressed())).is_ok());
    }
}

/// What is refused says why, and what is past says so in a code of its own.
#[test]
fn the_refusal_names_the_rule() {
    let issuer = Issuer::secret();
    let checker = Checker::with(&issuer, &settings());
    let forged = for_secret(&issuer);
    for (name, rule) in [
        ("longer than 8 KiB", "longer than 8 KiB"),
        ("two parts", "three parts"),
        (r#"alg "none", unsigned"#, "none of HS"),
        (r#"alg "RS256""#, "not one of its key's"),
        ("no signature", "not signed"),
        (r#"header {"alg":"HS256","alg":"HS256"}"#, "a name twice"),
        (r#"header {"alg":"HS256","crit":[]}"#, "`crit`"),
        ("a bit of the signature turned", "signature does not hold"),
        ("no exp", "`exp`"),
        ("no sub", "`sub`"),
        ("no aud", "`aud`"),
        ("no iss", "`iss`"),
        ("aud = \"PLANTED\"", "auth.jwt.audience"),
        ("iss = \"PLANTED\"", "auth.jwt.issuer"),
        ("channels = \"*\"", "`channels`"),
        ("publish = [1]", "`publish`"),
    ] {
        let (_, token) =
            forged.iter().find(|(forged, _)| forged == name).unwrap_or_else(|| panic!("no {name}"));
        let said = checker.check(token).unwrap_err().to_string();
        assert!(said.contains(rule), "{name}: {said}");
    }
    let mut past = addressed();
    past["exp"] = json!(now() - 60);
    assert_eq!(checker.check(&issuer.token("HS256", &past)), Err(TokenError::Expired));
}

#[test]
fn an_ecdsa_signature_is_two_numbers_and_no_der() {
    let issuer = Issuer::p256();
    let checker = Checker::of(&issuer);
    let Issuer::P256(pair) = &issuer else { unreachable!("it is one") };
    let pkcs8 = pair.to_pkcs8v1().unwrap();
    let der = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref()).unwrap();
    let parts = format!("{}.{}", b64(r#"{"alg":"ES256"}"#), b64(addressed().to_string()));
    let signature = der.sign(&aws_lc_rs::rand::SystemRandom::new(), parts.as_bytes()).unwrap();
    assert!(checker.check(&format!("{parts}.{}", b64(signature.as_ref()))).is_err());
    assert!(checker.check(&issuer.seal("ES256", parts)).is_ok());
}

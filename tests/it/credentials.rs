//! `tidegate key` and `tidegate token`: what they print is what the gateway takes.

use serde_json::Value;
use sha2::{Digest, Sha256};
use tidegate::auth::jwt::Verifier;
use tidegate::config::Config;
use tidegate::metrics::Metrics;

use crate::support::forge::{Issuer, now};
use crate::support::process::{run, tidegate};
use crate::support::tls::Folder;

/// The outcome of `tidegate` with these arguments.
async fn tidegate_with(arguments: &[&str]) -> (i32, String) {
    let mut command = tidegate();
    command.args(arguments);
    run(command).await
}

async fn printed(arguments: &[&str]) -> String {
    let (code, said) = tidegate_with(arguments).await;
    assert_eq!(code, 0, "{said}");
    said
}

async fn refused(arguments: &[&str]) -> String {
    let (code, said) = tidegate_with(arguments).await;
    assert_eq!(code, 64, "{said}");
    said
}

/// The key in what `tidegate key` printed.
fn key_of(said: &str) -> &str {
    let mut keys = said.split_whitespace().filter(|word| word.starts_with("tgk_"));
    let key = keys.next().expect("a key");
    assert_eq!(keys.next(), None, "it is shown once");
    key
}

#[tokio::test]
async fn a_key_comes_with_its_entry_and_the_whole_is_a_configuration() {
    let mut keys = Vec::new();
    for _ in 0..2 {
        let said = printed(&[
            "key",
            "orders \"1\"",
            "--channels",
            "orders:*,news",
            "--operations",
            "publish,read",
            "--rate",
            "50",
        ])
        .await;
        let key = key_of(&said).to_owned();
        // 256 bits in base64url.
        assert_eq!(key.len(), 4 + 43, "{key}");
        let digest: String = Sha256::digest(&key).iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(said.contains(&format!("sha256 = \"{digest}\"")), "{said}");
        let config = Config::from_toml(&said).unwrap_or_else(|error| panic!("{error}\n{said}"));
        let [entry] = &config.auth.keys[..] else { panic!("one entry: {said}") };
        assert_eq!((entry.name.as_str(), entry.rate), ("orders \"1\"", Some(50)));
        assert_eq!(entry.channels.iter().map(ToString::to_string).collect::<Vec<_>>(), ["orders:*", "news"]);
        assert_eq!(format!("{:?}", entry.operations), "[Publish, Read]");
        keys.push(key);
    }
    assert_ne!(keys[0], keys[1]);
    let said = printed(&["key", "a", "--channels=*", "--operations=manage"]).await;
    assert!(!said.contains("rate"), "{said}");
}

#[tokio::test]
async fn a_key_needs_a_name_channels_and_operations() {
    for (arguments, word) in [
        (&["key"][..], "NAME"),
        (&["key", "a"], "--channels"),
        (&["key", "a", "--channels", "x"], "--operations"),
        (&["key", "a", "--channels", "x", "--operations", "publish,subscribe"], "publish, read or manage"),
        (&["key", "a", "--channels", "a*b", "--operations", "publish"], "at the end"),
        (&["key", "a", "--channels", "", "--operations", "publish"], "--channels"),
        (&["key", "a", "--channels", "x", "--operations", "publish", "--rate", "0"], "--rate"),
        (&["key", "", "--channels", "x", "--operations", "publish"], "NAME"),
        (&["key", "a\nb", "--channels", "x", "--operations", "publish"], "NAME"),
    ] {
        let said = refused(arguments).await;
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
}

fn claims_of(token: &str) -> Value {
    use base64::Engine;
    let payload = token.trim().split('.').nth(1).expect("claims");
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).expect("base64url");
    serde_json::from_slice(&json).expect("JSON")
}

/// Whether the gateway of this configuration takes the token.
async fn holds(toml: &str, token: &str) -> bool {
    let metrics = std::sync::Arc::new(Metrics::new().unwrap());
    let jwt = Config::from_toml(toml).unwrap().auth.jwt.expect("a key");
    Verifier::new(&jwt, &metrics).unwrap().verify(token.trim()).await.is_ok()
}

#[tokio::test]
async fn a_token_by_the_configuration_is_one_that_the_configuration_takes() {
    let folder = Folder::new();
    let secret = Issuer::secret().key_file(&folder);
    let toml = format!(
        "[auth.jwt]\nkey_file = '{secret}'\naudience = 'web'\nissuer = 'dev'\nalgorithms = ['RS256', 'HS384']\n"
    );
    let file = folder.write("tidegate.toml", &toml);
    let wanted =
        ["--sub", "alice", "--channels", "news,orders:*", "--publish", "chat:7", "--expires", "2h30m"];
    // The flags of the configuration stand before the command or behind it.
    let behind = [&["token", "--config", &file][..], &wanted].concat();
    let before = [&["--config", &file, "token"][..], &wanted].concat();
    for arguments in [behind, before] {
        let token = printed(&arguments).await;
        assert_eq!(token.lines().count(), 1, "{token}");
        assert!(holds(&toml, &token).await, "{token}");
        let claims = claims_of(&token);
        assert_eq!(claims["sub"], "alice");
        assert_eq!(claims["channels"], serde_json::json!(["news", "orders:*"]));
        assert_eq!(claims["publish"], serde_json::json!(["chat:7"]));
        assert_eq!((&claims["aud"], &claims["iss"]), (&"web".into(), &"dev".into()));
        assert!(claims["exp"].as_u64().unwrap().abs_diff(now() + 9000) < 60);
        assert!(claims["iat"].as_u64().unwrap().abs_diff(now()) < 60);
    }
    let mut command = tidegate();
    command.env("TIDEGATE_CONFIG", &file).args(["token", "--sub", "bob", "--publish", "*"]);
    let (code, token) = run(command).await;
    assert_eq!(code, 0, "{token}");
    assert!(holds(&toml, &token).await && claims_of(&token).get("channels").is_none());
    assert!(claims_of(&token)["exp"].as_u64().unwrap().abs_diff(now() + 3600) < 60);
}

#[tokio::test]
async fn a_private_key_signs_what_its_public_half_checks() {
    for (issuer, algorithms) in Issuer::all().into_iter().skip(1) {
        let folder = Folder::new();
        let public = issuer.key_file(&folder);
        let private = folder.write("private.pem", &issuer.private_pem());
        for algorithm in algorithms {
            let toml = format!("[auth.jwt]\nkey_file = '{public}'\nalgorithms = ['{algorithm}']\n");
            let file = folder.write("tidegate.toml", &toml);
            let arguments =
                ["token", "--config", &file, "--key-file", &private, "--sub", "a", "--channels", "a"];
            assert!(holds(&toml, &printed(&arguments).await).await, "{algorithm}");
        }
        // Without a configuration, by what the kind of key is for.
        let token = printed(&["token", "--key-file", &private, "--sub", "a", "--channels", "a"]).await;
        assert!(holds(&format!("auth.jwt.key_file = '{public}'"), &token).await, "{}", algorithms[0]);
    }
}

#[tokio::test]
async fn a_token_that_cannot_be_made_is_refused_with_what_to_do() {
    let folder = Folder::new();
    let p256 = Issuer::p256();
    let (public, short) = (p256.key_file(&folder), folder.write("short", "secret"));
    let private = folder.write("private.pem", &p256.private_pem());
    let sec1 =
        folder.write("sec1.pem", "-----BEGIN EC PRIVATE KEY-----\nMAA=\n-----END EC PRIVATE KEY-----\n");
    let checked = |source: &str| format!("auth.jwt.{source}");
    let (of_public, of_url) =
        (checked(&format!("key_file={public}")), checked("jwks_url=https://issuer.example/jwks"));
    let wanted = ["--sub", "a", "--channels", "a"];
    for (arguments, word) in [
        (&[][..], "auth.jwt.key_file, or pass --key-file"),
        (&["--key-file", "/nowhere"], "cannot read /nowhere"),
        (&["--key-file", &short], "6 bytes"),
        (&["--key-file", &public], "a public key, which cannot sign"),
        (&["--key-file", &sec1], "openssl pkcs8 -topk8"),
        (
            &["--key-file", &private, "--set", "auth.jwt.algorithms=RS256", "--set", &of_public],
            "auth.jwt.algorithms",
        ),
        (&["--set", &of_public], "pass the private key with --key-file"),
        (&["--set", &of_url], "https://issuer.example/jwks: pass the private key with --key-file"),
        (&["--expires", "1"], "is not a time"),
        (&["--expires", "0s"], "a second at least"),
        (&["--publish", "a b"], "--publish"),
        (&["--config", "/nowhere"], "cannot read /nowhere"),
    ] {
        let said = refused(&[&["token"][..], &wanted, arguments].concat()).await;
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
    assert!(refused(&["token", "--sub", "a"]).await.contains("--channels, --publish, or both"));
    assert!(refused(&["token", "--channels", "a"]).await.contains("--sub"));
    assert!(refused(&["token", "--sub", "", "--channels", "a"]).await.contains("--sub"));
}

#[tokio::test]
async fn config_check_looks_into_the_key_file() {
    let folder = Folder::new();
    let file = folder.write("key", &Issuer::rsa().private_pem());
    let said = refused(&["config", "check", "--set", &format!("auth.jwt.key_file={file}")]).await;
    assert!(said.contains(&file) && said.contains("a private key"), "{said}");
    let good = Issuer::p256().key_file(&folder);
    let said = printed(&["config", "check", "--set", &format!("auth.jwt.key_file={good}")]).await;
    assert!(said.contains("ok"), "{said}");
}

#[tokio::test]
async fn the_help_of_both_has_examples() {
    for command in ["key", "token"] {
        let said = printed(&[command, "--help"]).await;
        assert!(said.contains("Examples:") && said.contains(&format!("tidegate {command} ")), "{said}");
    }
}

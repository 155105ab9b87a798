//! The section `[auth]`: entries, the file of entries, and rules without a key.

use super::*;

/// The digits of a digest that only this test has.
fn digits(digit: char) -> String {
    digit.to_string().repeat(64)
}

fn entry(name: &str, digit: char, rest: &str) -> String {
    format!("[[auth.keys]]\nname = '{name}'\nsha256 = '{}'\n{rest}", digits(digit))
}

fn whole(name: &str, digit: char) -> String {
    entry(name, digit, "channels = '*'\noperations = ['publish']\n")
}

#[test]
fn an_entry_says_what_it_lacks() {
    let table = [
        ("[[auth.keys]]\nsha256 = ''".to_owned(), "configuration:2: auth.keys.sha256: this is not a SHA-256"),
        (format!("[[auth.keys]]\nsha256 = '{}'", digits('a')), "configuration:1: auth.keys.name is missing"),
        (
            "[[auth.keys]]\nname = 'a'".to_owned(),
            "configuration:1: auth.keys.sha256 of \"a\" is missing: `tidegate key` makes a key and prints its entry",
        ),
        (
            entry("a", 'a', ""),
            "configuration:1: auth.keys.channels of \"a\" is missing: name the channels it is for; \"*\" is all of them",
        ),
        (
            entry("a", 'a', "channels = []\noperations = ['read']"),
            "configuration:4: auth.keys.channels of \"a\" is missing",
        ),
        (
            entry("a", 'a', "channels = '*'"),
            "configuration:1: auth.keys.operations of \"a\" is missing: name some of publish, read, manage",
        ),
        (
            entry("a", 'a', "channels = ['news', 'a*b']\noperations = ['read']"),
            "configuration:4: auth.keys.channels of \"a\" has \"a*b\": a * may stand at the end of a channel pattern only",
        ),
        (
            entry("a", 'a', "channels = 'a b'\noperations = ['read']"),
            "configuration:4: auth.keys.channels of \"a\" has \"a b\": ",
        ),
        (
            whole("a", 'a') + &whole("b", 'b') + &whole("c", 'A'),
            "configuration:11: auth.keys has one key twice, as \"a\" and as \"c\": remove one",
        ),
        (entry("a\u{7}", 'a', ""), "configuration:2: "),
    ];
    for (text, expected) in table {
        let sentence = fault(&text);
        assert!(sentence.starts_with(expected), "{text}\n  is: {sentence}\n not: {expected}");
    }
    // While a key is exchanged, both are the same service's.
    let config = Config::from_toml(&(whole("a", 'a') + &whole("a", 'b'))).unwrap();
    assert_eq!(config.auth.keys.len(), 2);
    assert!(config.auth.is_configured());
}

#[test]
fn entries_in_a_file_of_their_own_stand_beside_those_of_the_configuration() {
    let file = TempFile::new("keys", &(whole("b", 'b') + &whole("c", 'c')));
    let path = file.0.display().to_string();
    let config = env(&[("TIDEGATE_AUTH__KEYS_FILE", &path)]).unwrap().config;
    assert_eq!(config.auth.keys.iter().map(|key| key.name.as_str()).collect::<Vec<_>>(), ["b", "c"]);
    let with = |digit| format!("auth.keys_file = '{path}'\n{}", whole("a", digit));
    assert_eq!(Config::from_toml(&with('a')).unwrap().auth.keys.len(), 3);
    assert!(fault(&with('c')).ends_with("auth.keys has one key twice, as \"a\" and as \"c\": remove one"));
}

#[test]
fn a_file_of_entries_is_told_by_its_own_lines() {
    let table = [
        ("", "{path} has no [[auth.keys]] in it"),
        ("[auth]\nkeys = []", "{path} has no [[auth.keys]] in it"),
        (
            "[[auth.keys]]\n\nnam = 'a'",
            "{path}:3: unknown key `auth.keys.nam`; did you mean `auth.keys.name`?",
        ),
        (
            "[[auth.keys]]\nname = 'a'\nsha256 = 'tg_secret'",
            "{path}:3: auth.keys.sha256: this is not a SHA-256",
        ),
        ("[[auth.keys]]\nname = 'a'", "{path}:1: auth.keys.sha256 of \"a\" is missing"),
        ("[[keys]]\nname = 'a'", "{path}:1: unknown key `keys`"),
        (
            "[log]\nlevel = 'info'",
            "{path}:1: log is not for this file: it has [[auth.keys]] and nothing else",
        ),
        ("[auth]\nkeys_file = 'x'", "{path}:2: auth.keys_file is not for this file"),
        ("tg_secret", "{path}:1: "),
    ];
    for (text, expected) in table {
        let file = TempFile::new("bad-keys", text);
        let path = file.0.display().to_string();
        let sentence = set(&[&format!("auth.keys_file={path}")]).unwrap_err().to_string();
        let expected = format!("--set auth.keys_file: auth.keys_file: {}", expected.replace("{path}", &path));
        assert!(sentence.starts_with(&expected), "{text}\n  is: {sentence}\n not: {expected}");
        assert!(!sentence.contains("tg_secret"), "{sentence}");
    }
    let away = set(&["auth.keys_file=/nowhere/at/all"]).unwrap_err().to_string();
    assert!(
        away.starts_with("--set auth.keys_file: auth.keys_file: cannot read /nowhere/at/all: "),
        "{away}"
    );
}

#[test]
fn tokens_need_one_source_of_keys() {
    let error = |settings: &[&str]| set(settings).unwrap_err().to_string();
    let secret = TempFile::new("secret", "not a secret");
    let key_file = format!("auth.jwt.key_file={}", secret.0.display());
    let jwt = set(&[&key_file]).unwrap().config.auth.jwt.unwrap();
    assert_eq!(jwt.source, KeySource::File(secret.0.clone()));
    assert_eq!((jwt.audience, jwt.issuer, jwt.leeway), (None, None, Duration::from_secs(10)));
    assert_eq!(
        error(&[&key_file, "auth.jwt.jwks_url=https://id.example"]),
        "--set auth.jwt.jwks_url: auth.jwt.key_file and auth.jwt.jwks_url are both given: remove one"
    );
    assert!(
        error(&["auth.jwt.key_file=/nowhere/at/all"])
            .starts_with("--set auth.jwt.key_file: auth.jwt.key_file: cannot read /nowhere/at/all: ")
    );
    for rule in ["audience=push", "issuer=me", "algorithms=RS256"] {
        let (key, _) = rule.split_once('=').unwrap();
        assert_eq!(
            error(&[&format!("auth.jwt.{rule}")]),
            format!(
                "--set auth.jwt.{key}: auth.jwt.{key} is given, but no key to check tokens by: \
                 set auth.jwt.key_file or auth.jwt.jwks_url"
            )
        );
    }
    assert_eq!(set(&["auth.jwt.leeway=1s"]).unwrap().config.auth.jwt, None);
}

#[test]
fn a_jwks_comes_by_tls_or_from_this_machine() {
    for good in
        ["https://id.example/keys?a=b", "http://127.0.0.1:1/x", "http://localhost/x", "http://[::1]:1/x"]
    {
        set(&[&format!("auth.jwt.jwks_url={good}")]).unwrap();
    }
    for bad in [
        "http://id.example/keys",
        "http://localhost.example/",
        "file:///etc/passwd",
        "id.example",
        "https://",
    ] {
        let error = set(&[&format!("auth.jwt.jwks_url={bad}")]).unwrap_err().to_string();
        assert!(error.contains(&format!("auth.jwt.jwks_url = {bad:?} is not ")), "{error}");
    }
    let error = set(&["auth.jwt.jwks_url=https://me:hunter2@id.example/"]).unwrap_err().to_string();
    assert!(error.contains("has a user or a password in it") && !error.contains("hunter2"), "{error}");
    let error = set(&["auth.jwt.jwks_url=https://id.example", "auth.jwt.algorithms=HS256"]).unwrap_err();
    assert!(
        error.to_string().contains("auth.jwt.algorithms has HS256, which a JWKS cannot serve"),
        "{error}"
    );
}

#[test]
fn with_credentials_every_address_may_be_bound() {
    let far = "public.listen = '0.0.0.0:8000'\ninternal.listen = '[::]:9000'\n";
    let config = Config::from_toml(&(far.to_owned() + &whole("a", 'a'))).unwrap();
    assert_eq!(
        config.warnings(),
        ["auth.keys is configured and auth.jwt is not: nobody may subscribe but to namespaces with \
          subscribe = \"anyone\", and there is none"]
    );
    let config = Config::from_toml(&format!("{far}auth.jwt.jwks_url = 'https://id.example'")).unwrap();
    assert_eq!(
        config.warnings(),
        [
            "auth.jwt is configured and auth.keys is not: the internal listener serves nothing but /live, /ready and /metrics"
        ]
    );
    let both = format!("{far}{}[auth.jwt]\njwks_url = 'https://id.example'", whole("a", 'a'));
    assert!(Config::from_toml(&both).unwrap().warnings().is_empty());
    let open = format!("{far}{}[[namespaces]]\nname = 'ticker'\nsubscribe = 'anyone'", whole("a", 'a'));
    assert!(Config::from_toml(&open).unwrap().warnings().is_empty());
}

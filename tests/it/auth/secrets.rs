//! What nobody but its owner may read: keys, tokens and secrets are planted everywhere and looked for in all that is said.

use std::path::Path;

use serde_json::json;

use crate::support::client::Options;
use crate::support::credentials::{SECRET, bearer, entry, secret_file, sign, token};
use crate::support::process::{Served, run, tidegate};
use crate::support::{Client, Conn, End, Transport};

const KEY: &str = "planted-key-e8d2c6";
const WRONG: &str = "planted-wrong-key-91ab";

/// Fails where a secret, or a part of one, stands in a text.
fn search(place: &str, text: &str, secrets: &[String]) {
    for secret in secrets {
        assert!(!text.contains(secret.as_str()), "{place} says {secret:?}:\n{text}");
    }
}

#[tokio::test]
async fn no_credential_is_said_anywhere() {
    let good = token("ann", &["news"], &["news"]);
    let refused = sign(&json!({"sub": "ann", "exp": 1, "channels": ["planted-claim"]}));
    let bad = format!("{}.planted-part", &refused[..refused.len() - 20]);
    let signature = |token: &str| token.rsplit('.').next().unwrap().to_owned();
    let secrets: Vec<String> = [KEY, WRONG, SECRET, &good, &refused, &bad, "planted-"]
        .into_iter()
        .map(str::to_owned)
        .chain([signature(&good), signature(&refused)])
        .collect();

    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("secrets-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("tidegate.toml");
    let text = format!(
        "[auth.jwt]\nkey_file = '{}'\n{}[[namespaces]]\nname = 'chat'\nclient_publish = true\n",
        secret_file().display(),
        entry(KEY, &["*"], &["publish", "read"], "")
    );
    std::fs::write(&file, text).unwrap();
    let mut print = tidegate();
    print.args(["config", "print", "--config"]).arg(&file);
    let (code, printed) = run(print).await;
    assert_eq!(code, 0, "{printed}");
    search("config print", &printed, &secrets);

    let file = file.to_str().unwrap();
    let Served { process, public, internal } =
        Served::start(&[], &["--config", file, "--set", "log.level=trace"]).await;

    let mut said = Vec::new();
    for key in [KEY, WRONG] {
        let authorization = bearer(key);
        for target in ["/v1/channels/news/messages", "/v1/channels", "/v1/nowhere", "/v1/channels/%zz"] {
            let mut conn = Conn::open(internal).await;
            let answer = conn.get(target, &[("Authorization", &authorization)]).await;
            said.push((format!("{key} {target}"), format!("{:?} {}", answer.head, answer.text())));
        }
    }
    for token in [&good, &refused, &bad] {
        for transport in Transport::ALL {
            for query in ["channel=news", "channel=other", "channel=news&since=wrong"] {
                let query = format!("{query}&token={token}");
                if let Err(answer) = Client::open(public, transport, &query, Options::default()).await {
                    said.push((query, format!("{:?} {}", answer.head, answer.text())));
                }
            }
        }
        let options = Options { headers: vec![("Origin", "http://localhost")], ..Options::default() };
        let query = format!("channel=other&token={token}");
        let mut page = Client::open(public, Transport::Websocket, &query, options).await.unwrap();
        let (goodbye, end) = page.end().await;
        assert!(matches!(end, End::Close(4401 | 4403, _)));
        said.push(("a page".into(), format!("{goodbye:?} {end:?}")));
        let options = Options::default();
        let mut client = Client::open(public, Transport::Websocket, "", options).await.unwrap();
        for frame in [
            json!({"type": "authenticate", "token": token, "ref": 1}).to_string(),
            json!({"type": "authenticate", "tokn": token}).to_string(),
        ] {
            client.send(frame).await;
            said.push(("an answer to a frame".into(), client.object().await.text));
        }
    }
    let metrics = Conn::open(internal).await.get("/metrics", &[]).await;
    said.push(("/metrics".into(), metrics.text().to_owned()));
    for (place, text) in &said {
        search(place, text, &secrets);
    }
    process.signal("TERM");
    process.signal("INT");
    let (_, log) = process.outcome().await;
    assert!(log.contains("a client connected"), "the log is at its most talkative: {log}");
    search("the log", &log, &secrets);
    std::fs::remove_dir_all(&folder).unwrap();
}

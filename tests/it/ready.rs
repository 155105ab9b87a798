//! `tidegate ready`: what a container's health check is told, over whatever the listeners speak.

use crate::support::eventually;
use crate::support::process::{Process, Served, free_port, run, tidegate};
use crate::support::tls::{Authority, Folder};

/// The outcome of `tidegate ready` with these keys in its environment.
async fn ready(keys: &[(&str, &str)]) -> (i32, String) {
    let mut command = tidegate();
    command.envs(keys.iter().copied()).arg("ready");
    run(command).await
}

fn said(text: &str) -> (i32, String) {
    (0, text.to_owned())
}

#[tokio::test]
async fn a_gateway_is_ready_until_it_drains_and_then_it_is_gone() {
    let served = Served::start(&[("TIDEGATE_DRAIN__NOTICE", "3s")], &[]).await;
    let listen = served.internal.to_string();
    let key = [("TIDEGATE_INTERNAL__LISTEN", listen.as_str())];
    assert_eq!(ready(&key).await, said("ready\n"));
    served.process.signal("TERM");
    let (code, said) = eventually("it is not ready", async || {
        let (code, said) = ready(&key).await;
        (code != 0).then_some((code, said))
    })
    .await;
    assert_eq!(code, 1);
    assert!(said.starts_with("tidegate: not ready: ") && said.contains("shutting down"), "{said}");
    drop(served);
    let (code, said) = ready(&key).await;
    assert_eq!(code, 1);
    let place = format!("tidegate: not ready: nobody answers at internal.listen = {listen}: ");
    assert!(said.starts_with(&place), "{said}");
}

#[tokio::test]
async fn whether_the_gateway_was_started_with_insecure_need_not_be_said_again() {
    let (public, internal) = (format!("0.0.0.0:{}", free_port()), format!("0.0.0.0:{}", free_port()));
    starts(
        &[("TIDEGATE_PUBLIC__LISTEN", &public), ("TIDEGATE_INTERNAL__LISTEN", &internal)],
        &["--insecure"],
    )
    .await;
}

#[tokio::test]
async fn a_bad_configuration_is_64() {
    let (code, said) = ready(&[("TIDEGATE_LIMITS__OUTBOX", "0")]).await;
    assert_eq!(code, 64, "{said}");
    assert!(said.contains("limits.outbox") || said.contains("TIDEGATE_LIMITS__OUTBOX"), "{said}");
}

#[tokio::test]
async fn listeners_with_tls_are_asked_too_and_the_public_one_where_the_other_wants_a_certificate() {
    let (folder, authority) = (Folder::new(), Authority::new());
    let pair = authority.certify("gateway");
    let (cert, key) = (folder.write("tls.crt", &pair.cert), folder.write("tls.key", &pair.key));
    let ca = folder.write("ca.crt", &authority.cert);
    let internal =
        [("TIDEGATE_INTERNAL__TLS_CERT_FILE", cert.as_str()), ("TIDEGATE_INTERNAL__TLS_KEY_FILE", &key)];
    let demanding = [internal[0], internal[1], ("TIDEGATE_INTERNAL__CLIENT_CA_FILE", &ca)];
    let public = [("TIDEGATE_PUBLIC__TLS_CERT_FILE", cert.as_str()), ("TIDEGATE_PUBLIC__TLS_KEY_FILE", &key)];
    let all = [&demanding[..], &public[..]].concat();
    for keys in [&internal[..], &demanding[..], &all[..]] {
        let served = Served::start(keys, &[]).await;
        let (public, internal) = (served.public.to_string(), served.internal.to_string());
        let mut keys = keys.to_vec();
        keys.extend([("TIDEGATE_PUBLIC__LISTEN", public.as_str()), ("TIDEGATE_INTERNAL__LISTEN", &internal)]);
        assert_eq!(ready(&keys).await, said("ready\n"), "{keys:?}");
    }
}

#[tokio::test]
async fn a_unix_socket_is_asked() {
    let folder = Folder::new();
    let socket = format!("unix:{}", folder.path().join("internal.sock").display());
    let public = format!("127.0.0.1:{}", free_port());
    starts(&[("TIDEGATE_PUBLIC__LISTEN", &public), ("TIDEGATE_INTERNAL__LISTEN", &socket)], &[]).await;
}

/// A gateway with these keys becomes ready, and is missed where it was when it is gone.
async fn starts(keys: &[(&str, &str)], arguments: &[&str]) {
    let mut command = tidegate();
    command.envs(keys.iter().copied()).args(arguments);
    let process = Process::spawn(command);
    eventually("it is ready", async || (ready(keys).await == said("ready\n")).then_some(())).await;
    drop(process);
    let (code, said) = ready(keys).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(keys[1].1), "{said}");
}

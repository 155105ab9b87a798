//! The section `[broker]`, checked: where Redis is, as whom, and how names are made in it.

use std::{
    fs::{self, File},
    ops::RangeInclusive,
    path::PathBuf,
    time::Duration,
};

use super::{
    broker_url::{BrokerUrl, Login, RedisUrl},
    check::{ANY_TIME, Fault, fault, within},
    raw,
    secret::Secret,
    units::{Count, Time},
};

/// Beyond 16,384 two partitions would share a slot; far fewer spread over every Cluster.
const PARTITIONS: RangeInclusive<Count> = Count(1)..=Count(4096);
/// Below, a busy machine times out; above, a publisher waits longer than anybody would.
const COMMAND_TIMEOUT: RangeInclusive<Time> = Time::millis(10)..=Time::secs(60);

/// Where messages and their history are held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Which broker. The login that counts is not the URL's, but `login`.
    pub url: BrokerUrl,
    /// As whom to connect to the servers.
    pub login: Login,
    /// As whom to connect to the Sentinels.
    pub sentinel_login: Login,
    /// The files of TLS, where the URL asks for TLS.
    pub tls: RedisTls,
    /// Before every key and channel in Redis; neither braces nor glob characters.
    pub prefix: String,
    /// Over how many hash tags the channels are spread.
    pub partitions: u16,
    /// How long an answer may take.
    pub command_timeout: Duration,
    /// How long a channel stays subscribed after its last local client.
    pub linger: Duration,
}

/// The PEM files of TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisTls {
    /// What the servers' certificates are checked against; `None`: what the system trusts.
    pub ca: Option<PathBuf>,
    /// The client certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

pub fn check(raw: &raw::Broker) -> Result<Broker, Fault> {
    let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let redis = match &raw.url {
        BrokerUrl::Memory => None,
        BrokerUrl::Redis(url) => Some(url),
    };
    // With `memory:` the rest has no effect and is not looked at: so a prepared file can be tried without Redis.
    let (login, sentinel_login, tls) = match redis {
        None => Default::default(),
        Some(url) => {
            let keys = ["broker.username", "broker.password", "broker.password_file"];
            let login = Login {
                username: given(&raw.username),
                password: password(keys[1], &raw.password, keys[2], &raw.password_file)?,
            };
            let sentinel =
                ["broker.sentinel_username", "broker.sentinel_password", "broker.sentinel_password_file"];
            let sentinel_login = Login {
                username: given(&raw.sentinel_username),
                password: password(
                    sentinel[1],
                    &raw.sentinel_password,
                    sentinel[2],
                    &raw.sentinel_password_file,
                )?,
            };
            let sentinel_login = complete(sentinel_login, sentinel, sentinel[0])?;
            let user = if raw.username.is_empty() { "broker.url" } else { keys[0] };
            (complete(joined(raw, login, url)?, keys, user)?, sentinel_login, tls_files(raw, url)?)
        }
    };
    Ok(Broker {
        url: raw.url.clone(),
        login,
        sentinel_login,
        tls,
        prefix: prefix(&raw.prefix)?,
        partitions: u16::try_from(within("broker.partitions", raw.partitions, PARTITIONS)?.0)
            .unwrap_or(u16::MAX),
        command_timeout: within("broker.command_timeout", raw.command_timeout, COMMAND_TIMEOUT)?.get(),
        linger: within("broker.linger", raw.linger, ANY_TIME)?.get(),
    })
}

/// The password as it was given, or what its file holds.
fn password(key: &str, secret: &Secret, file_key: &str, file: &str) -> Result<Option<Secret>, Fault> {
    if file.is_empty() {
        return Ok(Some(secret.clone()).filter(|secret| !secret.is_empty()));
    }
    if !secret.is_empty() {
        return fault([file_key, key], format!("{key} and {file_key} are both given: remove one"));
    }
    let text = fs::read_to_string(file)
        .or_else(|error| fault([file_key], format!("{file_key}: cannot read {file}: {error}")))?;
    // Editors and `echo` end a file with a line's end, and no password has one.
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return fault([file_key], format!("{file_key}: {file} is empty"));
    }
    Ok(Some(Secret::new(text)))
}

/// What the keys say, and where they say nothing, what the URL says.
fn joined(raw: &raw::Broker, keys: Login, url: &RedisUrl) -> Result<Login, Fault> {
    let twice = |what: &str, key: &str| {
        fault([key, "broker.url"], format!("broker.url has a {what} and {key} is given too: remove one"))
    };
    if keys.username.is_some() && url.login.username.is_some() {
        return twice("user name", "broker.username");
    }
    if keys.password.is_some() && url.login.password.is_some() {
        let key = if raw.password.is_empty() { "broker.password_file" } else { "broker.password" };
        return twice("password", key);
    }
    let url = url.login.clone();
    Ok(Login { username: keys.username.or(url.username), password: keys.password.or(url.password) })
}

/// A user without a password is a mistake: in `redis://secret@host` it is the password that was meant. `given` is the key
/// that names the user.
fn complete(login: Login, [username, password, file]: [&str; 3], given: &str) -> Result<Login, Fault> {
    if login.username.is_some() && login.password.is_none() {
        let sentence = format!(
            "{username} has no password: give {password} or {file}, and write a URL with a password alone as \
             redis://:password@host"
        );
        return fault([given], sentence);
    }
    Ok(login)
}

fn tls_files(raw: &raw::Broker, url: &RedisUrl) -> Result<RedisTls, Fault> {
    let files = [
        ("broker.ca_file", &raw.ca_file),
        ("broker.cert_file", &raw.cert_file),
        ("broker.key_file", &raw.key_file),
    ];
    for (key, file) in files.iter().filter(|(_, file)| !file.is_empty()) {
        if !url.tls {
            let sentence = format!(
                "{key} is given, but broker.url asks for no TLS: write rediss:// in place of redis://"
            );
            return fault([*key, "broker.url"], sentence);
        }
        if let Err(error) = File::open(file) {
            return fault([*key], format!("{key}: cannot read {file}: {error}"));
        }
    }
    let client = match (raw.cert_file.as_str(), raw.key_file.as_str()) {
        ("", "") => None,
        (cert, key) if !cert.is_empty() && !key.is_empty() => Some((cert.into(), key.into())),
        _ => {
            let keys = ["broker.cert_file", "broker.key_file"];
            return fault(
                keys,
                "broker.cert_file and broker.key_file need each other: one is missing".into(),
            );
        }
    };
    Ok(RedisTls { ca: Some(&raw.ca_file).filter(|file| !file.is_empty()).map(PathBuf::from), client })
}

/// Braces would move the hash tag, and glob characters the rights of an ACL.
fn prefix(prefix: &str) -> Result<String, Fault> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"_.:~@/-".contains(&b);
    if (1..=64).contains(&prefix.len()) && prefix.bytes().all(fine) {
        return Ok(prefix.to_owned());
    }
    let sentence =
        format!("broker.prefix = {prefix:?} is not a prefix: write 1 to 64 of A-Z a-z 0-9 _ . : ~ @ / -");
    fault(["broker.prefix"], sentence)
}

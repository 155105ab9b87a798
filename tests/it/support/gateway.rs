//! A gateway inside the test's process, on ports of its own.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tidegate::app::Running;
use tidegate::config::Config;

use super::raw::{Answer, Conn};
use super::{PATIENCE, eventually, within};

/// A configuration in the making.
#[derive(Debug, Default)]
pub struct Builder {
    keys: String,
    tables: String,
}

impl Builder {
    /// One key as a line of TOML: `limits.outbox = '64KiB'`.
    pub fn with(mut self, line: &str) -> Self {
        self.keys += line;
        self.keys.push('\n');
        self
    }

    /// A namespace: its name and its keys as lines of TOML.
    pub fn namespace(mut self, name: &str, keys: &str) -> Self {
        self.tables += &format!("[[namespaces]]\nname = '{name}'\n{keys}\n");
        self
    }

    /// A table as TOML.
    pub fn table(mut self, text: &str) -> Self {
        self.tables += text;
        self
    }

    /// The configuration as TOML.
    pub fn toml(&self) -> String {
        format!(
            "public.listen = '127.0.0.1:0'\ninternal.listen = '127.0.0.1:0'\n{}{}",
            self.keys, self.tables
        )
    }

    /// Starts the gateway.
    pub async fn run(self) -> TestGateway {
        let text = self.toml();
        let config = Config::from_toml(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let running = tidegate::app::start(config).await.expect("the gateway starts");
        TestGateway {
            public: running.public_addr(),
            internal: running.internal_addr(),
            running,
            finished: false,
        }
    }
}

/// What a publisher was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    pub channel: String,
    pub id: String,
    pub duplicate: bool,
}

/// A running gateway. End each test with [`TestGateway::finish`].
pub struct TestGateway {
    pub public: SocketAddr,
    pub internal: SocketAddr,
    pub running: Running,
    finished: bool,
}

impl TestGateway {
    /// A gateway with nothing configured but its ports; `run` starts it.
    pub fn start() -> Builder {
        Builder::default()
    }

    /// One request to the public listener, on a connection of its own.
    pub async fn public(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Answer {
        Conn::open(self.public).await.request(method, target, headers, body).await
    }

    /// One request to the internal listener, on a connection of its own.
    pub async fn internal(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Answer {
        Conn::open(self.internal).await.request(method, target, headers, body).await
    }

    /// `GET` from the internal listener; must be a 200.
    pub async fn get(&self, target: &str) -> Value {
        self.internal("GET", target, &[], None).await.expect(200).json()
    }

    /// `GET` from the public listener.
    pub async fn get_public(&self, target: &str) -> Answer {
        self.public("GET", target, &[], None).await
    }

    /// Publishes; whatever the answer.
    pub async fn post(&self, channel: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Answer {
        let target = format!("/v1/channels/{channel}/messages");
        self.internal("POST", &target, headers, Some(body.as_ref())).await
    }

    /// Publishes JSON given as its text; must be accepted.
    pub async fn publish(&self, channel: &str, body: impl AsRef<[u8]>) -> Receipt {
        receipt(&self.post(channel, &[("Content-Type", "application/json")], body).await)
    }

    /// Publishes the numbers from `first` to `last`, each as a message; gives their ids.
    pub async fn publish_numbers(&self, channel: &str, first: u64, last: u64) -> Vec<String> {
        let mut conn = Conn::open(self.internal).await;
        let target = format!("/v1/channels/{channel}/messages");
        let mut ids = Vec::new();
        for number in first..=last {
            let headers = [("Content-Type", "application/json")];
            let answer = conn.request("POST", &target, &headers, Some(number.to_string().as_bytes())).await;
            ids.push(receipt(&answer).id);
        }
        ids
    }

    /// Publishes a batch; whatever the answer.
    pub async fn batch(&self, body: &Value) -> Answer {
        let headers = [("Content-Type", "application/json")];
        self.internal("POST", "/v1/messages", &headers, Some(body.to_string().as_bytes())).await
    }

    /// Forgets a channel's history.
    pub async fn delete(&self, channel: &str) {
        self.internal("DELETE", &format!("/v1/channels/{channel}/messages"), &[], None).await.expect(204);
    }

    /// `POST /v1/disconnect`.
    pub async fn disconnect(&self, key: &str, value: &str) {
        let body = json!({key: value}).to_string();
        let headers = [("Content-Type", "application/json")];
        let answer =
            self.internal("POST", "/v1/disconnect", &headers, Some(body.as_bytes())).await.expect(202);
        assert_eq!(answer.json(), json!({"requested": true}));
    }

    /// How many listen to a channel now.
    pub async fn subscribers(&self, channel: &str) -> u64 {
        self.get(&format!("/v1/channels/{channel}")).await["subscribers"]
            .as_u64()
            .expect("a number of subscribers")
    }

    /// Waits until so many listen to a channel; held polls count.
    pub async fn until_subscribers(&self, channel: &str, wanted: u64) {
        eventually(&format!("{wanted} subscribers of {channel}"), async || {
            (self.subscribers(channel).await == wanted).then_some(())
        })
        .await;
    }

    /// The metrics' text.
    pub async fn metrics(&self) -> String {
        let answer = self.internal("GET", "/metrics", &[], None).await.expect(200);
        answer.text().to_owned()
    }

    /// One series' value, its labels in any order; 0 where it is not there is a failure.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let text = self.metrics().await;
        super::gateway::series(&text, name, labels)
            .unwrap_or_else(|| panic!("no {name} {labels:?} in\n{text}"))
    }

    /// The end of a test: drops its clients, then nothing of them may be left in the gateway.
    pub async fn finish<T>(mut self, clients: T) {
        drop(clients);
        self.finished = true;
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let left = self.running.leftovers();
            if left.is_empty() {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "left behind in the gateway: {left}");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// Waits for the end of a drain; then too nothing may be left.
    pub async fn stopped(mut self, limit: std::time::Duration) {
        within(limit, "the end of the drain", self.running.stopped()).await;
        self.finish(()).await;
    }
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        assert!(
            self.finished || std::thread::panicking(),
            "a test must end with gateway.finish(clients).await"
        );
    }
}

/// Reads the receipt of a publish that must have been accepted.
#[track_caller]
pub fn receipt(answer: &Answer) -> Receipt {
    assert_eq!(answer.status(), 202, "{}", answer.text());
    let json = answer.json();
    Receipt {
        channel: json["channel"].as_str().expect("a channel").to_owned(),
        id: json["id"].as_str().expect("an id").to_owned(),
        duplicate: json["duplicate"].as_bool().expect("a word on duplicates"),
    }
}

/// The value of a series in the text of the metrics.
pub fn series(text: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (found, rest) = series.split_once('{').unwrap_or((series, "}"));
        let given: Vec<&str> =
            rest.trim_end_matches('}').split(',').filter(|pair| !pair.is_empty()).collect();
        let same = found == name
            && given.len() == labels.len()
            && labels.iter().all(|(label, value)| given.contains(&format!("{label}=\"{value}\"").as_str()));
        same.then(|| value.parse().ok())?
    })
}

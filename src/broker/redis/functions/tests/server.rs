//! A redis-server of its own for each test, and links to it.

use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use fred::{
    clients::Client,
    interfaces::ClientLike,
    types::{
        ClusterHash, CustomCommand, Resp3Frame, Value,
        config::{Config, ServerConfig},
    },
};

use super::super::{Call, Functions, LIBRARY};
use crate::broker::redis::{command::CommandError, names::Names, server, tests::SERVER};

pub(super) struct Server {
    child: Child,
    dir: PathBuf,
    pub(super) port: u16,
}

impl Server {
    pub(super) fn start(arguments: &[&str]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = std::env::temp_dir().join(format!("tidegate-functions-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let child = Self::spawn(&dir, port, arguments);
        Self { child, dir, port }
    }

    fn spawn(dir: &PathBuf, port: u16, arguments: &[&str]) -> Child {
        let port = port.to_string();
        Command::new(SERVER)
            .args([
                "--port",
                &port,
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--enable-debug-command",
                "yes",
                "--dir",
            ])
            .arg(dir)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Ends the process and starts it anew in the same place.
    pub(super) fn restart(&mut self, arguments: &[&str]) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = Self::spawn(&self.dir, self.port, arguments);
    }

    /// The other client.
    pub(super) async fn redis(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        for _ in 0..500 {
            if let Ok(mut connection) = client.get_multiplexed_async_connection().await
                && redis::cmd("PING").query_async::<()>(&mut connection).await.is_ok()
            {
                return connection;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("redis-server does not start");
    }

    pub(super) async fn link(&self, user: Option<(&str, &str)>) -> Link {
        let server = ServerConfig::new_centralized("127.0.0.1", self.port);
        let mut config = Config { server, ..Config::default() };
        if let Some((user, password)) = user {
            (config.username, config.password) = (Some(user.into()), Some(password.into()));
        }
        let client = Client::new(config, None, None, None);
        client.init().await.unwrap();
        Link(client)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

#[derive(Clone)]
pub(super) struct Link(Client);

impl Call for Link {
    async fn call(&self, command: &'static str, arguments: Vec<Value>) -> Result<Value, CommandError> {
        let command = CustomCommand::new_static(command, ClusterHash::Random, false);
        let frame = self.0.custom_raw(command, arguments).await;
        let frame = frame.map_err(|error| CommandError::Other(error.to_string()))?;
        let error = match &frame {
            Resp3Frame::SimpleError { data, .. } => data.to_string(),
            Resp3Frame::BlobError { data, .. } => String::from_utf8_lossy(data).into_owned(),
            _ => return Value::try_from(frame).map_err(|error| CommandError::Other(error.to_string())),
        };
        // Whose it is matters to a redirection alone.
        Err(CommandError::from_reply(&error, &server::Server::tcp("localhost", 0)))
    }
}

pub(super) struct Fixture {
    pub(super) server: Server,
    pub(super) redis: redis::aio::MultiplexedConnection,
    pub(super) link: Link,
    pub(super) functions: Functions,
}

impl Fixture {
    pub(super) async fn new() -> Self {
        Self::with(&[]).await
    }

    pub(super) async fn with(arguments: &[&str]) -> Self {
        let server = Server::start(arguments);
        let redis = server.redis().await;
        let link = server.link(None).await;
        let functions =
            Functions::new(Names::new("tidegate", 256, 0), arguments.contains(&"--cluster-enabled"));
        functions.load(&link).await.unwrap();
        Self { server, redis, link, functions }
    }

    /// One whose clock stands still where [`Fixture::set_clock`] puts it.
    pub(super) async fn with_clock() -> Self {
        let fixture = Self::new().await;
        let library = LIBRARY.replace("redis.call('TIME')", "redis.call('LRANGE', 'clock', 0, 1)");
        assert_ne!(library, LIBRARY);
        let load = vec!["LOAD".into(), "REPLACE".into(), library.into()];
        fixture.link.call("FUNCTION", load).await.unwrap();
        fixture
    }

    pub(super) async fn set_clock(&self, ms: u64) {
        let parts = [(ms / 1000).to_string(), (ms % 1000 * 1000).to_string()];
        self.run::<()>(&["DEL", "clock"]).await;
        self.run::<()>(&["RPUSH", "clock", &parts[0], &parts[1]]).await;
    }

    /// Any command, by the other client.
    pub(super) async fn run<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_run(words).await.unwrap()
    }

    pub(super) async fn try_run<T: redis::FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let mut command = redis::cmd(words[0]);
        words[1..].iter().for_each(|word| {
            command.arg(word);
        });
        command.query_async(&mut self.redis.clone()).await
    }

    /// Another server, as far as the fence can tell.
    pub(super) async fn fail_over(&self) {
        self.run::<()>(&["DEBUG", "CHANGE-REPL-ID"]).await;
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}

//! The link that commands go through: one fred client, told never to reconnect, so that one connection is one
//! life; and beside it, with the same life, a `Pipeline` for what publishers wait for.
//!
//! What fred 10.1 does at the end, and what is made of it here: commands in flight fail at once with an I/O error; those
//! that wait to be written are cancelled, the only use of that error kind; a client whose connection has ended goes on
//! taking commands that nobody will ever write, so this link looks at its own `closed` instead. MOVED, ASK and
//! TRYAGAIN come through untouched. An error reply of
//! CLUSTERDOWN is to fred the end of the connection, and the error of all commands in flight: some of them
//! may be executed, so none of them is surely not.

use std::{
    fmt,
    future::pending,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use fred::{
    clients::Client,
    error::{Error, ErrorKind},
    interfaces::ClientLike,
    types::{ClusterHash, ConnectHandle, CustomCommand, Resp3Frame, Value},
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task::AbortHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

pub use super::error::{CommandError, ConnectError};
use super::{
    endpoint::{Endpoint, Role},
    error::Problem,
    pipeline::{Pipeline, ROOM, weight},
    resp::{CLIENT_NAME, Connection, Hello, database_problem, error_text},
    server::Server,
};

/// The link for commands to one server. It ends with either of its connections, and when it is dropped.
pub struct CommandLink {
    client: Client,
    pipeline: Pipeline,
    server: Server,
    hello: Hello,
    life: Life,
    /// What may be on its way at once, in KiB.
    room: Semaphore,
    /// Answers so far: a command that timed out while this stood still was sent to a server that is away.
    answers: AtomicU64,
}

/// The task of fred's connection, and the end of both connections; they end with this.
struct Life {
    task: AbortHandle,
    closed: CancellationToken,
}

impl Life {
    fn of(task: ConnectHandle, closed: CancellationToken) -> Self {
        let life = Self { task: task.abort_handle(), closed: closed.clone() };
        tokio::spawn(async move {
            let _ = task.await;
            closed.cancel();
        });
        life
    }

    fn end(&self) {
        self.closed.cancel();
        self.task.abort();
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.end();
    }
}

impl CommandLink {
    /// Connects, logs in and looks whether this is the primary that is wanted, within `limit`.
    ///
    /// # Errors
    /// One sentence that names what is wrong, and where.
    pub async fn connect(
        endpoint: &Endpoint,
        server: &Server,
        limit: Duration,
    ) -> Result<Self, ConnectError> {
        // First, since fred says little of why it could not connect.
        let (mut connection, hello) = Connection::open(endpoint, server, Role::Primary, limit).await?;
        if !hello.is_primary() {
            return Err(ConnectError::new(server, Problem::NotPrimary));
        }
        let connected = timeout(limit, async {
            if endpoint.database() != 0 {
                connection.select(endpoint.database()).await?;
            }
            let link = Self::start(endpoint, server, limit, connection, hello).await;
            let link = link.map_err(|error| why(endpoint, limit, &error))?;
            link.greet(endpoint).await.map(|()| link)
        });
        let connected = connected.await.unwrap_or_else(|_| Err(endpoint.timed_out(limit)));
        connected.map_err(|problem| ConnectError::new(server, problem))
    }

    async fn start(
        endpoint: &Endpoint,
        server: &Server,
        limit: Duration,
        connection: Connection,
        hello: Hello,
    ) -> Result<Self, Error> {
        let closed = CancellationToken::new();
        let fred = endpoint.fred(server, limit);
        let client = Client::new(fred.config, Some(fred.performance), Some(fred.connection), None);
        let mut life = None;
        // The outcome is broadcast once: whoever waits must do so before the connection begins.
        let begin = async {
            life = Some(Life::of(client.connect(), closed.clone()));
            pending::<()>().await;
        };
        tokio::select! {
            biased;
            connected = client.wait_for_connect() => connected?,
            () = begin => {}
        }
        let life = life.ok_or_else(|| Error::new(ErrorKind::Unknown, "the connection was not begun"))?;
        Ok(Self {
            client,
            pipeline: Pipeline::begin(connection, endpoint.command_timeout(), closed),
            server: server.clone(),
            hello,
            life,
            room: Semaphore::new(ROOM as usize),
            answers: AtomicU64::new(0),
        })
    }

    /// What the other connection has done already. HELLO is allowed to everybody, whatever the ACL.
    async fn greet(&self, endpoint: &Endpoint) -> Result<(), Problem> {
        let answer = self.raw("HELLO", vec!["2".into(), "SETNAME".into(), CLIENT_NAME.into()]).await;
        let (_, keys) = endpoint.login(Role::Primary);
        let hello = Hello::read(answer.map_err(|_| Problem::Closed)?, keys)?;
        if !hello.is_primary() {
            return Err(Problem::NotPrimary);
        }
        let database = endpoint.database();
        if database != 0 {
            let answer = self.raw("SELECT", vec![i64::from(database).into()]).await;
            if let Some(error) = error_text(&answer.map_err(|_| Problem::Closed)?) {
                return Err(database_problem(database, error));
            }
        }
        Ok(())
    }

    /// Sends a command together with what else waits, and waits for its answer, at most `broker.command_timeout`.
    /// What clients of the gateway wait for goes this way: few bytes, often, from many tasks.
    ///
    /// # Errors
    /// What became of the command.
    pub async fn pipelined(&self, command: &'static str, args: Vec<Value>) -> Result<Value, CommandError> {
        let frame = self.pipeline.call(command, args).await?;
        self.value(frame)
    }

    /// Asks both connections whether the server is there.
    ///
    /// # Errors
    /// One of them has no answer.
    pub async fn ping(&self) -> Result<(), CommandError> {
        let (one, other) = tokio::join!(self.call("PING", Vec::new()), self.pipelined("PING", Vec::new()));
        for answer in [one, other] {
            match answer {
                // A server that could not save refuses even this.
                Ok(_) | Err(CommandError::NoWrites) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends a command and waits for its answer, at most `broker.command_timeout`.
    ///
    /// # Errors
    /// What became of the command.
    pub async fn call(&self, command: &'static str, args: Vec<Value>) -> Result<Value, CommandError> {
        let frame = self.raw(command, args).await?;
        self.value(frame)
    }

    /// Sends a command to the server that a slot moves to: ASKING and the command, with nothing between them.
    ///
    /// # Errors
    /// What became of the command.
    pub async fn ask(&self, command: &'static str, args: Vec<Value>) -> Result<Value, CommandError> {
        let _room = self.room(&args)?;
        let pipeline = self.client.pipeline();
        let queued = async {
            pipeline.custom::<(), Value>(custom("ASKING"), Vec::new()).await?;
            pipeline.custom::<(), Value>(custom(command), args).await
        };
        queued.await.map_err(|error| CommandError::Other(error.to_string()))?;
        let mut answers = self.guarded(async { Ok(pipeline.try_all::<Value>().await) }).await?;
        match (answers.pop(), answers.len()) {
            (Some(Ok(value)), 1) => Ok(value),
            // fred hands errors out here as text only; one alone is of the pipeline as a whole.
            (Some(Err(error)), 1) => Err(CommandError::from_reply(error.details(), &self.server)),
            (Some(Err(error)), _) => Err(self.failed(&error)),
            _ => Err(CommandError::Uncertain),
        }
    }

    async fn raw(&self, command: &'static str, args: Vec<Value>) -> Result<Resp3Frame, CommandError> {
        let _room = self.room(&args)?;
        self.guarded(self.client.custom_raw(custom(command), args)).await
    }

    fn room(&self, args: &[Value]) -> Result<SemaphorePermit<'_>, CommandError> {
        self.room.try_acquire_many(weight(args)).map_err(|_| CommandError::Unavailable)
    }

    /// Runs `answer` while the connection lives. A timeout with no answer to anybody since is the end of the link.
    async fn guarded<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> Result<T, CommandError> {
        if self.is_closed() {
            return Err(CommandError::Unavailable);
        }
        let before = self.answers.load(Ordering::Relaxed);
        let result = tokio::select! {
            biased;
            result = answer => result,
            () = self.life.closed.cancelled() => return Err(CommandError::Uncertain),
        };
        match result {
            Ok(answer) => {
                self.answers.fetch_add(1, Ordering::Relaxed);
                Ok(answer)
            }
            Err(error) => {
                if *error.kind() == ErrorKind::Timeout && self.answers.load(Ordering::Relaxed) == before {
                    self.close();
                }
                Err(self.failed(&error))
            }
        }
    }

    /// What an error of the client, not of the server, says of the command.
    fn failed(&self, error: &Error) -> CommandError {
        match error.kind() {
            ErrorKind::Canceled | ErrorKind::Backpressure => CommandError::Unavailable,
            _ => CommandError::Uncertain,
        }
    }

    fn value(&self, frame: Resp3Frame) -> Result<Value, CommandError> {
        if let Some(error) = error_text(&frame) {
            return Err(CommandError::from_reply(&error, &self.server));
        }
        Value::try_from(frame).map_err(|error| CommandError::Other(error.to_string()))
    }

    /// Where this link leads.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// What the server said of itself when the link began.
    #[must_use]
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Whether the link has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.life.closed.is_cancelled()
    }

    /// Waits for the end of the link.
    pub async fn closed(&self) {
        self.life.closed.cancelled().await;
    }

    /// Ends the link; what waits for an answer fails at once.
    pub fn close(&self) {
        self.life.end();
    }
}

impl fmt::Debug for CommandLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommandLink({})", self.server)
    }
}

fn custom(command: &'static str) -> CustomCommand {
    CustomCommand::new_static(command, ClusterHash::Random, false)
}

/// What kept fred from connecting where a connection of our own could.
fn why(endpoint: &Endpoint, limit: Duration, error: &Error) -> Problem {
    match error.details() {
        _ if *error.kind() == ErrorKind::Timeout => endpoint.timed_out(limit),
        // It sends a PING where there is no password, and that may be forbidden.
        text if text.starts_with("NOPERM") => Problem::Denied(text.to_owned()),
        text => Problem::Network(text.to_owned()),
    }
}

#[cfg(test)]
mod tests;

//! A primary with replicas, watched by three Sentinels or by nobody.

use std::net::SocketAddr;

use ::redis::Value;

use super::{Server, Settings, free_port, until};

/// The name that the Sentinels know the primary by.
pub const SERVICE: &str = "tide";

/// Servers of which one is the primary when it all begins.
pub struct Replicated {
    /// The first began as the primary.
    pub servers: Vec<Server>,
    pub sentinels: Vec<Server>,
}

impl Replicated {
    /// A primary and a replica that finds it at `seen_at`, a proxy's address, or at its own.
    pub async fn pair(primary: Server, seen_at: Option<SocketAddr>) -> Self {
        let seen_at = seen_at.unwrap_or(primary.address());
        let settings = Settings::default().with(format!("replicaof {} {}", seen_at.ip(), seen_at.port()));
        let replica = Server::start(settings).await;
        replica.until_following().await;
        primary.until_followed(1).await;
        Self { servers: vec![primary, replica], sentinels: Vec::new() }
    }

    /// A primary, two replicas and three Sentinels that know each other already.
    pub async fn watched() -> Self {
        let primary = Server::plain().await;
        let follow = format!("replicaof 127.0.0.1 {}", primary.port);
        let (first, second) = tokio::join!(
            Server::start(Settings::default().with(&follow)),
            Server::start(Settings::default().with(&follow))
        );
        tokio::join!(first.until_following(), second.until_following());
        primary.until_followed(2).await;
        let mut all = Self { servers: vec![primary, first, second], sentinels: Vec::new() };
        all.start_sentinels().await;
        all
    }

    async fn start_sentinels(&mut self) {
        let members: Vec<(u16, String)> =
            (0..3_u32).map(|index| (free_port(), format!("{:040x}", u64::from(index) + 0x5e00))).collect();
        for (port, own) in &members {
            let mut settings = Settings { sentinel: true, ..Settings::default() }
                .with(format!("sentinel myid {own}"))
                .with(format!("sentinel monitor {SERVICE} 127.0.0.1 {} 2", self.servers[0].port))
                .with(format!("sentinel down-after-milliseconds {SERVICE} 10000"))
                .with(format!("sentinel failover-timeout {SERVICE} 5000"));
            for replica in &self.servers[1..] {
                settings =
                    settings.with(format!("sentinel known-replica {SERVICE} 127.0.0.1 {}", replica.port));
            }
            for (other, id) in members.iter().filter(|(other, _)| other != port) {
                settings = settings.with(format!("sentinel known-sentinel {SERVICE} 127.0.0.1 {other} {id}"));
            }
            self.sentinels.push(Server::prepare(*port, settings));
        }
        tokio::join!(self.sentinels[0].run(), self.sentinels[1].run(), self.sentinels[2].run());
        for sentinel in &self.sentinels {
            until("the Sentinels agree", async || {
                sentinel.try_command(&["SENTINEL", "CKQUORUM", SERVICE]).await.is_ok().then_some(())
            })
            .await;
        }
    }

    /// A primary that does not answer is replaced soon. Otherwise nobody is, on a slow machine either.
    pub async fn be_impatient(&self) {
        for sentinel in &self.sentinels {
            sentinel.command(&["SENTINEL", "SET", SERVICE, "down-after-milliseconds", "1000"]).await;
        }
    }

    /// `redis-sentinel://…` of all three.
    pub fn url(&self) -> String {
        let sentinels: Vec<String> =
            self.sentinels.iter().map(|server| server.address().to_string()).collect();
        format!("redis-sentinel://{}/{SERVICE}", sentinels.join(","))
    }

    /// The server that the Sentinels call the primary now.
    pub async fn primary(&self) -> &Server {
        let port = self.primary_port(&self.sentinels[0]).await;
        self.servers.iter().find(|server| server.port == port).expect("one of ours")
    }

    async fn primary_port(&self, sentinel: &Server) -> u16 {
        let (_, port): (String, u16) = sentinel.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE]).await;
        port
    }

    /// A failover as an operator orders one; waits until all Sentinels name the new primary, and it is one.
    pub async fn fail_over(&self) {
        let before = self.primary().await.port;
        until("a replica is good enough", async || {
            let answer = self.sentinels[0].try_command(&["SENTINEL", "FAILOVER", SERVICE]).await;
            matches!(answer, Ok(Value::Okay)).then_some(())
        })
        .await;
        self.until_replaced(before).await;
        self.until_agreed().await;
    }

    /// Waits until every other server that runs follows the primary: until then the old one may go on
    /// accepting what it will forget.
    pub async fn until_agreed(&self) {
        let primary = self.primary().await;
        for server in self.servers.iter().filter(|server| server.is_running() && server.port != primary.port)
        {
            until("all follow the new primary", async || {
                let text = server.try_command(&["INFO", "replication"]).await.ok()?;
                let text: String = ::redis::from_redis_value(text).ok()?;
                let follows = text.contains(&format!("master_port:{}\r\n", primary.port));
                (follows && text.contains("master_link_status:up")).then_some(())
            })
            .await;
        }
    }

    /// Waits until all Sentinels name another primary than the one at this port, and it takes writes.
    pub async fn until_replaced(&self, before: u16) {
        for sentinel in &self.sentinels {
            until("a new primary", async || (self.primary_port(sentinel).await != before).then_some(()))
                .await;
        }
        let primary = self.primary().await;
        until("it is a primary", async || {
            (primary.info("replication", "role").await == "master").then_some(())
        })
        .await;
    }
}

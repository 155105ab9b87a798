//! The yardstick for `tidegate bench`: what the machine itself takes, with nothing of a gateway in it.
//!
//! `fanout` writes one ready frame to every subscriber with plain `send(2)` calls; `echo` is hyper alone, answering at
//! once, to compare long polls with. Both speak just enough of the gateway's HTTP to be driven by the same client, so
//! that a ratio always comes from one tool, one machine and one run. What they cost is read from outside, by process id.

mod echo;
mod fanout;
mod frame;
mod head;

use std::net::{Ipv4Addr, SocketAddr};

use clap::{Parser, Subcommand};
use tokio::net::{TcpListener, TcpSocket};

/// Waiting connections that the kernel holds: a load generator connects hundreds at a time.
const BACKLOG: u32 = 4096;

/// The least that a fan-out costs on this machine.
#[derive(Parser)]
#[command(name = "tidegate-floor")]
struct Arguments {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand)]
enum Mode {
    /// Write each posted message to every subscriber, one send(2) each
    Fanout {
        /// Port on 127.0.0.1
        #[arg(long, default_value_t = 8500)]
        port: u16,
    },
    /// Answer every request at once with its own target: a bare hyper server
    Echo {
        /// Port on 127.0.0.1
        #[arg(long, default_value_t = 8500)]
        port: u16,
    },
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    // One thread: the floor is what one core can do.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match arguments.mode {
            Mode::Fanout { port } => fanout::serve(listen(port)?).await,
            Mode::Echo { port } => echo::serve(listen(port)?).await,
        }
    })
}

fn listen(port: u16) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    socket.listen(BACKLOG)
}

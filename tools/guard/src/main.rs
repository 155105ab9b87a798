//! Runs one step of a message's way so many times. Under callgrind the difference of two runs says how many
//! instructions one step takes, whatever the machine is busy with: `tests/instructions.py` holds it to a ceiling.

mod fixture;

use std::hint::black_box;

use axum::body::Body;
use bytes::Bytes;
use clap::{Parser, ValueEnum};
use http::{Request, StatusCode, header};
use tidegate::{
    http::edge::Edge,
    hub::{Batch, Seam},
    wire::{Encoding, Framing, Prepared},
};

use self::fixture::{Crowd, Fixture, Messages};

/// Who listens while a message is offered: enough that what is done once for all of them is a small part.
const CROWD: usize = 64;

/// Messages that come between a subscription and its going live.
const HELD: usize = 4;

/// One step, so many times.
#[derive(Parser)]
#[command(name = "tidegate-guard")]
struct Arguments {
    step: Step,
    times: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Step {
    /// Write a message down for each transport
    Encode,
    /// Offer a message to 64 members, whose sockets take it at once
    Offer,
    /// Enter a channel, hold what comes, go live and leave
    Splice,
    /// Publish over HTTP, without a socket, where nobody listens
    Publish,
    /// Poll over HTTP, without a socket, for the last message
    Poll,
}

fn main() -> anyhow::Result<()> {
    let Arguments { step, times } = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match step {
            Step::Encode => encode(times),
            Step::Offer => offer(times).await,
            Step::Splice => splice(times),
            Step::Publish => publish(times).await,
            Step::Poll => poll(times).await,
        }
    })
}

fn encode(times: u64) -> anyhow::Result<()> {
    let mut messages = Messages::new()?;
    for _ in 0..times {
        let message = messages.next();
        let json = false;
        for encoding in [
            Encoding::WebSocket { raw: json },
            Encoding::Sse { raw: json },
            Encoding::Ndjson { raw: json },
            Encoding::Object,
        ] {
            black_box(message.bytes(encoding, Framing::Chunked));
        }
    }
    Ok(())
}

async fn offer(times: u64) -> anyhow::Result<()> {
    let fixture = Fixture::new()?;
    let mut messages = Messages::new()?;
    let mut crowd = Crowd::enter(&fixture, &messages, CROWD).await?;
    for _ in 0..times {
        let batch = Batch::new(vec![messages.next()]);
        crowd.topic.broadcast(&batch, &fixture.metrics);
        crowd.read()?;
    }
    anyhow::ensure!(crowd.is_served(), "a member has not got everything");
    Ok(())
}

fn splice(times: u64) -> anyhow::Result<()> {
    let fixture = Fixture::new()?;
    let mut messages = Messages::new()?;
    let channel = messages.channel().clone();
    for _ in 0..times {
        let (outbox, slot) = fixture.outbox();
        outbox.set_position(slot, messages.position());
        let (topic, key, _) = fixture.hub.enter(&channel, fixture.namespace(&channel), &outbox, slot);
        let held: Vec<Prepared> = (0..HELD).map(|_| messages.next()).collect();
        topic.broadcast(&Batch::new(held), &fixture.metrics);
        anyhow::ensure!(topic.go_live(key, &fixture.metrics) == Seam::Live && !outbox.is_empty());
        fixture.hub.leave(&topic, key, || ());
    }
    Ok(())
}

async fn publish(times: u64) -> anyhow::Result<()> {
    let fixture = Fixture::new()?;
    let edge = fixture.internal();
    for _ in 0..times {
        ask(&edge, a_message()?, StatusCode::ACCEPTED).await?;
    }
    Ok(())
}

async fn poll(times: u64) -> anyhow::Result<()> {
    let fixture = Fixture::new()?;
    ask(&fixture.internal(), a_message()?, StatusCode::ACCEPTED).await?;
    let edge = fixture.public();
    for _ in 0..times {
        let request = Request::get("/v1/subscribe?channel=bench-0&since=last:1&wait=55")
            .header(header::HOST, "127.0.0.1:8000")
            .header(header::ACCEPT, "application/json")
            .body(Body::empty())?;
        ask(&edge, request, StatusCode::OK).await?;
    }
    Ok(())
}

fn a_message() -> anyhow::Result<Request<Body>> {
    Ok(Request::post("/v1/channels/bench-0/messages")
        .header(header::HOST, "127.0.0.1:9000")
        .header(header::CONTENT_TYPE, "text/plain")
        .header(header::CONTENT_LENGTH, "100")
        .body(Body::from(Bytes::from_static(&[b'.'; 100])))?)
}

async fn ask(edge: &Edge, request: Request<Body>, expected: StatusCode) -> anyhow::Result<()> {
    let answer = edge.answer(request).await;
    anyhow::ensure!(answer.status() == expected, "answered {}", answer.status());
    Ok(())
}

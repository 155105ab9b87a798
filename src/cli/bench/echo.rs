//! Drives `tidegate-floor echo`, the measure for long polls: every connection asks, is answered at once, asks again.

use std::convert::Infallible;

use tokio::{net::TcpStream, sync::watch};

use super::{
    plan::Plan,
    poller,
    progress::Progress,
    requests,
    stamp::Stamp,
    subscribers::{Seat, Subscribers},
    tally::Tally,
};

/// Waits for the start, asks until the time is over, then only holds the connection.
pub async fn drive(
    seat: Seat,
    mut socket: TcpStream,
    mut start: watch::Receiver<u64>,
) -> Result<Infallible, String> {
    let (tally, plan) = (&seat.tally, &seat.plan);
    let mut subscription = seat.subscription();
    let mut answer = Vec::new();
    start.changed().await.map_err(|_| "the run is over".to_owned())?;
    let until = *start.borrow();
    for sequence in 0.. {
        let sent = tally.clock.now();
        if sent >= until {
            break;
        }
        let stamp = Stamp { channel: subscription.channel, sequence, sent };
        let request = requests::echo(plan, &stamp.payload(plan.size));
        tally.owe(1);
        let body = poller::exchange(&mut socket, &request, &mut answer).await?;
        tally.book(body, &mut subscription);
    }
    std::future::pending().await
}

/// Lets all connections ask for the plan's duration. Returns when it began.
pub async fn run(plan: &Plan, tally: &Tally, subscribers: &Subscribers) -> u64 {
    let began = tally.clock.now();
    subscribers.echo_until.send_replace(began + plan.duration.as_nanos() as u64);
    Progress::load(plan).hold(plan.duration).await;
    tally.wait(0).await;
    began
}

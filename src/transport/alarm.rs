//! One timer for all deadlines of a connection. They move with every request and hardly any is ever met, while
//! each move of a timer takes a lock that all connections share: so one that is too early is left to fire.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::time::{Instant, Sleep};

/// Ready once `deadline` is past.
pub fn poll_past(mut timer: Pin<&mut Sleep>, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
    loop {
        if deadline < timer.deadline() || timer.is_elapsed() {
            timer.as_mut().reset(deadline);
        }
        ready!(timer.as_mut().poll(cx));
        if deadline <= Instant::now() {
            return Poll::Ready(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::pin, time::Duration};

    use tokio::time::{advance, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_is_met_whatever_was_asked_of_the_timer_before() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut timer = pin!(sleep(Duration::from_secs(10)));
        let mut met = async |seconds| {
            poll_fn(|cx| poll_past(timer.as_mut(), after(seconds), cx)).await;
            start.elapsed().as_secs()
        };
        // Later than the timer, earlier than it, past already.
        assert_eq!(met(75).await, 75);
        assert_eq!(met(76).await, 76);
        assert_eq!(met(5).await, 76);
        assert_eq!(met(200).await, 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_comes_nearer_is_met() {
        let mut timer = pin!(sleep(Duration::from_secs(75)));
        let deadline = Instant::now() + Duration::from_secs(10);
        let is_past = async |timer: Pin<&mut Sleep>| {
            let mut timer = timer;
            poll_fn(|cx| Poll::Ready(poll_past(timer.as_mut(), deadline, cx).is_ready())).await
        };
        advance(Duration::from_secs(9)).await;
        assert!(!is_past(timer.as_mut()).await);
        advance(Duration::from_secs(1)).await;
        assert!(is_past(timer.as_mut()).await);
    }
}

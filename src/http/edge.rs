//! One listener's side of HTTP: what stands before every handler, whatever the path, and the way to the handler.
//!
//! What stands before is no layer of the router, and the busiest path of each listener goes past it: axum boxes and
//! clones for each request and layer, which together cost more than publishing does.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
};

use axum::{
    Router,
    extract::Request,
    response::{IntoResponse, Response},
};
use http::Method;
use tower::ServiceExt as _;

use super::{
    State, head,
    origin::{Page, Rules},
    publish, subscribe,
};
use crate::fault::{Code, Fault};

/// Paths for schedulers, load balancers and Prometheus, who come by whatever name.
const PROBES: [&str; 3] = ["/live", "/ready", "/metrics"];

/// Answers the requests of a listener. Clones share it.
#[derive(Clone, Debug)]
pub struct Edge(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: State,
    rules: Rules,
    busiest: Busiest,
    router: Router,
}

/// The path of a listener that nearly all of its requests are for.
#[derive(Clone, Copy, Debug)]
pub enum Busiest {
    /// `GET /v1/subscribe`
    Subscribe,
    /// `POST /v1/channels/{channel}/messages`
    Publish,
}

impl Busiest {
    fn is_asked(self, request: &Request) -> bool {
        let path = request.uri().path();
        match self {
            Self::Subscribe => request.method() == Method::GET && path == "/v1/subscribe",
            Self::Publish => {
                let channel =
                    path.strip_prefix("/v1/channels/").and_then(|rest| rest.strip_suffix("/messages"));
                request.method() == Method::POST && channel.is_some_and(|channel| !channel.contains('/'))
            }
        }
    }
}

impl Edge {
    /// The edge of a listener whose pages and hosts are those of `rules`, but for the probes.
    #[must_use]
    pub fn new(routes: Router<State>, busiest: Busiest, rules: Rules, state: State) -> Self {
        let router = routes.with_state(state.clone());
        Self(Arc::new(Inner { state, rules, busiest, router }))
    }

    /// Answers a request. In order: panics, the size of the head, host and origin, the handler.
    pub async fn answer(&self, request: Request) -> Response {
        let answer = pin!(async {
            let page = match self.admit(&request) {
                Ok(page) => page,
                Err(fault) => return fault.into_response(),
            };
            let mut response = self.handle(request).await;
            if let Some(page) = page {
                page.tell(response.headers_mut());
            }
            response
        });
        catch_panics(answer).await
    }

    fn admit(&self, request: &Request) -> Result<Option<Page>, Fault> {
        let Inner { state, rules, .. } = &*self.0;
        head::check_size(request, state.config.limits.headers)?;
        if PROBES.contains(&request.uri().path()) { Ok(None) } else { rules.admit(request) }
    }

    /// Each way is boxed by itself, or everything around it has room for all that any handler may need.
    async fn handle(&self, request: Request) -> Response {
        let Inner { state, busiest, router, .. } = &*self.0;
        if !busiest.is_asked(&request) {
            return match Box::pin(router.clone().oneshot(request)).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
        }
        match busiest {
            Busiest::Subscribe => Box::pin(subscribe::handle(state, request)).await.into_response(),
            Busiest::Publish => Box::pin(publish::message(state, request)).await,
        }
    }
}

/// A handler that panics costs its own request, not the connection. The panic hook has logged it.
async fn catch_panics(mut answer: Pin<&mut impl Future<Output = Response>>) -> Response {
    poll_fn(|context| {
        // After a panic the future is not polled again, so nobody sees what it left half done.
        catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(context))).unwrap_or_else(|_| {
            let detail = "the request met a fault in the server; it is in the server's log";
            Poll::Ready(Fault::new(Code::Internal, detail).into_response())
        })
    })
    .await
}

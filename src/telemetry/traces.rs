//! Traces: a `publish` span for each message that is traced, and on each node one `fan-out` span linked to it, never
//! a span for each client. Without `tracing.otlp_endpoint` no span is made, and a caller's trace parent is passed on
//! as it came.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use opentelemetry::{
    Context, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{
        Link, Span as _, SpanContext, SpanKind, Status, TraceContextExt as _, TraceState, Tracer as _,
        TracerProvider as _,
    },
};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    resource::EnvResourceDetector,
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, Sampler, SamplingResult, SdkTracer, SdkTracerProvider,
        ShouldSample, Span,
    },
};

use super::otlp::Poster;
use crate::{channel::Channel, config::Tracing, position::Position, trace_parent::TraceParent};

/// How long a span may wait for others to be sent with it.
const DELAY: Duration = Duration::from_secs(1);

/// How long the last spans may take to leave at the end of the process.
const FAREWELL: Duration = Duration::from_secs(2);

/// Makes the spans; clones share it. The default makes none.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// Why traces cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum TracingError {
    /// The exporter does not take the endpoint.
    #[error("tracing.otlp_endpoint: {0}")]
    Endpoint(#[from] ExporterBuildError),
    /// TLS has nothing to stand on.
    #[error("tracing.otlp_endpoint: {0}")]
    Tls(String),
}

/// The publishing of one message.
#[derive(Debug)]
pub struct Publishing {
    span: Option<Span>,
    carried: Option<TraceParent>,
}

/// The way of some messages of a channel to this node's subscribers.
#[derive(Debug)]
pub struct FanOut(Span);

/// What is told of a fan-out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// Who listened.
    pub subscribers: usize,
    /// How many messages there were.
    pub messages: usize,
    /// Payloads and events, counted once.
    pub bytes: usize,
    /// From the stamp of the oldest message to the last offer, in milliseconds.
    pub max_lag_ms: u64,
}

impl Tracer {
    /// Sends spans as configured, on the runtime that this is called in.
    ///
    /// # Errors
    /// An endpoint that the exporter does not take.
    pub fn new(tracing: &Tracing) -> Result<Self, TracingError> {
        let Some(endpoint) = &tracing.otlp_endpoint else {
            return Ok(Self::default());
        };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Poster::new(endpoint).map_err(TracingError::Tls)?)
            .with_endpoint(endpoint.to_string())
            .build()?;
        let batches = BatchConfigBuilder::default().with_scheduled_delay(DELAY).build();
        let resource = Resource::builder_empty()
            .with_service_name("tidegate")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_detector(Box::new(EnvResourceDetector::new()))
            .build();
        let roots = Roots(Sampler::TraceIdRatioBased(tracing.sample_ratio));
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build())
            .with_sampler(Sampler::ParentBased(Box::new(roots)))
            .with_resource(resource)
            .build();
        let tracer = provider.tracer("tidegate");
        Ok(Self(Some(Arc::new(Inner { provider, tracer }))))
    }

    /// Begins the span of a message, in the caller's trace where there is one.
    #[must_use]
    pub fn publish(&self, channel: &Channel, bytes: usize, parent: Option<TraceParent>) -> Publishing {
        let Some(inner) = &self.0 else {
            return Publishing { span: None, carried: parent.filter(|parent| parent.sampled) };
        };
        let around = parent.map(|parent| Context::new().with_remote_span_context(context(parent)));
        let mut attributes = about(channel, "publish", "send");
        attributes.push(KeyValue::new("messaging.message.body.size", count(bytes)));
        let span = inner
            .tracer
            .span_builder("publish")
            .with_kind(SpanKind::Producer)
            .with_attributes(attributes)
            .start_with_context(&inner.tracer, &around.unwrap_or_default());
        let carried = span.span_context().is_sampled().then(|| told(span.span_context()));
        Publishing { span: Some(span), carried }
    }

    /// Begins the span of messages that leave together; `None` where nobody traces any of them.
    #[must_use]
    pub fn fan_out(&self, channel: &Channel, messages: impl Iterator<Item = TraceParent>) -> Option<FanOut> {
        let inner = self.0.as_ref()?;
        let links: Vec<_> = messages.map(|message| Link::with_context(context(message))).collect();
        if links.is_empty() {
            return None;
        }
        let span = inner
            .tracer
            .span_builder("fan-out")
            .with_kind(SpanKind::Consumer)
            .with_attributes(about(channel, "fan-out", "process"))
            .with_links(links)
            .start_with_context(&inner.tracer, &Context::new());
        Some(FanOut(span))
    }

    /// Sends what is left. No span is made any more.
    pub async fn finish(&self) {
        let Some(inner) = self.0.clone() else {
            return;
        };
        // It blocks on the exporter's thread, which waits for this runtime.
        let farewell = tokio::task::spawn_blocking(move || inner.provider.shutdown_with_timeout(FAREWELL));
        if !matches!(farewell.await, Ok(Ok(()))) {
            tracing::warn!("the last spans could not be sent");
        }
    }
}

impl Publishing {
    /// What the message bears, so that the nodes that deliver it know of the trace.
    #[must_use]
    pub fn carried(&self) -> Option<TraceParent> {
        self.carried
    }

    /// The message is stored, or not.
    pub fn end<E: std::fmt::Display>(self, outcome: Result<Position, &E>) {
        let Some(mut span) = self.span else {
            return;
        };
        match outcome {
            Ok(position) => span.set_attribute(KeyValue::new("messaging.message.id", position.to_string())),
            Err(error) => span.set_status(Status::error(error.to_string())),
        }
        span.end();
    }
}

impl FanOut {
    /// Everybody was offered the messages.
    pub fn end(mut self, reached: Reached) {
        let Reached { subscribers, messages, bytes, max_lag_ms } = reached;
        self.0.set_attributes([
            KeyValue::new("messaging.batch.message_count", count(messages)),
            KeyValue::new("tidegate.subscribers", count(subscribers)),
            KeyValue::new("tidegate.bytes", count(bytes)),
            KeyValue::new("tidegate.max_lag_ms", i64::try_from(max_lag_ms).unwrap_or(i64::MAX)),
        ]);
        self.0.end_with_timestamp(SystemTime::now());
    }
}

/// Decides where no caller has: a fan-out is as its messages, a publish by chance.
#[derive(Clone, Debug)]
struct Roots(Sampler);

impl ShouldSample for Roots {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let sampler = if links.is_empty() { &self.0 } else { &Sampler::AlwaysOn };
        sampler.should_sample(parent, trace, name, kind, attributes, links)
    }
}

/// The conventions for messaging systems.
fn about(channel: &Channel, name: &'static str, kind: &'static str) -> Vec<KeyValue> {
    vec![
        KeyValue::new("messaging.system", "tidegate"),
        KeyValue::new("messaging.operation.name", name),
        KeyValue::new("messaging.operation.type", kind),
        KeyValue::new("messaging.destination.name", channel.as_str().to_owned()),
    ]
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn context(parent: TraceParent) -> SpanContext {
    let flags = if parent.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    let (trace, span) = (TraceId::from_bytes(parent.trace), SpanId::from_bytes(parent.span));
    SpanContext::new(trace, span, flags, true, TraceState::NONE)
}

fn told(context: &SpanContext) -> TraceParent {
    TraceParent {
        trace: context.trace_id().to_bytes(),
        span: context.span_id().to_bytes(),
        sampled: context.is_sampled(),
    }
}

//! Metrics by closed sets of labels: every child is made at the start and found by its index.

use std::{
    collections::HashMap,
    marker::PhantomData,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use prometheus::{
    Counter, Histogram, HistogramOpts, IntCounter, IntGauge, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

/// Upper bounds in seconds: half a millisecond to ten seconds, 12 of them.
const SECONDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

/// Upper bounds of counts: from one to a hundred thousand.
const COUNTS: [f64; 9] = [0.0, 1.0, 3.0, 10.0, 100.0, 1000.0, 10_000.0, 30_000.0, 100_000.0];

/// A closed set of label values.
pub(super) trait Label: Copy + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// Every value, each at its index.
    const ALL: &'static [Self];

    fn text(self) -> &'static str;
    fn index(self) -> usize;

    /// For the document; empty where the words are explained elsewhere.
    #[cfg(test)]
    fn meaning(self) -> &'static str;
}

/// A label with its values, each with what it means.
#[cfg(test)]
#[derive(Debug)]
pub(super) struct Words {
    pub(super) label: &'static str,
    pub(super) values: Vec<(&'static str, &'static str)>,
}

#[cfg(test)]
impl Words {
    pub(super) fn of<L: Label>() -> Self {
        Self { label: L::NAME, values: L::ALL.iter().map(|value| (value.text(), value.meaning())).collect() }
    }
}

/// What can be registered under a name.
pub(super) trait Metric: Sized {
    fn register(options: Opts, registry: &Registry) -> prometheus::Result<Self>;
}

/// A metric for each value of a label.
#[derive(Debug)]
pub(super) struct By<L, M> {
    children: Box<[M]>,
    label: PhantomData<fn(L)>,
}

/// A histogram of durations.
#[derive(Debug)]
pub(super) struct Seconds(Histogram);

/// A histogram of counts.
#[derive(Debug)]
pub(super) struct Counts(Histogram);

/// Seconds since something happened, as of the scrape; 0 where it never did.
#[derive(Clone, Debug)]
pub(super) struct Age {
    gauge: IntGauge,
    since: Arc<Mutex<Option<Instant>>>,
}

/// Makes an enum that lives elsewhere a label.
macro_rules! label_of {
    ($set:ty, $name:literal, $text:expr) => {
        impl Label for $set {
            const NAME: &'static str = $name;
            const ALL: &'static [Self] = <$set>::ALL;

            fn text(self) -> &'static str {
                $text(self)
            }

            fn index(self) -> usize {
                self as usize
            }

            #[cfg(test)]
            fn meaning(self) -> &'static str {
                ""
            }
        }
    };
}
pub(super) use label_of;

/// Defines enums that are labels: the label's name, then each variant with its value.
macro_rules! labels {
    ($($(#[$doc:meta])* $set:ident $name:literal { $($(#[doc = $meaning:literal])+ $variant:ident $text:literal,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub enum $set { $($(#[doc = $meaning])+ $variant,)* }

            impl Label for $set {
                const NAME: &'static str = $name;
                const ALL: &'static [Self] = &[$($set::$variant,)*];

                fn text(self) -> &'static str {
                    match self { $($set::$variant => $text,)* }
                }

                fn index(self) -> usize {
                    self as usize
                }

                #[cfg(test)]
                fn meaning(self) -> &'static str {
                    match self { $($set::$variant => concat!($($meaning),+).trim(),)* }
                }
            }
        )*

        /// Each set, for the document.
        #[cfg(test)]
        pub(super) fn sets() -> Vec<Words> {
            vec![$(Words::of::<$set>(),)*]
        }
    };
}
pub(super) use labels;

/// A metric's name and help; the help as a doc comment has it, with its spaces.
pub(super) fn options(name: &str, help: &str) -> Opts {
    Opts::new(name, help.trim())
}

/// Labels as the library wants them.
pub(super) fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> HashMap<String, String> {
    pairs.into_iter().map(|(name, text)| (name.into(), text.into())).collect()
}

impl<L: Label, M> By<L, M> {
    /// The metric for a value of the label.
    pub(super) fn of(&self, label: L) -> &M {
        &self.children[label.index()]
    }
}

impl Seconds {
    pub(super) fn observe(&self, took: Duration) {
        self.0.observe(took.as_secs_f64());
    }
}

impl Age {
    /// It happened now.
    pub(super) fn renew(&self) {
        *self.since.lock() = Some(Instant::now());
    }
}

impl Collector for Age {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let age = self.since.lock().map_or(0, |since| since.elapsed().as_secs());
        self.gauge.set(i64::try_from(age).unwrap_or(i64::MAX));
        self.gauge.collect()
    }
}

impl Counts {
    pub(super) fn observe(&self, count: usize) {
        self.0.observe(count as f64);
    }
}

impl<L: Label, M: Metric> Metric for By<L, M> {
    /// Registers a metric for each value under the same name: the registry gathers them as one family.
    fn register(options: Opts, registry: &Registry) -> prometheus::Result<Self> {
        let child = |label: &L| M::register(options.clone().const_label(L::NAME, label.text()), registry);
        Ok(Self {
            children: L::ALL.iter().map(child).collect::<prometheus::Result<_>>()?,
            label: PhantomData,
        })
    }
}

impl Metric for IntCounter {
    fn register(options: Opts, registry: &Registry) -> prometheus::Result<Self> {
        let counter = Self::with_opts(options)?;
        registry.register(Box::new(counter.clone()))?;
        Ok(counter)
    }
}

impl Metric for Counter {
    fn register(options: Opts, registry: &Registry) -> prometheus::Result<Self> {
        let counter = Self::with_opts(options)?;
        registry.register(Box::new(counter.clone()))?;
        Ok(counter)
    }
}

impl Metric for IntGauge {
    fn register(options: Opts, registry: &Registry) -> prometheus::Result<Self> {
        let gauge = Self::with_opts(options)?;
        registry.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    }
}

impl Metric for Age {
    fn register(options: Opts, registry: &Registry) -> prometheus::Result<Self> {
        let age = Self { gauge: IntGauge::with_opts(options)?, since: Arc::default() };
        registry.register(Box::new(age.clone()))?;
        Ok(age)
    }
}

impl Metric for Seconds {
    fn register(options: Opts, registry: &Registry) -> prometheus::Result<Self> {
        histogram(options, &SECONDS, registry).map(Self)
    }
}

impl Metric for Counts {
    fn register(options: Opts, registry: &Registry) -> prometheus::Result<Self> {
        histogram(options, &COUNTS, registry).map(Self)
    }
}

fn histogram(options: Opts, buckets: &[f64], registry: &Registry) -> prometheus::Result<Histogram> {
    let options = HistogramOpts::from(options).buckets(buckets.into());
    let histogram = Histogram::with_opts(options)?;
    registry.register(Box::new(histogram.clone()))?;
    Ok(histogram)
}

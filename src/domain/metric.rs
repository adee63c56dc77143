//! Numbers that modules keep about themselves: counters, gauges, histograms of durations, and how they are read.
//!
//! Each module owns a plain struct of these and implements [`Source`]; `ops` renders what it is given. Labels must be
//! bounded: verdict, reason, stage, outcome. Never a subject, a path or an address.

use std::{
    borrow::Cow,
    cell::Cell,
    fmt,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

/// Threads write to different cache lines, as far as these go.
const STRIPES: usize = 4;

/// A number that only grows. Adding is a few nanoseconds, also when several threads do it.
#[derive(Default)]
pub struct Counter([Line<AtomicU64>; STRIPES]);

#[derive(Default)]
#[repr(align(64))]
struct Line<T>(T);

impl Counter {
    pub fn increment(&self) {
        self.add(1);
    }

    pub fn add(&self, amount: u64) {
        self.0[stripe()].0.fetch_add(amount, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.iter().map(|line| line.0.load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    }
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.get(), f)
    }
}

/// A number that goes up and down. Starts at 0.
#[derive(Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

impl fmt::Debug for Gauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.get(), f)
    }
}

/// Upper bounds of a [`Histogram`]'s buckets in nanoseconds: 1, 2, 5 of each decade from 1 µs to 5 s.
const BOUNDS: [u64; 21] = [
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
];

/// How long something took, in buckets. No lock: two atomic additions on the thread's own cache lines.
#[derive(Default)]
pub struct Histogram([Line<Buckets>; STRIPES]);

#[derive(Default)]
struct Buckets {
    counts: [AtomicU64; BOUNDS.len() + 1],
    /// Nanoseconds.
    sum: AtomicU64,
}

impl Histogram {
    pub fn observe(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < nanos);
        let line = &self.0[stripe()].0;
        line.counts[bucket].fetch_add(1, Ordering::Relaxed);
        line.sum.fetch_add(nanos, Ordering::Relaxed);
    }

    pub fn read(&self) -> Distribution {
        let mut buckets: Vec<(f64, u64)> =
            BOUNDS.iter().map(|nanos| (*nanos as f64 / 1e9, 0)).chain([(f64::INFINITY, 0)]).collect();
        let mut sum = 0_u64;
        for line in &self.0 {
            for (bucket, count) in buckets.iter_mut().zip(&line.0.counts) {
                bucket.1 += count.load(Ordering::Relaxed);
            }
            sum = sum.wrapping_add(line.0.sum.load(Ordering::Relaxed));
        }
        Distribution { sum: sum as f64 / 1e9, count: buckets.iter().map(|(_, count)| count).sum(), buckets }
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read = self.read();
        write!(f, "{} in {} s", read.count, read.sum)
    }
}

/// What a [`Histogram`] held when it was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    /// Seconds.
    pub sum: f64,
    pub count: u64,
    /// Upper bound in seconds (`f64::INFINITY`: no bound) and how many fell into this bucket alone.
    pub buckets: Vec<(f64, u64)>,
}

/// Which stripe this thread writes to: threads are dealt out in turn when they first count something.
fn stripe() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static MINE: Cell<usize> = const { Cell::new(usize::MAX) });
    MINE.with(|mine| {
        if mine.get() == usize::MAX {
            mine.set(NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES);
        }
        mine.get() % STRIPES
    })
}

/// Something that can tell its numbers.
pub trait Source: Send + Sync + fmt::Debug {
    /// Adds its numbers to `page`. Called on each scrape; must not block.
    fn collect(&self, page: &mut Page);
}

/// One scrape: families of samples by name.
#[derive(Debug, Default)]
pub struct Page {
    families: Vec<Family>,
}

/// All samples of one name. The name carries no `_total`; it is added where a format wants it.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    pub name: &'static str,
    pub help: &'static str,
    pub samples: Vec<Sample>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub labels: Vec<(&'static str, Cow<'static, str>)>,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Counter(u64),
    Gauge(f64),
    Histogram(Distribution),
}

/// Labels of one sample. Values come from closed sets: an enum's word, the id of a rule or an issuer of the configuration.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

impl Page {
    pub fn counter(&mut self, name: &'static str, help: &'static str, labels: Labels<'_>, counter: &Counter) {
        self.add(name, help, labels, Value::Counter(counter.get()));
    }

    pub fn gauge(&mut self, name: &'static str, help: &'static str, labels: Labels<'_>, value: f64) {
        self.add(name, help, labels, Value::Gauge(value));
    }

    pub fn histogram(&mut self, name: &'static str, help: &'static str, labels: Labels<'_>, histogram: &Histogram) {
        self.add(name, help, labels, Value::Histogram(histogram.read()));
    }

    pub fn add(&mut self, name: &'static str, help: &'static str, labels: Labels<'_>, value: Value) {
        let labels = labels.iter().map(|(name, value)| (*name, Cow::Owned((*value).to_owned()))).collect();
        let sample = Sample { labels, value };
        match self.families.iter_mut().find(|family| family.name == name) {
            Some(family) => family.samples.push(sample),
            None => self.families.push(Family { name, help, samples: vec![sample] }),
        }
    }

    pub fn families(&self) -> &[Family] {
        &self.families
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_all_threads_are_added_up() {
        let counter = Counter::default();
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| (0..1000).for_each(|_| counter.increment()));
            }
        });
        assert_eq!(counter.get(), 6000);
    }

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        let histogram = Histogram::default();
        for took in [Duration::from_micros(1), Duration::from_nanos(1001), Duration::from_secs(60)] {
            histogram.observe(took);
        }
        let read = histogram.read();
        assert_eq!(read.count, 3);
        assert_eq!(read.buckets[0], (1e-6, 1));
        assert_eq!(read.buckets[1], (2e-6, 1));
        assert_eq!(read.buckets.last(), Some(&(f64::INFINITY, 1)));
        assert!((read.sum - 60.000_002_001).abs() < 1e-9);
    }

    #[test]
    fn samples_of_one_name_are_one_family() {
        let mut page = Page::default();
        page.counter("refusals", "By reason", &[("reason", "a")], &Counter::default());
        page.gauge("age", "Seconds", &[], 1.5);
        page.counter("refusals", "By reason", &[("reason", "b")], &Counter::default());
        let names: Vec<_> = page.families().iter().map(|family| (family.name, family.samples.len())).collect();
        assert_eq!(names, [("refusals", 2), ("age", 1)]);
    }
}

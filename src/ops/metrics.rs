//! One scrape in OpenMetrics text. Numbers come from the modules that own them; nothing is kept here.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};

use crate::domain::metric::{Family, Page, Sample, Source, Value};

pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All sources as one collector. The registry that holds it is a value, made once.
#[derive(Debug)]
pub(super) struct Metrics(Registry);

#[derive(Debug)]
struct All(Vec<Arc<dyn Source>>);

impl Metrics {
    pub(super) fn new(sources: Vec<Arc<dyn Source>>) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(All(sources)));
        Self(registry)
    }

    /// # Errors
    ///
    /// Where a number cannot be written as text: never with ours.
    pub(super) fn render(&self) -> Result<String, fmt::Error> {
        let mut out = String::with_capacity(16 * 1024);
        text::encode(&mut out, &self.0)?;
        Ok(out)
    }
}

impl Collector for All {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page::default();
        self.0.iter().for_each(|source| source.collect(&mut page));
        page.families().iter().try_for_each(|family| encode_family(family, &mut encoder))
    }
}

fn encode_family(family: &Family, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let kind = match family.samples.first().map(|sample| &sample.value) {
        Some(Value::Counter(_)) => MetricType::Counter,
        Some(Value::Gauge(_)) => MetricType::Gauge,
        Some(Value::Histogram(_)) => MetricType::Histogram,
        None => return Ok(()),
    };
    let mut encoder = encoder.encode_descriptor(family.name, family.help, None, kind)?;
    family.samples.iter().try_for_each(|sample| encode_sample(sample, &mut encoder))
}

fn encode_sample(sample: &Sample, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
    if sample.labels.is_empty() {
        return encode_value(&sample.value, encoder);
    }
    let labels: Vec<(&str, &str)> = sample.labels.iter().map(|(name, value)| (*name, &**value)).collect();
    encode_value(&sample.value, &mut encoder.encode_family(&labels)?)
}

fn encode_value(value: &Value, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
    match value {
        Value::Counter(count) => encoder.encode_counter::<NoLabelSet, u64, f64>(count, None),
        Value::Gauge(value) => encoder.encode_gauge(value),
        Value::Histogram(read) => encoder.encode_histogram::<NoLabelSet>(read.sum, read.count, &read.buckets, None),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::metric::{Counter, Histogram};

    #[derive(Debug)]
    struct Some3;

    impl Source for Some3 {
        fn collect(&self, page: &mut Page) {
            let refused = Counter::default();
            refused.add(7);
            page.counter("countersign_decisions", "Decisions", &[("verdict", "deny"), ("rule", "a\"b\\c\n")], &refused);
            page.gauge("countersign_age_seconds", "Age", &[], 1.5);
            let took = Histogram::default();
            took.observe(Duration::from_micros(3));
            took.observe(Duration::from_secs(100));
            page.histogram("countersign_stage_seconds", "Stages", &[("stage", "decide")], &took);
        }
    }

    #[test]
    fn a_scrape_is_open_metrics_text() {
        let text = Metrics::new(vec![Arc::new(Some3)]).render().unwrap();
        for line in [
            "# TYPE countersign_decisions counter",
            "countersign_decisions_total{verdict=\"deny\",rule=\"a\\\"b\\\\c\\n\"} 7",
            "countersign_age_seconds 1.5",
            "countersign_stage_seconds_count{stage=\"decide\"} 2",
            "countersign_stage_seconds_bucket{le=\"0.000005\",stage=\"decide\"} 1",
            "countersign_stage_seconds_bucket{le=\"+Inf\",stage=\"decide\"} 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}

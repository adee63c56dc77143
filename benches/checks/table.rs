//! Rounds in, ratios out. Each ratio is taken within a round, between measurements a second or two apart; then the
//! median of the rounds, with the lowest and the highest, since on a shared machine only such ratios mean anything.

use std::fmt::Write as _;

/// One contestant under one kind of load in one round.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub per_second: f64,
    /// Microseconds.
    pub p50: f64,
    pub p99: f64,
    /// CPU seconds for 100,000 checks.
    pub cpu: f64,
    /// MiB, at the end of the round.
    pub memory: f64,
}

/// All rounds of one kind of load: for each contestant its name and a sample a round. The first is the floor.
pub struct Table {
    pub title: String,
    pub rows: Vec<(&'static str, Vec<Sample>)>,
}

type Column = (&'static str, fn(&Sample) -> f64, usize);

const COLUMNS: [Column; 5] = [
    ("checks/s", |sample| sample.per_second, 0),
    ("p50 µs", |sample| sample.p50, 0),
    ("p99 µs", |sample| sample.p99, 0),
    ("CPU s/100k", |sample| sample.cpu, 2),
    ("RSS MiB", |sample| sample.memory, 0),
];

impl Table {
    pub fn new(title: impl Into<String>, names: impl IntoIterator<Item = &'static str>) -> Self {
        Self { title: title.into(), rows: names.into_iter().map(|name| (name, Vec::new())).collect() }
    }

    pub fn add(&mut self, row: usize, sample: Sample) {
        self.rows[row].1.push(sample);
    }

    /// Of the contestant of this name, one a round.
    pub fn samples(&self, name: &str) -> &[Sample] {
        self.rows.iter().find(|row| row.0 == name).map_or(&[], |row| &row.1)
    }

    /// As Markdown: medians, and the ratios to the first row with their spread.
    pub fn markdown(&self) -> String {
        let mut text = format!("### {}\n\n| server |", self.title);
        for (name, ..) in COLUMNS {
            let _ = write!(text, " {name} |");
        }
        text.push_str(" CPU to floor | checks/s | p50 | p99 |\n|---|");
        text.push_str(&"---:|".repeat(COLUMNS.len() + 4));
        text.push('\n');
        for (name, samples) in &self.rows {
            let _ = write!(text, "| {name} |");
            for (_, value, digits) in COLUMNS {
                let _ = write!(text, " {:.digits$} |", median(samples.iter().map(value).collect()));
            }
            for ratio in
                [COLUMNS[3].1, COLUMNS[0].1, COLUMNS[1].1, COLUMNS[2].1].map(|value| self.ratios(samples, value))
            {
                let (low, high) = (ratio.first().copied(), ratio.last().copied());
                let (low, high) = (low.unwrap_or(f64::NAN), high.unwrap_or(f64::NAN));
                let _ = write!(text, " **{:.2}** ({low:.2}–{high:.2}) |", median(ratio));
            }
            text.push('\n');
        }
        text
    }

    /// Of each round to the floor's in the same round, in ascending order.
    fn ratios(&self, samples: &[Sample], value: fn(&Sample) -> f64) -> Vec<f64> {
        let floor = &self.rows[0].1;
        let mut ratios: Vec<f64> = samples.iter().zip(floor).map(|(ours, floor)| value(ours) / value(floor)).collect();
        ratios.sort_by(f64::total_cmp);
        ratios
    }
}

/// The middle one; NaN of nothing.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

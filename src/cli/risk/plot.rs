//! The picture of a run: three panels of bars as one SVG, readable without any tool but a browser.

use std::fmt::Write as _;

use super::report::{Report, WIDTH};

const SIZE: (f64, f64) = (960.0, 780.0);
const LEFT: f64 = 60.0;
const RIGHT: f64 = 20.0;
const PANEL: f64 = 180.0;

/// One bar: its label, its height, and whether it is over a line.
struct Bar {
    label: String,
    value: f64,
    over: bool,
}

/// Draws a run.
pub(super) fn svg(report: &Report) -> String {
    let mut out = String::new();
    let (width, height) = SIZE;
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\"><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>"
    );
    panel(&mut out, 40.0, "Requests per score, in nats (logarithmic; dark: over the step-up line)", &scores(report));
    panel(&mut out, 290.0, "Challenged sessions per 100 users, by day", &days(report));
    panel(&mut out, 540.0, "First reason of challenged and refused requests", &reasons(report));
    out.push_str("</svg>\n");
    out
}

fn scores(report: &Report) -> Vec<Bar> {
    let step = report.lines.map_or(f64::INFINITY, |lines| lines.step);
    let bar = |(bucket, count): (&i64, &u64)| {
        let edge = *bucket as f64 * WIDTH;
        Bar { label: format!("{edge:.0}"), value: (*count as f64).ln_1p(), over: edge >= step }
    };
    report.histogram.iter().map(bar).collect()
}

fn days(report: &Report) -> Vec<Bar> {
    let share = |(day, of): (usize, &super::report::Day)| Bar {
        label: format!("{}", day + 1),
        value: 100.0 * of.challenged() as f64 / of.users().max(1) as f64,
        over: false,
    };
    report.days.values().enumerate().map(share).collect()
}

fn reasons(report: &Report) -> Vec<Bar> {
    let bar = |code: &'static str| {
        let count = report.reasons.get(code).copied().unwrap_or(0);
        Bar { label: code.to_lowercase().replace('_', " "), value: count as f64, over: true }
    };
    super::report::codes().map(bar).filter(|bar| bar.value > 0.0).collect()
}

fn panel(out: &mut String, top: f64, title: &str, bars: &[Bar]) {
    let bottom = top + PANEL;
    let _ = write!(out, "<text x=\"{LEFT}\" y=\"{}\" font-size=\"14\">{title}</text>", top - 12.0);
    let highest = bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
    let step = (SIZE.0 - LEFT - RIGHT) / bars.len().max(1) as f64;
    for (index, bar) in bars.iter().enumerate() {
        let (x, tall) = (LEFT + step * index as f64, PANEL * bar.value / highest);
        let colour = if bar.over { "#8a2b2b" } else { "#4a7fb5" };
        let _ = write!(
            out,
            "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{tall:.1}\" fill=\"{colour}\"/>",
            bottom - tall,
            (step * 0.85).max(0.5)
        );
        label(out, x + step * 0.4, bottom + 12.0, bar, step);
    }
    let _ = write!(out, "<text x=\"4\" y=\"{top:.1}\">{highest:.1}</text><text x=\"4\" y=\"{bottom:.1}\">0</text>");
    let _ =
        write!(out, "<line x1=\"{LEFT}\" y1=\"{bottom}\" x2=\"{}\" y2=\"{bottom}\" stroke=\"#333\"/>", SIZE.0 - RIGHT);
}

/// Long labels stand at an angle.
fn label(out: &mut String, x: f64, y: f64, bar: &Bar, step: f64) {
    let slanted = bar.label.len() as f64 * 5.0 > step;
    let turn = if slanted { format!(" transform=\"rotate(35 {x:.1} {y:.1})\"") } else { String::new() };
    let anchor = if slanted { "start" } else { "middle" };
    let _ = write!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\"{turn}>{}</text>", bar.label);
}

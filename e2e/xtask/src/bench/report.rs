//! The report: one object a turn as JSON, medians as a table.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::load::Case;
use super::subjects::Subject;

/// One turn of one subject.
#[derive(Clone, Debug, Serialize)]
pub struct Turn {
    pub case: Case,
    pub subject: Subject,
    pub round: u32,
    pub requests_per_second: f64,
    pub cpu_us_per_request: f64,
    pub p50_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub rss_bytes: u64,
    pub errors: u64,
}

/// Writes `value` as JSON below `directory`, which is made.
pub fn write(directory: &Path, name: &str, value: &impl Serialize) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    let path = directory.join(name);
    std::fs::write(&path, serde_json::to_vec_pretty(value)?).with_context(|| format!("write {}", path.display()))?;
    println!("wrote {}", path.display());
    Ok(())
}

/// The middle of the values; 0 for none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    let upper = values.get(half).copied().unwrap_or_default();
    if values.len() % 2 == 1 {
        upper
    } else {
        f64::midpoint(upper, values.get(half.saturating_sub(1)).copied().unwrap_or_default())
    }
}

/// A count as a number to calculate with.
#[expect(clippy::cast_precision_loss, reason = "counts of one run are far below 2^53")]
pub fn float(count: u64) -> f64 {
    count as f64
}

/// Medians over the rounds of one subject in one case.
struct Row {
    rate: f64,
    cpu: f64,
    p50: f64,
    p99: f64,
    p999: f64,
    rss: f64,
    errors: u64,
}

fn row(turns: &[&Turn]) -> Row {
    let over = |value: fn(&Turn) -> f64| median(turns.iter().map(|turn| value(turn)).collect());
    Row {
        rate: over(|turn| turn.requests_per_second),
        cpu: over(|turn| turn.cpu_us_per_request),
        p50: over(|turn| float(turn.p50_us)),
        p99: over(|turn| float(turn.p99_us)),
        p999: over(|turn| float(turn.p999_us)),
        rss: over(|turn| float(turn.rss_bytes)),
        errors: turns.iter().map(|turn| turn.errors).sum(),
    }
}

/// Prints the medians of every subject, and how many times the subject's requests a second the gateway serves.
pub fn print(case: Case, subjects: &[Subject], turns: &[Turn]) {
    println!("\n{} ({}), medians:", case.name(), case.client());
    println!(
        "| subject | req/s | CPU µs/req | p50 ms | p99 ms | p99.9 ms | RSS MB | errors | nebula's req/s to it | nebula's CPU to it |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let of = |subject: Subject| -> Vec<&Turn> {
        turns.iter().filter(|turn| turn.case == case && turn.subject == subject).collect()
    };
    let nebula = row(&of(Subject::Nebula));
    for subject in subjects {
        let row = row(&of(*subject));
        println!(
            "| {} | {:.0} | {:.1} | {:.2} | {:.2} | {:.2} | {:.1} | {} | {} | {} |",
            subject.name(),
            row.rate,
            row.cpu,
            row.p50 / 1000.0,
            row.p99 / 1000.0,
            row.p999 / 1000.0,
            row.rss / 1_000_000.0,
            row.errors,
            ratio(nebula.rate, row.rate),
            ratio(nebula.cpu, row.cpu),
        );
    }
}

/// As many times `other`; a dash where the gateway was not measured.
fn ratio(nebula: f64, other: f64) -> String {
    if nebula > 0.0 { format!("{:.2}", nebula / other) } else { "–".to_owned() }
}

/// Prints how far two turns of the same program in the same round are apart: what a difference must exceed to be one.
pub fn print_noise(first: &[Turn], second: &[Turn]) {
    let mut apart = Vec::new();
    for turn in second {
        let same =
            |other: &&Turn| other.case == turn.case && other.round == turn.round && other.subject == turn.subject;
        if let Some(other) = first.iter().find(same) {
            apart.push((turn.requests_per_second / other.requests_per_second - 1.0).abs() * 100.0);
        }
    }
    let worst = apart.iter().copied().fold(0.0, f64::max);
    println!("\nnoise: nebula against itself in the same round: median {:.1} %, worst {worst:.1} %", median(apart));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        assert!((median(vec![4.0, 1.0, 3.0, 2.0]) - 2.5).abs() < f64::EPSILON);
        assert!((median(vec![9.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
    }
}

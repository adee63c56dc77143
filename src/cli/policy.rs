//! `countersign policy test`: runs the cases that lie beside the rules.

use std::{io::stderr, path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand, ValueEnum};

use super::{EXIT_USAGE, check_config::print, environment, is_coloured};
use crate::{
    config::{self, reload},
    decision::cases,
    document::Diagnostic,
    domain::RiskModel,
    policy::{self, Options},
};

/// Work on rules without a server.
#[derive(Debug, Args)]
pub(super) struct Policy {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Test(Test),
}

/// Run the cases beside the rules: facts in, verdict and reason out.
///
/// Files with a `cases:` list are cases, all others are rules; `docs/policy-tests.md` has every word of them:
///
///   cases:
///     - name: a clerk reads an order
///       request: { path: /orders/7 }
///       caller: { subject: ada, roles: [clerk] }
///       expect: { verdict: allow }
///
/// The risk model is the fixed table unless said otherwise; a server's default is `statistical`.
///
/// Exits 0 when every case came out as written, 1 when not, 64 when rules or cases cannot be read.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
struct Test {
    /// Files and folders with rules and cases.
    #[arg(required = true, value_name = "DIR")]
    paths: Vec<PathBuf>,
    /// Take the risk model and whether there are places from this configuration.
    #[arg(long, value_name = "FILE", conflicts_with = "risk")]
    config: Option<PathBuf>,
    /// The risk model.
    #[arg(long, value_enum, default_value = "fixed")]
    risk: RiskName,
    /// Only failures, and the count.
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RiskName {
    Fixed,
    None,
}

impl Policy {
    pub(super) fn run(self) -> ExitCode {
        let Action::Test(test) = self.action;
        match test.report() {
            Ok(report) => test.show(&report),
            Err(problems) => {
                print(&problems, is_coloured(&stderr()));
                ExitCode::from(EXIT_USAGE)
            }
        }
    }
}

impl Test {
    fn report(&self) -> Result<cases::Report, Vec<Diagnostic>> {
        let options = match &self.config {
            Some(file) => config::load(file, &environment())?.0.rule_options(),
            None => {
                let risk_model = match self.risk {
                    RiskName::Fixed => RiskModel::Fixed,
                    RiskName::None => RiskModel::None,
                };
                Options { risk_model, ..Options::default() }
            }
        };
        let files = reload::read(&self.paths)?;
        let rules = policy::load(&files, options)?.rules;
        cases::run(&files, &rules)
    }

    fn show(&self, report: &cases::Report) -> ExitCode {
        let width = report.results.iter().map(|result| result.name.chars().count()).max().unwrap_or_default().min(64);
        for result in &report.results {
            if result.passed() {
                if !self.quiet {
                    println!("ok    {:<width$}  {}", result.name, result.outcome);
                }
                continue;
            }
            println!("FAIL  {:<width$}  {}\n      at {}", result.name, result.outcome, result.at);
            result.differences.iter().for_each(|difference| println!("      {difference}"));
        }
        let (all, failed) = (report.results.len(), report.failures());
        if all == 0 {
            println!("no cases: write some beside the rules, in a YAML file with a `cases:` list");
            return ExitCode::FAILURE;
        }
        println!("{} of {all} cases came out as written", all - failed);
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

//! `ledger`: how much was told of which cells, and what is left of the budget.

use std::{fmt, path::PathBuf};

use archipelago_common::id::Name;
use clap::Args;
use serde::Serialize;

use crate::{
    config::{SiteConfig, read_policy},
    error::Result,
    holding::Holding,
    ledger::{Account, InEpsilon, Spent},
    naming::NameTable,
    output::Output,
};

/// Verify the ledger of what was told of this site's cells, and show what is left of the policy's budget.
///
/// One line for each set of cells, the key that it left under and what is counted together. What left of the same cells under
/// another key, or under the same key of other cells, counts against both.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-worker ledger --config site.toml")]
pub struct LedgerArgs {
    /// The site's configuration.
    #[arg(long, value_name = "FILE", env = "ARCHIPELAGO_SITE")]
    config: PathBuf,
}

/// A verified ledger.
#[derive(Serialize)]
struct Report {
    accounts: Vec<Account>,
    /// What the columns of each data set come to in differential privacy.
    privacy: Vec<InEpsilon>,
    /// What keys stand for, where that is not what they say.
    #[serde(skip_serializing_if = "NameTable::is_empty")]
    names: NameTable,
}

/// Runs the command.
///
/// # Errors  a configuration or policy that cannot be used, [`crate::Error::AuditBroken`], [`crate::Error::Common`] if the file
/// cannot be read
pub fn run(args: &LedgerArgs, output: &Output) -> Result<()> {
    let config = SiteConfig::read(&args.config)?;
    let holdings = Holding::all(&config)?;
    let of_site = read_policy(config.policy.as_deref())?;
    // Of a data set that is offered no more the site's.
    let budget_of = |dataset: &Name| {
        let holding = holdings.iter().find(|holding| holding.dataset == *dataset);
        &holding.map_or(&of_site, |holding| &holding.policy).budget
    };
    let path = config.ledger_path();
    // A worker that has not served yet has told nothing.
    let spent = if path.exists() { Spent::read(&path)? } else { Spent::default() };
    let (accounts, privacy) = (spent.accounts(budget_of), spent.in_epsilon(budget_of));
    let names = NameTable::read(&NameTable::path(&config.state_dir))?;
    let names = names.of(accounts.iter().map(|account| &account.condition));
    output.show(&Report { accounts, privacy, names });
    Ok(())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.accounts.is_empty() {
            return f.write_str("nothing was told of any cells");
        }
        for (place, Account { condition, cells, n_cells, kind, numbers, allowed, left, tasks, epsilon }) in
            self.accounts.iter().enumerate()
        {
            let of_budget = match (allowed, left) {
                (Some(allowed), Some(left)) => format!("of {allowed}, {left} left"),
                _ => "without a bound".to_owned(),
            };
            let tasks: Vec<String> = tasks.iter().map(ToString::to_string).collect();
            let (cells, tasks) = (cells.short(), tasks.join(", "));
            let epsilon = epsilon.map_or(String::new(), |epsilon| format!("  epsilon {epsilon:.3}"));
            let end = if place == 0 { "" } else { "\n" };
            write!(
                f,
                "{end}{}  {n_cells} cells {cells}  {kind}: {numbers} numbers {of_budget}  for task {tasks}{epsilon}",
                self.names.shown(condition)
            )?;
        }
        self.privacy.iter().try_for_each(|of| write!(f, "\n{of}"))
    }
}

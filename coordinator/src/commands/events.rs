//! `events`: what happened in the consortium, in words. It is the record of acts, which `audit` verifies.

use std::time::Duration;

use archipelago_common::{
    Digest, TaskId,
    act::{Act, Anchor},
    id::SiteId,
    text::printable,
};
use clap::Args;

use super::{Connection, invite::coordinators_time, utc};
use crate::{error::Result, output::Output};

/// Show what happened in the consortium: who did what, when, and what came of it.
///
/// It follows from the replicated state, whoever leads. Coordinators remember the latest ten thousand acts or so; what sites anchor of their
/// own logs, and which certificates were seen, is shown with `--all`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  archipelago-coordinator events --since 2h --config operator.toml\n  \
    archipelago-coordinator events --follow --site north --config operator.toml")]
pub struct EventsArgs {
    /// Only what is as old as this or younger: `30m`, `2h`, `7d`.
    #[arg(long, value_name = "AGE", value_parser = age)]
    since: Option<Duration>,
    /// Only what this site did, or what was done to it.
    #[arg(long)]
    site: Option<SiteId>,
    /// Only what concerns this task.
    #[arg(long)]
    task: Option<TaskId>,
    /// Go on and show what comes, until Ctrl-C.
    #[arg(long)]
    follow: bool,
    /// Anchors of sites' logs and certificates too.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
///
/// # Errors  the cluster's refusal, or that it cannot be reached
pub fn run(args: &EventsArgs, output: &Output) -> Result<()> {
    args.connection.talk(async |client| {
        let now_ms = coordinators_time(client).await?;
        let age_ms = args.since.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let from_ms = age_ms.map_or(0, |age_ms| now_ms.saturating_sub(age_ms));
        let mut last = 0;
        loop {
            let acts = client.acts(last).await?;
            last = acts.last().map_or(last, |act| act.seq);
            let meant: Vec<Act> = acts.into_iter().filter(|act| act.at_ms >= from_ms && args.means(act)).collect();
            if !args.follow {
                output.show(&meant, text(&meant));
                return Ok(());
            }
            // One value for each, so that a program reads them as they come.
            meant.iter().for_each(|act| output.show(act, line(act)));
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    })
}

impl EventsArgs {
    fn means(&self, act: &Act) -> bool {
        let is_told = self.all || !["anchor", "note-certificate"].contains(&act.what.as_str()) || is_stray(act);
        is_told
            && self.site.as_ref().is_none_or(|site| concerns_site(act, site))
            && self.task.is_none_or(|task| concerns_task(act, task))
    }
}

/// Whether an act was a site's own or is about it: by its name, or by a key of its namespace.
pub(crate) fn concerns_site(act: &Act, site: &SiteId) -> bool {
    let (name, whole) = (site.as_str(), format!("site/{site}"));
    let is_it = |word: &str| word == name || word == whole || word.split('/').next() == Some(name);
    act.who == whole || act.about.split([' ', ',']).any(is_it)
}

pub(crate) fn concerns_task(act: &Act, task: TaskId) -> bool {
    let name = format!("task {task}");
    [&act.about, &act.outcome].into_iter().any(|text| text.split(", ").any(|part| part == name))
}

fn is_stray(act: &Act) -> bool {
    matches!(&act.anchor, Some(Anchor { follows: false, .. }))
}

fn text(acts: &[Act]) -> String {
    match acts {
        [] => "nothing happened".to_owned(),
        acts => acts.iter().map(|act| line(act) + "\n").collect(),
    }
}

fn line(act: &Act) -> String {
    format!("{}  {}", utc(act.at_ms), sentence(act))
}

/// An act in words; digests as people name them.
pub(crate) fn sentence(act: &Act) -> String {
    let Act { who, what, about, outcome, .. } = act;
    let did = match what.as_str() {
        "add-site" => "enrolled",
        "revoke-site" | "revoke" => "shut out",
        "publish-reference" => "published reference",
        "publish-task" => "published a task on",
        "close-task" => "closed",
        "cancel-task" => "cancelled",
        "claim" => "took",
        "give-up" => "gave up",
        "submit" => "handed in for",
        "withdraw" => "withdrew from",
        "erase" => "erased from",
        "add-member" => "added",
        "promote-member" => "gave a vote to",
        "remove-member" => "took out",
        "raise-edition" => "raised the edition to",
        "derive" => "derived",
        "set-clock" => "set the clock to",
        "invite" => "invited",
        "request-certificate" => "asked to be let in, with",
        "approve" => "let in",
        "refuse" => "refused",
        "renew-certificate" => "asked for another certificate, with",
        "note-certificate" => "met",
        "demand" => "demands",
        "lift" => "does not demand any more",
        "propose" => "proposed",
        "approve-proposal" => "approved",
        "decline-proposal" => "declined",
        "anchor" if is_stray(act) => {
            return format!(
                "the log of {who} does not follow what was anchored before: it was cut, changed or begun anew"
            );
        }
        "anchor" => "anchored",
        // Of a later program.
        other => other,
    };
    let text = match outcome.as_str() {
        "done" => format!("{who} {did} {about}"),
        outcome => format!("{who} {did} {about}: {outcome}"),
    };
    let word = |word: &str| word.parse::<Digest>().map_or_else(|_| word.to_owned(), |digest| digest.short());
    printable(&text.split(' ').map(word).collect::<Vec<_>>().join(" "), SENTENCE_CHARS)
}

fn age(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a number and s, m, h or d, such as `2h`".to_owned();
    let (number, unit) = text.split_at(text.len() - text.chars().next_back().map_or(0, char::len_utf8));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

/// Longer than any act is told.
const SENTENCE_CHARS: usize = 2_000;
/// How often it is asked what has come.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn act(who: &str, what: &str, about: &str, outcome: &str) -> Act {
        let [who, what, about, outcome] = [who, what, about, outcome].map(str::to_owned);
        let digest = Digest::of(b"");
        Act { seq: 1, at_ms: 0, who, key: None, what, about, outcome, command: digest, anchor: None, previous: digest }
    }

    #[test]
    fn an_act_is_found_by_its_site_and_its_task() {
        let handed_in = act("site/north", "submit", "task 3, 2 conditions", "accepted, version ab");
        let published = act("operator/anna", "publish-task", "reference lung", "task 3");
        let withdrawn = act("operator/anna", "withdraw", "lung, north/pbmc/b1", "version cd");
        let approved = act("operator/anna", "approve", "north, key 01", "done");
        let [north, nor] = ["north", "nor"].map(|site| site.parse().unwrap());
        for (act, of_north, of_task) in
            [(&handed_in, true, true), (&published, false, true), (&withdrawn, true, false), (&approved, true, false)]
        {
            assert_eq!((concerns_site(act, &north), concerns_task(act, TaskId(3))), (of_north, of_task), "{act:?}");
            assert!(!concerns_site(act, &nor) && !concerns_task(act, TaskId(30)));
        }
        assert_eq!(sentence(&handed_in), "site/north handed in for task 3, 2 conditions: accepted, version ab");
        assert_eq!(sentence(&approved), "operator/anna let in north, key 01");
    }

    #[test]
    fn ages_are_numbers_with_a_unit() {
        assert_eq!(age("90m").unwrap(), Duration::from_secs(5_400));
        assert_eq!(age("7d").unwrap(), Duration::from_secs(604_800));
        for wrong in ["", "h", "2", "2w", "-1h", "1.5h", "99999999999999999999d", "9999999999999999999d", "2é"] {
            assert!(age(wrong).is_err(), "{wrong}");
        }
    }
}

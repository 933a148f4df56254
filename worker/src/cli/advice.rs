//! Hints that the command at hand can follow: what they name in backticks must exist.
//!
//! An error knows several hints, the best first. A flag that a hint names (`--batches`) must be one of the command that failed; a
//! command (`archipelago-worker subset FILE --obs …`) must exist with the flags it is shown with.

use clap::Command;

/// The first hint that a command can follow.
pub(super) fn choose(hints: Vec<String>, command: &Command, root: &Command) -> Option<String> {
    hints.into_iter().find(|hint| quoted(hint).iter().all(|part| exists(part, command, root)))
}

/// What stands in backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Whether what a hint names exists, if it is a flag of a command or a command of ours.
fn exists(part: &str, command: &Command, root: &Command) -> bool {
    let mut words = part.split_whitespace().peekable();
    let mut command = command;
    match words.peek() {
        Some(&PROGRAM) => {
            words.next();
            command = root;
            while let Some(inner) = words.peek().and_then(|word| command.find_subcommand(word)) {
                command = inner;
                words.next();
            }
            if std::ptr::eq(command, root) && words.peek().is_some() {
                return false;
            }
        }
        Some(word) if word.starts_with("--") => {}
        _ => return true,
    }
    words.filter_map(|word| word.strip_prefix("--")).all(|flag| {
        let name = flag.split(['=', '[']).next().unwrap_or_default();
        is_flag(name, command) || is_flag(name, root)
    })
}

fn is_flag(name: &str, command: &Command) -> bool {
    // clap adds these two itself.
    ["help", "version"].contains(&name) || command.get_arguments().any(|arg| arg.get_long() == Some(name))
}

const PROGRAM: &str = "archipelago-worker";

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    fn chosen(hints: &[&str], verb: &str) -> Option<String> {
        let root = Cli::command();
        choose(hints.iter().map(|&hint| hint.to_owned()).collect(), root.find_subcommand(verb).unwrap(), &root)
    }

    #[test]
    fn a_hint_is_given_where_it_can_be_followed() {
        let hints = ["choose with `--batches`", "use `archipelago-worker subset FILE --obs COLUMN=VALUES`"];
        assert_eq!(chosen(&hints, "train").as_deref(), Some(hints[0]));
        assert_eq!(chosen(&hints, "transfer").as_deref(), Some(hints[1]));
        assert_eq!(chosen(&["see `archipelago-worker subset --no-such-flag`"], "train"), None);
        assert_eq!(chosen(&["see `archipelago-worker no-such-verb`"], "train"), None);
        assert!(chosen(&["`adata.var_names_make_unique()`, and `--overwrite`"], "inspect").is_some());
    }

    /// Every hint in the product's sources, by the flags and commands that it names.
    #[test]
    fn each_flag_and_command_in_each_hint_exists() {
        let root = Cli::command();
        let (mut leaves, mut n_checked) = (Vec::new(), 0);
        collect(&root, &mut leaves);
        for file in HINTS {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
            let source = std::fs::read_to_string(&path).unwrap();
            let lines = source.lines().filter(|line| !line.trim_start().starts_with("//") && line.contains('"'));
            for part in lines.flat_map(quoted).filter(|part| part.starts_with("--") || part.starts_with(PROGRAM)) {
                // The name is filled in where the message is made.
                if part == "--{}" {
                    continue;
                }
                let part = part.replace("{layer}", "counts");
                let can_follow = leaves.iter().any(|leaf| exists(&part, leaf, &root));
                assert!(can_follow, "`{part}` in {file} is a flag or command of nothing");
                n_checked += 1;
            }
        }
        assert!(n_checked > 20, "only {n_checked} flags and commands were found: the search is broken");
    }

    fn collect<'a>(command: &'a Command, leaves: &mut Vec<&'a Command>) {
        leaves.push(command);
        command.get_subcommands().for_each(|inner| collect(inner, leaves));
    }

    /// The files that hold hints.
    const HINTS: [&str; 5] =
        ["src/error/hint.rs", "anndata/src/error.rs", "analysis/src/error.rs", "models/src/error.rs", "src/error.rs"];
}

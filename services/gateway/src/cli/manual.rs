//! What is made from the description of the command line: completions, manual pages, and
//! `docs/cli.md`.

use std::{fs, path::PathBuf};

use clap::CommandFactory as _;

use super::{Cli, failure::Failure, output::Output};

/// What `completions` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  stategate completions bash > ~/.bash_completion.d/stategate
  stategate completions zsh > ~/.zfunc/_stategate
  stategate completions fish > ~/.config/fish/completions/stategate.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

/// What `man` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  stategate man | man -l -
  stategate man --dir ~/.local/share/man/man1")]
pub(crate) struct ManArgs {
    /// Writes stategate.1 and a page for every command into this directory
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Prints a shell's completions.
pub(crate) fn completions(args: &CompletionsArgs, output: &mut Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "stategate", &mut script);
    output.text(&String::from_utf8_lossy(&script))
}

/// Prints or writes manual pages.
pub(crate) fn man(args: &ManArgs, output: &mut Output) -> Result<(), Failure> {
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page)?;
        return output.text(&String::from_utf8_lossy(&page));
    };
    fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), dir))
        .map_err(|error| Failure::failed(format!("cannot write to {}: {error}", dir.display())))
}

/// `docs/cli.md`.
#[cfg(test)]
fn document() -> String {
    use std::fmt::Write as _;

    let mut out = String::from(
        "# The command line

This file is what `stategate --help` and `stategate COMMAND --help` print; a test of `services/gateway` compares the two
and, run with `STATEGATE_TEST_BLESS=1`, writes this file.
",
    );
    let mut cli = Cli::command().term_width(100).hide(false);
    cli.build();
    let _ = write!(
        out,
        "\n## stategate\n\n```text\n{}```\n",
        tidy(&cli.render_help())
    );
    commands(&mut cli, "stategate", &mut out);
    out
}

/// Every command below another, in order.
#[cfg(test)]
fn commands(of: &mut clap::Command, name: &str, out: &mut String) {
    use std::fmt::Write as _;

    for command in of.get_subcommands_mut() {
        if command.get_name() == "help" {
            continue;
        }
        let title = format!("{name} {}", command.get_name());
        // The options of every command stand above, once.
        let hidden: Vec<_> = command
            .get_arguments()
            .filter(|argument| argument.is_global_set())
            .map(|argument| argument.get_id().clone())
            .collect();
        let mut shown = command.clone();
        for id in hidden {
            shown = shown.mut_arg(id, |argument| argument.hide(true));
        }
        let help = shown.term_width(100).render_help();
        let _ = write!(out, "\n## {title}\n\n```text\n{}```\n", tidy(&help));
        commands(command, &title, out);
    }
}

/// Help as text without blanks at the ends of lines.
#[cfg(test)]
fn tidy(help: &clap::builder::StyledStr) -> String {
    let mut text = String::new();
    for line in help.to_string().trim_end().lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::Printed;

    #[test]
    fn the_document_is_what_help_prints() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md");
        if std::env::var_os("STATEGATE_TEST_BLESS").is_some() {
            fs::write(path, document()).unwrap();
        }
        let written = fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == document(),
            "docs/cli.md is not what --help prints; run this test with STATEGATE_TEST_BLESS=1"
        );
    }

    #[test]
    fn every_command_has_an_example_and_every_option_a_meaning() {
        fn check(of: &clap::Command, name: &str) {
            for command in of.get_subcommands() {
                if command.get_name() == "help" {
                    continue;
                }
                let call = format!("{name} {}", command.get_name());
                let help = command.get_after_help().map(ToString::to_string);
                assert!(help.is_some_and(|help| help.contains(&call)), "{call}");
                for argument in command.get_arguments() {
                    let id = argument.get_id();
                    assert!(argument.get_help().is_some(), "{call} {id}");
                }
                check(command, &call);
            }
        }
        let mut cli = Cli::command();
        cli.build();
        check(&cli, "stategate");
    }

    #[test]
    fn every_shell_has_completions_and_every_command_a_page() {
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            let printed = Printed::default();
            let mut output = printed.output();
            let shell = <clap_complete::Shell as std::str::FromStr>::from_str(shell).unwrap();
            completions(&CompletionsArgs { shell }, &mut output).unwrap();
            output.finish(Ok(())).unwrap();
            assert!(printed.text().contains("if-version"), "{shell}");
        }
        let folder = tempfile::tempdir().unwrap();
        let dir = Some(folder.path().to_owned());
        man(&ManArgs { dir }, &mut Printed::default().output()).unwrap();
        for page in ["stategate.1", "stategate-import.1", "stategate-dev.1"] {
            assert!(folder.path().join(page).exists(), "{page}");
        }
    }
}

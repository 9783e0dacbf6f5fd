//! Manual pages and completions, made from the command line's own definitions.

use std::io::Write;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;

use crate::failed::Failed;

/// Prints the completions of a shell.
pub fn completions(command: &mut Command, shell: Shell) -> Result<(), Failed> {
    let mut text = Vec::new();
    clap_complete::generate(shell, command, "mailraft", &mut text);
    // Not line by line as other output: a script that is cut off must not be taken for whole.
    std::io::stdout().write_all(&text).map_err(|e| Failed::because(format!("the completions can't be written ({e})")))
}

/// Writes `mailraft.1` and one page for each command.
pub fn pages(command: Command, dir: &Path) -> Result<(), Failed> {
    clap_mangen::generate_to(command, dir)
        .map_err(|e| Failed::because(format!("manual pages can't be written into {} ({e})", dir.display())))
}

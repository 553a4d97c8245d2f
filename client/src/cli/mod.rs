//! The command line: arguments in, tables or JSON out, an exit code that is a contract.

mod args;
mod failure;
mod interrupt;
mod keeper;
mod links;
mod metrics;
mod output;
mod reads;
mod state;
mod status;
mod target;
mod trace;
mod transfer;
mod unsettled;
mod voters;
mod writes;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use args::{Args, Verb};
use failure::Failure;
use output::Output;
use target::Target;

/// Runs the command of this process's arguments.
pub(crate) fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return refuse(&error),
    };
    let mut output = Output::new(args.global.json);
    let result = run(&args, &mut output).and_then(|()| output.flush());
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(args.global.json),
    }
}

/// Says what is wrong with the arguments, as JSON when they ask for that: whoever reads JSON reads this, too.
fn refuse(error: &clap::Error) -> ExitCode {
    let is_asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if is_asked_for || !std::env::args_os().any(|word| word == "--json") {
        error.exit();
    }
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
    Failure::Usage(text.to_owned()).report(true)
}

fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let global = &args.global;
    let target = Target::find(global)?;
    match &args.verb {
        Verb::Read(read) => reads::run(read, global, &target, output),
        Verb::Write(write) => writes::run(write, global, &target, output),
        Verb::Import(import) => transfer::import(import, global, &target, output),
        Verb::Export(export) => transfer::export(export, global, &target, output),
        Verb::Status { links } => status::run(*links, global, &target, output),
        Verb::Metrics => metrics::run(global, &target, output),
        Verb::Unsettled { forget } => unsettled::run(*forget, global, &target, output),
    }
}

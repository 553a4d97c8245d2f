//! The command line: arguments in, tables or JSON out, an exit code that is a contract.

mod args;
mod failure;
mod keeper;
mod output;
mod reads;
mod state;
mod status;
mod target;
mod trace;
mod transfer;
mod writes;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Verb};
use failure::Failure;
use output::Output;
use target::Target;

/// Runs the command of this process's arguments.
pub(crate) fn main() -> ExitCode {
    let args = Args::parse();
    let mut output = Output::new(args.global.json);
    let result = run(&args, &mut output).and_then(|()| output.flush());
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(args.global.json),
    }
}

fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let global = &args.global;
    let target = Target::find(global)?;
    match &args.verb {
        Verb::Read(read) => reads::run(read, global, &target, output),
        Verb::Write(write) => writes::run(write, global, &target, output),
        Verb::Import(import) => transfer::import(import, global, &target, output),
        Verb::Export(export) => transfer::export(export, global, &target, output),
        Verb::Status => status::run(global, &target, output),
    }
}

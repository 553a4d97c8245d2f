//! `pygmy-sim`: runs seeds of the simulated cluster.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}

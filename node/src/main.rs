//! `pygmy-node`: runs one server, or a whole cluster on this machine.

use std::process::ExitCode;

fn main() -> ExitCode {
    pygmy_node::cli::main()
}

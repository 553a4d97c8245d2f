//! The binary and a standard output that does not take what it prints.

use std::fs::File;
use std::process::{Command, Output, Stdio};

fn sim(args: &[&str], stdout: Stdio) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pygmy-sim"));
    command.args(args).stdout(stdout).output().expect("the program starts")
}

#[test]
fn a_closed_or_full_output_is_no_panic_and_no_finding() {
    for args in [&["mistakes"][..], &["run", "--seed", "1", "--trace"], &["run", "--seeds", "2"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = sim(args, writer.into());
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{args:?}");
        let full = File::options().write(true).open("/dev/full").expect("it is there");
        let output = sim(args, full.into());
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.starts_with("pygmy-sim: cannot write standard output"), "{text}");
    }
}

#[test]
fn no_seeds_prove_nothing() {
    assert_eq!(sim(&["run", "--seeds", "0"], Stdio::piped()).status.code(), Some(2));
}

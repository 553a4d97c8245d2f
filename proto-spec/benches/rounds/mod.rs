//! What the benchmarks on instruction counts of all crates share: a program that does one piece of work so many times.
//!
//! Nobody measures in here. `.ci/instructions` counts the instructions of the whole program once for some rounds and once
//! for twice as many: the difference is what the rounds cost, without whatever came before them.

use std::process::ExitCode;

/// Does a piece of work so many times.
pub(crate) type Work = fn(rounds: u64);

/// The program: `--list` names the pieces of work, `NAME ROUNDS` does one of them, and without either each is tried out.
pub(crate) fn main(work: &[(&str, Work)]) -> ExitCode {
    // `cargo bench` adds a word that says so.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let find = |name: &str| work.iter().find(|(known, _)| *known == name);
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => work.iter().for_each(|(_, work)| work(2)),
        ["--list"] => work.iter().for_each(|(name, _)| println!("{name}")),
        [name, rounds] => match (find(name), rounds.parse()) {
            (Some((_, work)), Ok(rounds)) => work(rounds),
            _ => return usage(),
        },
        _ => return usage(),
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("give nothing, --list, or a name of that list and a number of rounds");
    ExitCode::from(2)
}

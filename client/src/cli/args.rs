//! Arguments. Help comes from here and nowhere else.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args as ClapArgs, Parser, Subcommand};
use pygmy_client::{BookId, Command, TIMEOUT_DEFAULT};
use pygmy_proto::inventory::Format;
use pygmy_proto::limits::COPIES_MAX;
use pygmy_proto::message::{Line, NewBook};
use pygmy_proto::types::{self, Bounded, Title, Topic};

const CLUSTER_VARIABLE: &str = "PYGMY_CLUSTER";
const AFTER: &str = "\
Exit codes: 0 done; 1 refused; 2 wrong usage; 3 no server answered; 4 a write's outcome is unknown, or could not be \
printed.

With --json, results are one JSON object a line on standard output, and an error is one JSON object on standard error
with code, name, retry, limit and detail. Traces and reminders of unsettled writes go to standard error.";

/// The replicated book store: search it, buy from it, tend its shelves
#[derive(Debug, Parser)]
#[command(name = "pygmy", version, after_help = AFTER)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

/// Options that every command takes.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Options for every command")]
pub(super) struct Global {
    /// The cluster: its cluster.toml, or the directory that holds it [default: $PYGMY_CLUSTER, else where `pygmy-node
    /// up` puts it]
    #[arg(long, global = true, value_name = "PATH")]
    cluster: Option<PathBuf>,
    /// A front end to use instead of those of the cluster file; may be given several times
    #[arg(long, global = true, value_name = "HOST:PORT", value_parser = address)]
    pub(super) front: Vec<String>,
    /// Ask this node of the cluster file directly
    #[arg(long, global = true, value_name = "NAME", conflicts_with = "front")]
    pub(super) node: Option<String>,
    /// Print JSON, one object a line
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Show, on standard error, where the time of each request went
    #[arg(long, global = true)]
    pub(super) trace: bool,
    /// Let reads reflect whatever was done before, by anybody: they take one round trip between servers longer, and a
    /// majority of them; without it, what this session has seen, and others' writes soon
    #[arg(long, global = true)]
    pub(super) fresh: bool,
    /// Let reads go past what a front end keeps itself, to the servers behind it
    #[arg(long, global = true)]
    pub(super) no_cache: bool,
    /// Time for a request: 500ms, 5s, or seconds [default: 5s; for each batch of an import 60s]
    #[arg(long, global = true, value_name = "TIME", value_parser = time)]
    pub(super) timeout: Option<Duration>,
    /// Neither use nor change the session that is kept for this user; a write then takes one request more
    #[arg(long, global = true)]
    pub(super) no_session: bool,
}

impl Global {
    /// Where the cluster file is said to be. A variable that is empty says nothing.
    pub(super) fn cluster(&self) -> Option<PathBuf> {
        let variable = || std::env::var_os(CLUSTER_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
        self.cluster.clone().or_else(variable)
    }

    /// Time for a request.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(TIMEOUT_DEFAULT)
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    #[command(flatten)]
    Read(Read),
    #[command(flatten)]
    Write(Write),
    /// Make books be as a file says: add those that are new, change those that differ, leave the others of the store
    ///
    /// The whole file is checked before the first book is written. An import that was interrupted is completed by
    /// repeating it.
    Import(Import),
    /// Write all books to a file or to standard output
    Export(Export),
    /// Ask every node how it is
    Status {
        /// Show for each node which others it hears, how long each may be silent, and whom it suspects and why
        #[arg(long)]
        links: bool,
    },
    /// Print what every node counts, in the text format that Prometheus reads
    Metrics,
    /// List the writes whose outcome is unknown, each with the command that settles it
    Unsettled {
        /// Forget this one, without knowing whether it was done; if it was not, it never will be
        #[arg(long, value_name = "IDENTITY")]
        forget: Option<Identity>,
    },
}

/// What asks.
#[derive(Debug, Subcommand)]
pub(super) enum Read {
    /// List the books of a topic
    Search {
        /// The topic, exactly
        #[arg(value_parser = types::topic)]
        topic: Topic,
    },
    /// List the topics
    Topics,
    /// Show a book
    Lookup {
        /// Its id
        book: BookId,
    },
    /// Show an order
    Order {
        /// Its number, as `buy` and `orders` print it: its position in the log
        number: u64,
    },
    /// List the latest orders, newest first
    Orders {
        /// How many
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
        last: u64,
        /// Only those with this book
        #[arg(long, value_name = "BOOK")]
        book: Option<BookId>,
    },
}

/// Which write this is, when it was sent before.
#[derive(Debug, Clone, Copy, ClapArgs)]
pub(super) struct Again {
    /// Settle a write whose outcome is unknown: repeat the same command with the identity that was reported for it
    ///
    /// It is then done once, whether that happened before or happens now.
    #[arg(long, value_name = "IDENTITY")]
    pub(super) settle: Option<Identity>,
}

/// What changes the store.
#[derive(Debug, Subcommand)]
pub(super) enum Write {
    /// Buy books: all of them or none
    Buy {
        /// A book and, after a colon, how many copies; one if not said
        #[arg(required = true, value_name = "BOOK[:N]")]
        lines: Vec<CartLine>,
        #[command(flatten)]
        again: Again,
    },
    /// Add copies to a book's stock
    Restock {
        /// The book
        book: BookId,
        /// How many
        #[arg(value_parser = clap::value_parser!(u32).range(1..=COPIES_MAX.into()))]
        copies: u32,
        #[command(flatten)]
        again: Again,
    },
    /// Change a book's price
    Reprice {
        /// The book
        book: BookId,
        /// The new price, such as 25.50, or 2550c in cents
        price: Money,
        #[command(flatten)]
        again: Again,
    },
    /// Add a book that is not there yet
    Add {
        /// Its id: letters, digits, and . _ -
        #[arg(long)]
        id: BookId,
        /// Its title
        #[arg(long, value_parser = types::title)]
        title: Title,
        /// Its topic
        #[arg(long, value_parser = types::topic)]
        topic: Topic,
        /// Its price, such as 25.50, or 2550c in cents
        #[arg(long, value_name = "PRICE")]
        cost: Money,
        /// Its copies
        #[arg(long)]
        stock: u32,
        #[command(flatten)]
        again: Again,
    },
    /// Take a book out of the store
    Retire {
        /// The book
        book: BookId,
        #[command(flatten)]
        again: Again,
    },
}

impl Write {
    /// The command, and the identity it was given before, if it was.
    pub(super) fn command(&self) -> Result<(Command, Option<Identity>), String> {
        Ok(match self {
            Write::Buy { lines, again } => {
                let lines = lines.iter().map(|line| Line { book: line.book, copies: line.copies }).collect();
                let lines = Bounded::new(lines).map_err(|lines: Vec<Line>| {
                    format!(
                        "{} lines are too many: a cart has {} at most",
                        lines.len(),
                        pygmy_proto::limits::CART_LINES_MAX
                    )
                })?;
                (Command::Buy { lines }, again.settle)
            }
            Write::Restock { book, copies, again } => (Command::Restock { book: *book, copies: *copies }, again.settle),
            Write::Reprice { book, price, again } => {
                (Command::Reprice { book: *book, cost_cents: price.0 }, again.settle)
            }
            Write::Add { id, title, topic, cost, stock, again } => {
                let book = NewBook { id: *id, title: title.clone(), topic: *topic, cost_cents: cost.0, stock: *stock };
                (Command::Add { book }, again.settle)
            }
            Write::Retire { book, again } => (Command::Retire { book: *book }, again.settle),
        })
    }
}

/// Arguments of `import`.
#[derive(Debug, ClapArgs)]
pub(super) struct Import {
    /// The file; - is standard input
    pub(super) file: PathBuf,
    /// original, csv or jsonl; if not said, by the file's extension, else by its first line
    #[arg(long, value_parser = any_format)]
    pub(super) format: Option<Format>,
}

/// Arguments of `export`.
#[derive(Debug, ClapArgs)]
pub(super) struct Export {
    /// The file; standard output if not said
    pub(super) file: Option<PathBuf>,
    /// csv or jsonl; if not said, by the file's extension, else csv
    #[arg(long, value_parser = any_format)]
    pub(super) format: Option<Format>,
}

/// One book of a cart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CartLine {
    book: BookId,
    copies: u32,
}

impl FromStr for CartLine {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (book, copies) = text.split_once(':').unwrap_or((text, "1"));
        let book = book.parse::<BookId>().map_err(|error| error.to_string())?;
        let copies = copies.parse().map_err(|_| format!("{copies:?} is not a number of copies"))?;
        Ok(Self { book, copies })
    }
}

/// A sum of money in cents. A number without decimals could be meant either way, so it is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Money(pub(super) u64);

impl FromStr for Money {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no price: write 25.50, or 2550c in cents");
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if let Some(cents) = text.strip_suffix('c').filter(|cents| digits(cents)) {
            return cents.parse().map(Self).map_err(|_| wrong());
        }
        if digits(text) {
            return Err(format!("{text:?} could be cents or not: write {text}.00, or {text}c in cents"));
        }
        let (whole, cents) = text.split_once('.').ok_or_else(wrong)?;
        if !digits(whole) || !digits(cents) || cents.len() > 2 {
            return Err(wrong());
        }
        let cents = format!("{cents:0<2}").parse::<u64>().map_err(|_| wrong())?;
        let whole = whole.parse::<u64>().map_err(|_| wrong())?;
        whole.checked_mul(100).and_then(|sum| sum.checked_add(cents)).map(Self).ok_or_else(wrong)
    }
}

/// Who a write is. Sessions are numbered anew in every cluster, so the cluster is a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) cluster: [u8; 16],
    pub(super) session: u64,
    pub(super) counter: u64,
}

impl Identity {
    /// The cluster as it is written.
    pub(super) fn cluster_text(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.cluster))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.cluster_text(), self.session, self.counter)
    }
}

impl FromStr for Identity {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let hex = |text: &str| {
            let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            u128::from_str_radix(text, 16).ok().filter(|_| is_hex).map(u128::to_be_bytes)
        };
        let parts: Vec<&str> = text.split(':').collect();
        if let [cluster, session, counter] = parts[..]
            && let (Some(cluster), Ok(session), Ok(counter)) = (hex(cluster), session.parse(), counter.parse())
            && counter > 0
        {
            return Ok(Self { cluster, session, counter });
        }
        Err(format!(
            "{text:?} is no identity of a write: it is the cluster's id, the session and a number, with colons between, \
             as the message about the unknown outcome has it"
        ))
    }
}

/// An address that could be connected to.
fn address(text: &str) -> Result<String, String> {
    let valid = text.rsplit_once(':').is_some_and(|(host, port)| {
        let is_bracketed = host.starts_with('[') && host.ends_with(']');
        let is_host = !host.is_empty() && (is_bracketed || !host.contains(':')) && !host.contains(char::is_whitespace);
        is_host && port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if valid {
        Ok(text.to_owned())
    } else {
        Err("it should be HOST:PORT with a port from 1 to 65535, an IPv6 address in brackets".to_owned())
    }
}

fn time(text: &str) -> Result<Duration, String> {
    let (number, unit_ms) = match text.strip_suffix("ms") {
        Some(number) => (number, 1.0),
        None => (text.strip_suffix('s').unwrap_or(text), 1_000.0),
    };
    match number.parse::<f64>().map(|number| number * unit_ms) {
        Ok(ms) if (1.0..=f64::from(pygmy_proto::limits::DEADLINE_MS_MAX)).contains(&ms) => {
            Ok(Duration::from_secs_f64(ms / 1_000.0))
        }
        _ => Err(format!("{text:?} is no time from 1ms to 600s; write 500ms, 5s or 5")),
    }
}

fn any_format(text: &str) -> Result<Format, String> {
    let all = [Format::Original, Format::Csv, Format::JsonLines];
    all.into_iter().find(|format| format.name() == text).ok_or_else(|| "formats are original, csv, jsonl".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn prices_say_their_unit() {
        for (text, cents) in [("2550c", 2550), ("25.50", 2550), ("25.5", 2550), ("0.05", 5), ("0c", 0), ("0.00", 0)] {
            assert_eq!(text.parse(), Ok(Money(cents)), "{text}");
        }
        for text in ["", "c", ".5", "5.", "1.5c", "1.234", "-1", "+1", "1e3", "99999999999999999999c", "1e3c"] {
            assert!(text.parse::<Money>().is_err(), "{text}");
        }
        assert!("184467440737095517.00".parse::<Money>().is_err());
        let wrong = "25".parse::<Money>().unwrap_err();
        assert!(wrong.contains("25.00") && wrong.contains("25c"), "{wrong}");
    }

    #[test]
    fn cart_lines_times_and_identities() {
        let book = BookId::new("a.b").unwrap();
        assert_eq!("a.b".parse(), Ok(CartLine { book, copies: 1 }));
        assert_eq!("a.b:12".parse(), Ok(CartLine { book, copies: 12 }));
        for text in ["a:", "a:-1", ":1", "a:1:2", "a b"] {
            assert!(text.parse::<CartLine>().is_err(), "{text}");
        }
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!((time("2s"), time("0.5")), (Ok(Duration::from_secs(2)), Ok(Duration::from_millis(500))));
        for text in ["0", "-1", "x", "1h", "inf", "NaN", "601s"] {
            assert!(time(text).is_err(), "{text}");
        }
        let (cluster, id) = ("0a".repeat(16), Identity { cluster: [10; 16], session: 17, counter: 3 });
        assert_eq!((format!("{cluster}:17:3").parse(), id.to_string()), (Ok(id), format!("{cluster}:17:3")));
        for text in ["17:3", "a:17:3", &format!("{cluster}:17"), &format!("{cluster}:17:0"), &format!("+{cluster}:1:1")]
        {
            assert!(text.parse::<Identity>().is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_that_cannot_be_connected_to_are_wrong_usage() {
        for text in ["127.0.0.1:7401", "localhost:1", "[::1]:65535"] {
            assert_eq!(address(text), Ok(text.to_owned()));
        }
        for text in ["127.0.0.1", ":7401", "a:0", "a:65536", "a:99999", "::1:5", "a b:1", "a:+1", "a:"] {
            assert!(address(text).is_err(), "{text}");
        }
    }
}

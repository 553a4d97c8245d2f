//! PostgreSQL: a primary with one synchronous standby, or with two of which one must have every commit.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tokio::runtime::Runtime;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls, Statement};

use super::account::{self, Account};
use super::lanes::{self, Lane};
use super::peer::{Group, Guarantees, Missing, Peer, Shape, Spans, Standing};
use super::sandbox::{Farewell, Place, Server, free_ports};
use super::shelf::{self, STOCK, Shelf, VALUE_BYTES};
use super::tally::Measured;
use crate::error::Error;

/// The superuser of the databases that are made here.
const USER: &str = "postgres";
/// Connections that a server allows: those of the largest load, and what replication needs.
const CONNECTIONS_MAX: usize = 300;

/// Tables; a page of `books` keeps room for the versions that buys leave behind.
const TABLES: &str = "\
CREATE TABLE books (id text PRIMARY KEY, value text NOT NULL, stock integer NOT NULL CHECK (stock >= 0))
  WITH (fillfactor = 50);
CREATE TABLE orders (id bigint PRIMARY KEY, book text NOT NULL);";
/// One buy, in one statement: no order without a copy, and no second order of the same id.
const BUY: &str = "\
WITH sold AS (UPDATE books SET stock = stock - 1 WHERE id = $1 AND stock > 0 RETURNING id)
INSERT INTO orders (id, book) SELECT $2, id FROM sold";
const LOOKUP: &str = "SELECT value FROM books WHERE id = $1";

const BUY_TEXT: &str = "one statement (UPDATE … WHERE stock > 0 in a CTE, INSERT of the order), prepared; one waits for \
                        the row lock of the other's book until it is committed everywhere";
const RESEND_TEXT: &str = "refused: the order's id is the primary key, and the whole statement is undone";
const LOOKUP_TEXT: &str = "the latest commit, at the primary";

/// Promises with one synchronous standby.
pub(super) const GUARANTEES_ONE: Guarantees = Guarantees {
    durable: "on two disks: primary and standby (synchronous_commit on)",
    resend: RESEND_TEXT,
    failover: "nobody takes over by himself; a promoted standby has every acknowledged buy. Without the standby no buy \
               is acknowledged",
    buy: BUY_TEXT,
    lookup: LOOKUP_TEXT,
};

/// Promises with two standbys, one of which must have each commit.
pub(super) const GUARANTEES_ANY: Guarantees = Guarantees {
    durable: "on two of three disks: primary and either standby (ANY 1)",
    resend: RESEND_TEXT,
    failover: "nobody takes over by himself; whoever promotes must pick the standby that has more, and has every \
               acknowledged buy then. One standby may be lost without a stop",
    buy: BUY_TEXT,
    lookup: LOOKUP_TEXT,
};

/// PostgreSQL as it is installed here, with some standbys.
#[derive(Debug, Clone)]
pub(super) struct Postgres {
    initdb: PathBuf,
    postgres: PathBuf,
    basebackup: PathBuf,
    version: String,
    /// Whom it runs as: it refuses to run as root.
    account: Option<Account>,
    standbys: usize,
}

impl Postgres {
    /// Looks for it; both ways of setting it up.
    ///
    /// # Errors
    /// When it is not installed.
    pub(super) fn find() -> Result<[Self; 2], Missing> {
        let find = |program| account::postgres_program(program).ok_or(Missing { program, packages: "postgresql" });
        let (initdb, postgres, basebackup) = (find("initdb")?, find("postgres")?, find("pg_basebackup")?);
        let printed = account::first_line(&postgres, &["--version"]);
        let version = printed.split_whitespace().nth(2).unwrap_or("?").to_string();
        let account = Account::instead_of_root(&["postgres", "nobody"]);
        let one = Self { initdb, postgres, basebackup, version, account, standbys: 1 };
        Ok([one.clone(), Self { standbys: 2, ..one }])
    }

    fn server<'a>(&'a self, name: &'a str, program: &'a PathBuf, args: Vec<String>) -> Server<'a> {
        Server { name, program, args, account: self.account.as_ref(), farewell: Farewell::Quit }
    }

    fn init(&self, place: &Place) -> Result<PathBuf, Error> {
        let dir = place.new_dir("primary", self.account.as_ref())?;
        let mut args = words(&["-U", USER, "-A", "trust", "-E", "UTF8", "--locale", "C", "--no-sync", "-D"]);
        args.push(dir.display().to_string());
        place.run(self.server("initdb", &self.initdb, args))?;
        Ok(dir)
    }

    fn copy(&self, place: &Place, name: &str, primary: u16) -> Result<PathBuf, Error> {
        let dir = place.new_dir(name, self.account.as_ref())?;
        let mut args = words(&["-h", "127.0.0.1", "-U", USER, "-R", "-X", "stream", "-c", "fast", "--no-sync", "-D"]);
        args.extend([dir.display().to_string(), "-p".into(), primary.to_string()]);
        let tool = format!("copy-{name}");
        place.run(self.server(&tool, &self.basebackup, args))?;
        Ok(dir)
    }

    /// Starts a server in its directory, with these settings besides those that all have.
    fn start_one(
        &self,
        place: &Place,
        name: &str,
        dir: &std::path::Path,
        port: u16,
        more: &[String],
    ) -> Result<(), Error> {
        let mut args = vec!["-D".into(), dir.display().to_string(), "-p".into(), port.to_string()];
        let socket_dir = format!("unix_socket_directories={}", dir.display());
        let connections = format!("max_connections={CONNECTIONS_MAX}");
        let all = [
            "listen_addresses=127.0.0.1",
            "fsync=on",
            "synchronous_commit=on",
            "shared_buffers=256MB",
            // No checkpoint while it is measured.
            "max_wal_size=4GB",
            // A copy for a second standby must not remove what a slow first one still wants.
            "wal_keep_size=1GB",
            &socket_dir,
            &connections,
        ];
        for setting in all.into_iter().chain(more.iter().map(String::as_str)) {
            args.extend(["-c".into(), setting.into()]);
        }
        place.start(self.server(name, &self.postgres, args))
    }

    /// Which standbys a commit waits for.
    fn synchronous_names(&self) -> String {
        let names: Vec<String> = (1..=self.standbys).map(standby).collect();
        let rule = if self.standbys == 1 { "FIRST 1" } else { "ANY 1" };
        format!("synchronous_standby_names={rule} ({})", names.join(", "))
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| word.to_string()).collect()
}

fn standby(number: usize) -> String {
    format!("standby{number}")
}

impl Peer for Postgres {
    fn name(&self) -> &'static str {
        if self.standbys == 1 { "postgres" } else { "postgres-any" }
    }

    fn describe(&self) -> String {
        let how = if self.standbys == 1 { "one synchronous standby" } else { "two standbys, ANY 1 synchronous" };
        format!("PostgreSQL {}, a primary and {how}, synchronous_commit on", self.version)
    }

    fn guarantees(&self) -> Guarantees {
        if self.standbys == 1 { GUARANTEES_ONE } else { GUARANTEES_ANY }
    }

    fn shapes(&self, group: Group) -> Vec<Shape> {
        let own = |clients| Shape::new(group, clients, 1);
        match group {
            // A lookup asks the primary alone: once is enough. One query at a time on a connection.
            Group::Lookups if self.standbys > 1 => Vec::new(),
            Group::Lookups => vec![own(16), own(50)],
            Group::Buys => vec![own(16), own(64), own(128)],
            Group::One => vec![own(1)],
            Group::Flash => Shape::flash(),
        }
    }

    fn start(&self, place: &Place, shelf: &Shelf) -> Result<Box<dyn Standing>, Error> {
        let ports = free_ports(1 + self.standbys)?;
        let dir = self.init(place)?;
        self.start_one(place, "primary-server", &dir, ports[0], &[self.synchronous_names()])?;
        let runtime = lanes::runtime()?;
        let config = config(ports[0]);
        let client = place.wait("answer of the primary", || runtime.block_on(connect(&config)).ok())?;
        runtime.block_on(fill(&client, shelf)).map_err(|error| lost(&error))?;
        for number in 1..=self.standbys {
            let name = standby(number);
            let dir = self.copy(place, &name, ports[0])?;
            let known_as = format!("cluster_name={name}");
            self.start_one(place, &format!("{name}-server"), &dir, ports[number], &[known_as])?;
        }
        place.wait("standby that replicates", || {
            let states = "SELECT count(*) FROM pg_stat_replication \
                          WHERE state = 'streaming' AND sync_state IN ('sync', 'quorum')";
            let row = runtime.block_on(client.query_one(states, &[])).ok()?;
            (row.get::<_, i64>(0) == self.standbys as i64).then_some(())
        })?;
        Ok(Box::new(Running { runtime, config, shelf: *shelf, orders: Arc::default() }))
    }
}

fn config(port: u16) -> Config {
    let mut config = Config::new();
    config.host("127.0.0.1").port(port).user(USER).dbname(USER).connect_timeout(Duration::from_secs(10));
    config
}

/// Connects; the connection is served by the runtime until its client is dropped.
async fn connect(config: &Config) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    // How it ends is told to whoever asks through the client.
    tokio::spawn(connection);
    Ok(client)
}

async fn fill(client: &Client, shelf: &Shelf) -> Result<(), tokio_postgres::Error> {
    // There are no standbys yet that a commit could wait for.
    client.batch_execute("SET synchronous_commit = local").await?;
    client.batch_execute(TABLES).await?;
    let books: Vec<String> = shelf.numbers().map(shelf::id).collect();
    let values: Vec<String> = shelf.numbers().map(shelf::value).collect();
    let insert = format!("INSERT INTO books SELECT unnest($1::text[]), unnest($2::text[]), {STOCK}");
    client.execute(&insert, &[&books, &values]).await?;
    client.batch_execute("VACUUM ANALYZE books").await
}

fn lost(error: &tokio_postgres::Error) -> Error {
    // What the server said stands in the cause.
    let why = std::error::Error::source(error).map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
    Error::Unreachable { address: "postgres".into(), why }
}

/// PostgreSQL while it runs.
struct Running {
    runtime: Runtime,
    config: Config,
    shelf: Shelf,
    /// Number of the next order.
    orders: Arc<AtomicI64>,
}

impl Standing for Running {
    fn load(&mut self, _: &Place, shape: &Shape, spans: Spans) -> Result<Measured, Error> {
        let lanes = (0..shape.clients as u64).map(|number| self.runtime.block_on(self.lane(number, shape)));
        let lanes = lanes.collect::<Result<Vec<Asker>, _>>().map_err(|error| lost(&error))?;
        lanes::run(&self.runtime, spans, lanes).map(|tally| tally.measured())
    }
}

impl Running {
    async fn lane(&self, number: u64, shape: &Shape) -> Result<Asker, tokio_postgres::Error> {
        let client = connect(&self.config).await?;
        let is_lookup = shape.group == Group::Lookups;
        let statement = client.prepare(if is_lookup { LOOKUP } else { BUY }).await?;
        Ok(Asker {
            client,
            statement,
            is_lookup,
            shelf: self.shelf,
            is_one_book: shape.is_one_book,
            rng: ChaCha8Rng::seed_from_u64(number),
            orders: self.orders.clone(),
        })
    }
}

/// One client, with a connection of its own.
struct Asker {
    client: Client,
    statement: Statement,
    is_lookup: bool,
    shelf: Shelf,
    is_one_book: bool,
    rng: ChaCha8Rng,
    orders: Arc<AtomicI64>,
}

impl Lane for Asker {
    async fn ask(&mut self) -> Result<bool, Error> {
        let book = shelf::id(self.shelf.pick(&mut self.rng, self.is_one_book));
        if self.is_lookup {
            let found = self.client.query_opt(&self.statement, &[&book]).await.map_err(|error| lost(&error))?;
            return Ok(found.is_some_and(|row| row.get::<_, &str>(0).len() == VALUE_BYTES));
        }
        let order = self.orders.fetch_add(1, Ordering::Relaxed);
        match self.client.execute(&self.statement, &[&book, &order]).await {
            Ok(orders) => Ok(orders == 1),
            Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => Ok(false),
            Err(error) => Err(lost(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_waits_for_one_standby_whichever_way() {
        let mut postgres = Postgres {
            initdb: PathBuf::new(),
            postgres: PathBuf::new(),
            basebackup: PathBuf::new(),
            version: "15".into(),
            account: None,
            standbys: 1,
        };
        assert_eq!(postgres.synchronous_names(), "synchronous_standby_names=FIRST 1 (standby1)");
        postgres.standbys = 2;
        assert_eq!(postgres.synchronous_names(), "synchronous_standby_names=ANY 1 (standby1, standby2)");
        assert!(postgres.shapes(Group::Lookups).is_empty() && !postgres.shapes(Group::Buys).is_empty());
    }
}

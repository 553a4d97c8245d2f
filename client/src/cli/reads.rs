//! Commands that ask.

use pygmy_client::{BookId, Client};
use pygmy_proto::limits::{ORDERS_PAGE_MAX, PAGE_MAX};
use pygmy_proto::message::{Book, OrderRecord};
use pygmy_proto::types::Topic;

use super::args::{Global, Read};
use super::failure::Failure;
use super::keeper::Keeper;
use super::output::{Grid, Output, moment, money, shown};
use super::target::Target;
use super::trace;

/// A command that asks, at work.
struct Asking<'a> {
    client: Client,
    global: &'a Global,
    target: &'a Target,
    output: &'a mut Output,
}

pub(super) fn run(read: &Read, global: &Global, target: &Target, output: &mut Output) -> Result<(), Failure> {
    let mut client = target.client(global);
    let keeper = Keeper::new(target.cluster_id(&mut client)?, !global.no_session, global.json);
    keeper.before_reads(&mut client);
    let mut asking = Asking { client, global, target, output };
    let result = match read {
        Read::Search { topic } => asking.search(*topic),
        Read::Topics => asking.topics(),
        Read::Lookup { book } => asking.lookup(*book),
        Read::Order { number } => asking.order(*number),
        Read::Orders { last, book } => asking.orders(*last, *book),
    };
    keeper.after_reads(&asking.client);
    result
}

impl Asking<'_> {
    fn trace(&self) {
        if self.global.trace {
            trace::print(self.client.last(), self.target, self.global.json);
        }
    }

    fn search(&mut self, topic: Topic) -> Result<(), Failure> {
        let mut grid = Grid::new(&["book", "title", ">price", ">stock"]);
        let (mut after, mut total) = (None, 0);
        loop {
            let page = self.client.search(topic, PAGE_MAX, after)?;
            self.trace();
            total = page.total.max(total);
            for book in &page.books {
                if self.output.is_json() {
                    self.output.object(book)?;
                } else {
                    grid.row([
                        book.id.to_string(),
                        book.title.to_string(),
                        money(book.cost_cents),
                        book.stock.to_string(),
                    ]);
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        grid.fit(self.output.width());
        self.text(|| format!("{grid}\n{total} {} on {}", plural(total, "book", "books"), shown(&topic)))
    }

    fn topics(&mut self) -> Result<(), Failure> {
        let mut grid = Grid::new(&["topic", ">books"]);
        let mut after = None;
        loop {
            let page = self.client.topics(PAGE_MAX, after)?;
            self.trace();
            for topic in &page.topics {
                if self.output.is_json() {
                    self.output.object(topic)?;
                } else {
                    grid.row([topic.topic.to_string(), topic.books.to_string()]);
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        grid.fit(self.output.width());
        self.text(|| grid.to_string())
    }

    fn lookup(&mut self, book: BookId) -> Result<(), Failure> {
        let found = self.client.lookup(book)?;
        self.trace();
        if self.output.is_json() {
            return self.output.object(&found.book);
        }
        self.output.line(sheet(&found.book, self.output.width()))
    }

    fn order(&mut self, number: u64) -> Result<(), Failure> {
        let found = self.client.order(number)?;
        self.trace();
        if self.output.is_json() {
            return self.output.object(&found.order);
        }
        self.output.line(receipt(&found.order, self.output.width()))
    }

    fn orders(&mut self, last: u64, book: Option<BookId>) -> Result<(), Failure> {
        let mut grid = Grid::new(&[">order", "time", ">total", "books"]);
        let (mut before, mut left, mut total) = (None, last, 0);
        while left > 0 {
            let limit = u32::try_from(left).unwrap_or(u32::MAX).min(ORDERS_PAGE_MAX);
            let page = self.client.orders(book, limit, before)?;
            self.trace();
            total = page.total;
            for order in &page.orders {
                if self.output.is_json() {
                    self.output.object(order)?;
                } else {
                    let books: Vec<String> =
                        order.lines.iter().map(|line| format!("{} × {}", line.copies, line.book)).collect();
                    let (time, sum) = (moment(order.time_us), money(order.total_cents));
                    grid.row([order.number.to_string(), time, sum, books.join(", ")]);
                }
            }
            left = left.saturating_sub(page.orders.len() as u64);
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        if let (Some(book), 0) = (book, total) {
            // That nobody ordered it is an answer only if there is such a book.
            self.client.lookup(book)?;
        }
        grid.fit(self.output.width());
        let count = last.min(total);
        self.text(|| format!("{grid}\n{count} of {total} {}", plural(total, "order", "orders")))
    }

    /// Prints a summary for people.
    fn text(&mut self, text: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.output.is_json() { Ok(()) } else { self.output.line(text()) }
    }
}

pub(super) fn plural<'a>(count: u64, one: &'a str, many: &'a str) -> &'a str {
    if count == 1 { one } else { many }
}

/// A book on lines of its own.
pub(super) fn sheet(book: &Book, width: Option<u16>) -> String {
    let mut grid = Grid::new(&["book", "title", "topic", ">price", ">stock"]);
    let (title, topic) = (book.title.to_string(), book.topic.to_string());
    grid.row([book.id.to_string(), title, topic, money(book.cost_cents), book.stock.to_string()]);
    grid.fit(width);
    grid.to_string()
}

/// An order with its lines.
pub(super) fn receipt(order: &OrderRecord, width: Option<u16>) -> String {
    let mut grid = Grid::new(&["book", ">copies", ">price", ">sum", ">left"]);
    for line in &order.lines {
        let sum = line.cost_cents.saturating_mul(line.copies.into());
        let (copies, left) = (line.copies.to_string(), line.left.to_string());
        grid.row([line.book.to_string(), copies, money(line.cost_cents), money(sum), left]);
    }
    grid.fit(width);
    format!("order {}, {}, total {}\n{grid}", order.number, moment(order.time_us), money(order.total_cents))
}

//! The generator for systems that are asked through a client library: many clients on one thread, each of which asks
//! again when it is answered.

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::peer::Spans;
use super::tally::{Tally, Window};
use crate::error::Error;
use crate::span::Clock;

/// One client.
pub(super) trait Lane: Send + 'static {
    /// Asks once and waits for the answer: whether it was done.
    ///
    /// # Errors
    /// When the server is gone or answers something else.
    fn ask(&mut self) -> impl Future<Output = Result<bool, Error>> + Send;
}

/// What runs them, and their connections.
///
/// # Errors
/// When the system refuses.
pub(super) fn runtime() -> Result<Runtime, Error> {
    Builder::new_current_thread().enable_all().build().map_err(Error::io("an event loop"))
}

/// Has all clients ask for as long as is wanted, and counts.
///
/// # Errors
/// The first that a client meets.
pub(super) fn run(runtime: &Runtime, spans: Spans, lanes: Vec<impl Lane>) -> Result<Tally, Error> {
    runtime.block_on(async {
        let clock = Clock::start();
        let window = Window::from_now(clock.now_ns(), spans);
        let mut total = Tally::new(window)?;
        let mut set = JoinSet::new();
        for lane in lanes {
            set.spawn(drive(lane, clock, window));
        }
        while let Some(ended) = set.join_next().await {
            let panicked = |_| Error::Usage("a client of this program panicked: please report it".into());
            total.merge(&ended.map_err(panicked)??);
        }
        Ok(total)
    })
}

async fn drive(mut lane: impl Lane, clock: Clock, window: Window) -> Result<Tally, Error> {
    let mut tally = Tally::new(window)?;
    loop {
        let sent_ns = clock.now_ns();
        if sent_ns >= window.to_ns {
            return Ok(tally);
        }
        let left = Duration::from_nanos(window.drain_ns - sent_ns);
        // What is not answered by the end of all waiting has failed; the client asks no more then.
        let is_done = timeout(left, lane.ask()).await.unwrap_or(Ok(false))?;
        tally.count(sent_ns, clock.now_ns(), u64::from(is_done), u64::from(!is_done));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Every {
        third: u32,
        asked: u32,
    }

    impl Lane for Every {
        async fn ask(&mut self) -> Result<bool, Error> {
            tokio::time::sleep(Duration::from_millis(1)).await;
            self.asked += 1;
            match self.asked {
                1_000_000.. => Err(Error::Usage("enough".into())),
                asked => Ok(asked % self.third != 0),
            }
        }
    }

    const SPANS: Spans = Spans { warmup: Duration::from_millis(5), duration: Duration::from_millis(60) };

    #[test]
    fn what_is_done_and_what_is_not_are_counted_apart() {
        let lanes: Vec<Every> = (0..4).map(|_| Every { third: 2, asked: 0 }).collect();
        let measured = run(&runtime().unwrap(), SPANS, lanes).unwrap().measured();
        assert!(measured.per_s > 0.0 && measured.failed > 0, "{measured:?}");
        assert!(measured.p50_s >= 0.001, "{measured:?}");
    }

    #[test]
    fn an_error_of_one_client_ends_the_load() {
        let lanes = vec![Every { third: 2, asked: 0 }, Every { third: 2, asked: 2_000_000 }];
        assert!(run(&runtime().unwrap(), SPANS, lanes).unwrap_err().to_string().contains("enough"));
    }
}

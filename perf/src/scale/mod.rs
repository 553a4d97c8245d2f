//! `pygmy-perf scale`: what the store does with more catalogs, connections or books, or larger commands.

mod args;
mod report;
mod site;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

pub use self::args::{Over, ScaleArgs};
pub use self::report::{ScaleReport, Step};
use self::site::{Scratch, Sites};
use crate::error::Error;
use crate::load::check_build;
use crate::point::Point;
use crate::run::Run;

/// Does what `scale` says.
///
/// # Errors
/// When a cluster cannot be started or reached, or somebody asked for the end.
pub fn run(args: &ScaleArgs) -> Result<ScaleReport, Error> {
    check_build(args.allow_debug)?;
    let values = args.values()?;
    // Whatever cannot be asked is said before a cluster is started.
    values.iter().try_for_each(|value| args.plan(*value).map(|_| ()))?;
    let is_over = on_signals()?;
    let mut run = Run::begin("scale", format!("over {}", args.over.noun()));
    let scratch = Scratch::new(args.dir.as_ref())?;
    let mut sites = Sites::new(args, &scratch.0, &values);
    let mut points: Vec<Vec<Point>> = vec![Vec::new(); values.len()];
    for round in 1..=args.repeat {
        for (place, value) in values.iter().enumerate() {
            if is_over.load(Ordering::Relaxed) {
                return Err(Error::Usage("ended by a signal; the clusters are stopped".into()));
            }
            let store = sites.open(place)?;
            let plan = args.plan(*value)?;
            let point = Point::of(&plan, &plan.run(&store.books, &store.target.front_addresses()?)?);
            tell(&format!("round {round}, {value} {}: {:.0} done/s", args.over.noun(), point.done_per_s));
            points[place].push(point);
        }
    }
    let report = ScaleReport::new(args, &values, points, std::mem::take(&mut sites.brought_in));
    // Before its files go.
    drop(sites);
    drop(scratch);
    if let Some(dir) = &args.out {
        report.fill(&mut run);
        run.save(dir)?;
    }
    Ok(report)
}

/// True once somebody asks for the end. What is under way is finished, which takes seconds; at the second signal the
/// program ends at once, and leaves its cluster behind.
fn on_signals() -> Result<Arc<AtomicBool>, Error> {
    let is_over = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // In this order: the first one finds that it is not over yet.
        signal_hook::flag::register_conditional_default(signal, is_over.clone()).map_err(Error::io("signals"))?;
        signal_hook::flag::register(signal, is_over.clone()).map_err(Error::io("signals"))?;
    }
    Ok(is_over)
}

/// Says how far it is, as it takes minutes. Whoever closed standard error does not want to know.
fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

//! Which rate is tried next: rising from far below what the store bears until one is too much, then between the highest
//! that was borne and the lowest that was not. No I/O.

/// The first rate, as a share of what the store bears in a closed loop.
const FIRST_SHARE: f64 = 0.1;
/// Rates rise, and fall where even the first is too much, by this factor.
const FACTOR: f64 = 1.5;
/// No rate above so many times what the store bears in a closed loop is tried: it would be the harness that is measured.
const CEILING: f64 = 1.5;
/// No rate below this share of it is tried.
const FLOOR: f64 = 0.001;

/// A search for the highest rate that is borne.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Search {
    saturation: f64,
    /// The highest rate that is borne is known when it and the next are this close together.
    precision: f64,
    borne: Option<f64>,
    too_much: Option<f64>,
}

impl Search {
    /// For a store that does so many requests a second in a closed loop.
    pub(super) fn new(saturation: f64, precision: f64) -> Self {
        Self { saturation, precision, borne: None, too_much: None }
    }

    /// The rate to be tried; none: it is found, or there is none to be found.
    pub(super) fn next(&self) -> Option<f64> {
        let (floor, ceiling) = (self.saturation * FLOOR, self.saturation * CEILING);
        match (self.borne, self.too_much) {
            (None, None) => Some(self.saturation * FIRST_SHARE),
            (Some(borne), None) => (borne < ceiling).then(|| (borne * FACTOR).min(ceiling)),
            (None, Some(too_much)) => Some(too_much / FACTOR).filter(|rate| *rate >= floor),
            // Halfway on a logarithmic axis.
            (Some(borne), Some(too_much)) => {
                (too_much / borne > 1.0 + self.precision).then(|| (borne * too_much).sqrt())
            }
        }
        .filter(|rate| rate.is_finite() && *rate > 0.0)
    }

    /// What came of the rate that was tried.
    pub(super) fn tell(&mut self, rate: f64, is_borne: bool) {
        if is_borne {
            self.borne = Some(rate);
        } else {
            self.too_much = Some(rate);
        }
    }

    /// The highest rate that was borne.
    pub(super) fn borne(&self) -> Option<f64> {
        self.borne
    }

    /// Whether a rate above it was too much.
    pub(super) fn is_bounded(&self) -> bool {
        self.too_much.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every rate that is tried where rates up to `knee` are borne.
    fn tried(saturation: f64, knee: f64) -> (Vec<f64>, Search) {
        let mut search = Search::new(saturation, 0.05);
        let mut rates = Vec::new();
        while let Some(rate) = search.next() {
            assert!(rates.len() < 60, "{rates:?}");
            rates.push(rate);
            search.tell(rate, rate <= knee);
        }
        (rates, search)
    }

    #[test]
    fn the_knee_is_found_wherever_it_lies() {
        for knee in [150.0, 990.0, 5_000.0, 72_000.0, 99_999.0, 140_000.0] {
            let (rates, search) = tried(100_000.0, knee);
            let borne = search.borne().unwrap();
            assert!(borne <= knee && knee / borne < 1.06, "{knee}: {borne} by {rates:?}");
            assert!(search.is_bounded());
        }
    }

    #[test]
    fn rates_rise_before_they_are_narrowed_down() {
        let (rates, _) = tried(1_000.0, 400.0);
        assert!(rates[..5].is_sorted() && rates[0] == 100.0, "{rates:?}");
    }

    #[test]
    fn what_bears_everything_or_nothing_is_not_tried_for_ever() {
        let (rates, search) = tried(1_000.0, f64::INFINITY);
        assert_eq!((search.borne(), search.is_bounded()), (Some(1_500.0), false), "{rates:?}");
        let (rates, search) = tried(1_000.0, 0.0);
        assert_eq!(search.borne(), None, "{rates:?}");
        assert!(rates.iter().all(|rate| *rate >= 1.0), "{rates:?}");
        assert!(tried(0.0, 1.0).0.is_empty());
    }
}

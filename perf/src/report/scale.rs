//! Where a value stands on an axis, and which values the axis names.

use super::quantity::{self, Factor};
use crate::run::Unit;

/// Values beyond this are drawn as if they were this: no measurement is, and sums of them must stay finite.
const VALUE_MAX: f64 = 1e18;
/// Decades of a logarithmic axis; smaller values stand on its foot.
const DECADES_MAX: f64 = 12.0;

/// An axis from its foot (0) to its head (1).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    form: Form,
    /// What stands at the foot and at the head, as [`Scale::transform`] makes it.
    low: f64,
    high: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Linear,
    Log,
    Nines,
}

/// A value that an axis names, or a line for the eye.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tick {
    /// From 0 to 1.
    pub(super) place: f64,
    /// Empty for lines that are not named.
    pub(super) label: String,
    /// The lower, the sooner its label gets room.
    pub(super) rank: u8,
}

impl Scale {
    /// From `low` to the first round value that is not below `high`.
    pub(super) fn linear(low: f64, high: f64, unit: Unit) -> Self {
        let (low, high) = (clamp(low), clamp(high));
        let high = if high > low { high } else { low + if low == 0.0 { 1.0 } else { low.abs() } };
        let step = step(low, high, quantity::factor(unit, high.abs().max(low.abs())), 5);
        Self { form: Form::Linear, low: (low / step + 1e-9).floor() * step, high: (high / step - 1e-9).ceil() * step }
    }

    /// From `low` to `high` and a little more, for axes that lie.
    pub(super) fn span(low: f64, high: f64) -> Self {
        let (low, high) = (clamp(low), clamp(high));
        let room = if high > low { (high - low) * 0.015 } else { low.abs().max(1.0) * 0.5 };
        let foot = if low == 0.0 { 0.0 } else { low - room };
        Self { form: Form::Linear, low: foot, high: high + room }
    }

    /// From the decade, half or fifth beneath the least of the values that are above 0 to that above the highest.
    pub(super) fn log(values: impl Iterator<Item = f64>) -> Self {
        let positive = values.map(clamp).filter(|value| *value > 0.0);
        let (low, high) = positive.fold((f64::MAX, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
        if high == 0.0 {
            return Self { form: Form::Log, low: 0.0, high: 1.0 };
        }
        let (below, above) = (around(low).0, around(high).1);
        let high = above.max(below + 0.3);
        Self { form: Form::Log, low: below.max(high - DECADES_MAX), high }
    }

    /// Percentiles, by how many nines they have; up to the rarest of so many.
    pub(super) fn nines(count: u64) -> Self {
        Self { form: Form::Nines, low: 0.0, high: nines(1.0, count).max(1.0) * 1.01 }
    }

    fn transform(&self, value: f64) -> f64 {
        match self.form {
            Form::Linear | Form::Nines => clamp(value),
            Form::Log if value > 0.0 => clamp(value).log10(),
            Form::Log => self.low,
        }
    }

    /// Where a value stands, from 0 to 1; one beyond the ends stands at the end.
    pub(super) fn place(&self, value: f64) -> f64 {
        ((self.transform(value) - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    /// What is written behind the values that this axis names, if they have it in common.
    pub(super) fn common_unit(&self, unit: Unit) -> &'static str {
        match self.form {
            Form::Linear => quantity::factor(unit, self.low.abs().max(self.high.abs())).name,
            Form::Log | Form::Nines => "",
        }
    }

    /// Whether it is logarithmic.
    pub(super) fn is_log(&self) -> bool {
        self.form == Form::Log
    }

    /// What it names, `count` values at most where it is linear.
    pub(super) fn ticks(&self, unit: Unit, count: usize) -> Vec<Tick> {
        match self.form {
            Form::Linear => self.linear_ticks(unit, count),
            Form::Log => self.log_ticks(unit),
            Form::Nines => self.nines_ticks(),
        }
    }

    fn linear_ticks(&self, unit: Unit, count: usize) -> Vec<Tick> {
        let factor = quantity::factor(unit, self.low.abs().max(self.high.abs()));
        let step = step(self.low, self.high, factor, count);
        let places = decimals(step / factor.per);
        let first = (self.low / step - 1e-9).ceil();
        let last = (self.high / step + 1e-9).floor();
        let numbers = (0..=count + 1).map(|at| first + at as f64).take_while(|number| *number <= last);
        numbers
            .map(|number| {
                // Without this, what is a hair below zero would be named `-0`.
                let value = number * step + 0.0;
                Tick { place: self.place(value), label: format!("{:.places$}", value / factor.per), rank: 0 }
            })
            .collect()
    }

    fn log_ticks(&self, unit: Unit) -> Vec<Tick> {
        let decades = self.low.floor() as i32..=self.high.ceil() as i32;
        let is_wide = self.high - self.low > 4.0;
        let mut ticks = Vec::new();
        for decade in decades {
            for digit in 1..10_u8 {
                let value = f64::from(digit) * 10.0_f64.powi(decade);
                let at = value.log10();
                if at < self.low - 1e-9 || at > self.high + 1e-9 {
                    continue;
                }
                let rank = match digit {
                    1 => 0,
                    2 | 5 if !is_wide => 1,
                    _ => 2,
                };
                let label = if rank < 2 { quantity::short(value, unit) } else { String::new() };
                ticks.push(Tick { place: self.place(value), label, rank });
            }
        }
        ticks
    }

    fn nines_ticks(&self) -> Vec<Tick> {
        let mut ticks = vec![
            Tick { place: 0.0, label: "0 %".into(), rank: 1 },
            Tick { place: self.place(0.5_f64.log10().abs()), label: "50 %".into(), rank: 1 },
        ];
        let mut label = String::from("90");
        for count in 1..=self.high as u32 {
            if count == 2 {
                label = "99".into();
            } else if count > 2 {
                label.push_str(if count == 3 { ".9" } else { "9" });
            }
            ticks.push(Tick { place: self.place(f64::from(count)), label: format!("{label} %"), rank: 0 });
        }
        ticks
    }
}

/// How many nines a quantile has; that of the rarest of `count` is as far as there is anything to see.
pub(super) fn nines(quantile: f64, count: u64) -> f64 {
    let rarest = (count.max(1) as f64).log10();
    let above = 1.0 - clamp(quantile);
    if above <= 0.0 { rarest } else { (-above.log10()).clamp(0.0, rarest) }
}

fn clamp(value: f64) -> f64 {
    if value.is_nan() { 0.0 } else { value.clamp(-VALUE_MAX, VALUE_MAX) }
}

/// A round step that makes `count` steps at most. It is round in what is shown: 512 KiB and not 500,000 bytes.
fn step(low: f64, high: f64, factor: Factor, count: usize) -> f64 {
    let least = (high - low) / factor.per / count.max(1) as f64;
    let decade = 10.0_f64.powf(least.log10().floor());
    let fits = |step: &f64| *step >= least * (1.0 - 1e-9);
    let round = [1.0, 2.0, 2.5, 5.0, 10.0].map(|digit| digit * decade);
    factor.per * round.into_iter().find(fits).unwrap_or(10.0 * decade)
}

/// How many digits behind the point multiples of a step need.
fn decimals(step: f64) -> usize {
    (0..12).find(|places| (step * 10.0_f64.powi(*places)).fract().abs() < 1e-6).unwrap_or(12) as usize
}

/// The logarithms of the decade, half or fifth of one that is not above a value, and of that not below it.
fn around(value: f64) -> (f64, f64) {
    let decade = value.log10().floor();
    let round = [1.0, 2.0, 5.0, 10.0].map(|digit: f64| decade + digit.log10());
    let at = value.log10();
    let below = round.iter().rev().find(|round| **round <= at + 1e-9).copied().unwrap_or(decade);
    let above = round.iter().find(|round| **round >= at - 1e-9).copied().unwrap_or(decade + 1.0);
    (below, above)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(scale: Scale, unit: Unit, count: usize) -> Vec<String> {
        scale.ticks(unit, count).into_iter().map(|tick| tick.label).filter(|label| !label.is_empty()).collect()
    }

    #[test]
    fn linear_axes_name_round_values_in_the_unit_they_have_in_common() {
        let scale = Scale::linear(0.0, 0.004_1, Unit::Seconds);
        assert_eq!(labels(scale, Unit::Seconds, 5), ["0", "1", "2", "3", "4", "5"]);
        assert_eq!(scale.common_unit(Unit::Seconds), "ms");
        let scale = Scale::linear(0.0, 243_000.0, Unit::PerSecond);
        assert_eq!(labels(scale, Unit::PerSecond, 5), ["0", "50", "100", "150", "200", "250"]);
        assert_eq!(scale.common_unit(Unit::PerSecond), "k/s");
        let scale = Scale::linear(0.0, 1_500_000.0, Unit::Bytes);
        assert_eq!(labels(scale, Unit::Bytes, 4), ["0.0", "0.5", "1.0", "1.5"]);
    }

    #[test]
    fn logarithmic_axes_name_decades_and_what_lies_between_where_there_is_room() {
        let scale = Scale::log([0.000_12, 0.009].into_iter());
        assert_eq!(labels(scale, Unit::Seconds, 5), ["100 us", "200 us", "500 us", "1 ms", "2 ms", "5 ms", "10 ms"]);
        assert_eq!((scale.place(0.000_1), scale.place(0.01)), (0.0, 1.0));
        assert!((scale.place(0.001) - 0.5).abs() < 1e-9);
        assert_eq!(scale.place(0.0), 0.0, "no logarithm is the foot");
        let wide = Scale::log([1.0, 1e7].into_iter());
        assert_eq!(labels(wide, Unit::Count, 5).len(), 8);
    }

    #[test]
    fn percentiles_stand_as_far_apart_as_they_are_rare() {
        let scale = Scale::nines(1_000_000);
        let named = labels(scale, Unit::Ratio, 5);
        assert_eq!(named, ["0 %", "50 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %", "99.9999 %"]);
        let places: Vec<f64> = scale.ticks(Unit::Ratio, 5).iter().skip(2).map(|tick| tick.place).collect();
        assert!(places.windows(2).all(|pair| (pair[1] - pair[0] - places[0]).abs() < 1e-9), "{places:?}");
        assert!((nines(0.999, 1_000_000) - 3.0).abs() < 1e-9);
        assert_eq!(nines(1.0, 1_000), 3.0, "the slowest of a thousand");
        assert_eq!(nines(1.0, 0), 0.0);
    }

    proptest! {
        #[test]
        fn whatever_the_values_places_are_on_the_axis(
            a in prop::num::f64::NORMAL | prop::num::f64::ZERO,
            b in prop::num::f64::NORMAL | prop::num::f64::ZERO,
            value in prop::num::f64::ANY,
        ) {
            let (low, high) = (a.min(b), a.max(b));
            let units = [Unit::Seconds, Unit::Bytes, Unit::PerSecond];
            for unit in units {
                for scale in [Scale::linear(low, high, unit), Scale::span(low, high), Scale::log([a, b].into_iter())] {
                    prop_assert!((0.0..=1.0).contains(&scale.place(value)), "{scale:?}");
                    let ticks = scale.ticks(unit, 5);
                    prop_assert!(ticks.len() <= 150, "{scale:?}: {}", ticks.len());
                    prop_assert!(ticks.iter().all(|tick| (0.0..=1.0).contains(&tick.place)), "{scale:?}");
                }
            }
        }
    }
}

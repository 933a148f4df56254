//! Scales with round numbers.

/// A linear scale from data to pixels, with its ticks.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axis {
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) ticks: Vec<f64>,
    step: f64,
}

impl Axis {
    /// From the first round number at or below the data to the first at or above, about `n_ticks` in between.
    pub(super) fn rounded(low: f64, high: f64, n_ticks: usize) -> Self {
        let (low, high) = widened(low, high);
        let step = round_step(low, high, n_ticks);
        let (first, last) = ((low / step + SLACK).floor(), (high / step - SLACK).ceil());
        Self::over(first * step, last.max(first + 1.0) * step, step)
    }

    /// Exactly the data's range, with ticks at the round numbers inside.
    pub(super) fn tight(low: f64, high: f64, n_ticks: usize) -> Self {
        let (low, high) = widened(low, high);
        Self::over(low, high, round_step(low, high, n_ticks))
    }

    /// Where a value lies between both ends, 0 to 1.
    pub(super) fn share(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }

    /// A tick's number with the digits its step needs.
    pub(super) fn label(&self, tick: f64) -> String {
        let digits = (-(self.step.log10() + SLACK).floor()).clamp(0.0, 12.0) as usize;
        let text = format!("{tick:.digits$}");
        let (sign, unsigned) = text.strip_prefix('-').map_or(("", text.as_str()), |rest| ("−", rest));
        let (whole, fraction) = unsigned.split_once('.').map_or((unsigned, None), |(w, f)| (w, Some(f)));
        let point = if fraction.is_some() { "." } else { "" };
        let is_zero = unsigned.bytes().all(|digit| matches!(digit, b'0' | b'.'));
        format!("{}{}{point}{}", if is_zero { "" } else { sign }, grouped_digits(whole), fraction.unwrap_or(""))
    }

    fn over(low: f64, high: f64, step: f64) -> Self {
        let first = (low / step - SLACK).ceil() as i64;
        let last = (high / step + SLACK).floor() as i64;
        Self { low, high, ticks: (first..=last).map(|n| n as f64 * step).collect(), step }
    }
}

/// A count with its thousands set apart.
pub(super) fn grouped(count: usize) -> String {
    grouped_digits(&count.to_string())
}

fn grouped_digits(digits: &str) -> String {
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A range whose ends differ by more than rounding: a constant is set amid one of its own magnitude.
fn widened(low: f64, high: f64) -> (f64, f64) {
    let magnitude = low.abs().max(high.abs());
    match high - low > magnitude * SLACK {
        true => (low, high),
        false if magnitude > 0.0 => (low - magnitude / 2.0, low + magnitude / 2.0),
        false => (0.0, 1.0),
    }
}

/// 1, 2 or 5 times a power of ten.
fn round_step(low: f64, high: f64, n_ticks: usize) -> f64 {
    let wanted = (high - low) / n_ticks.max(1) as f64;
    let power = 10f64.powf(wanted.log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|factor| factor * power).find(|&step| step >= wanted).unwrap_or(10.0 * power)
}

/// Rounding of a quotient that stands for a whole number.
const SLACK: f64 = 1e-9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_cover_the_data() {
        let axis = Axis::rounded(383.0, 742.0, 5);
        assert_eq!(axis.ticks, [300.0, 400.0, 500.0, 600.0, 700.0, 800.0]);
        assert_eq!(axis.share(300.0), 0.0);
        assert_eq!(Axis::tight(0.0, 100.0, 5).ticks, [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
    }

    #[test]
    fn labels_have_the_digits_of_their_step() {
        let axis = Axis::rounded(0.0, 1.0, 5);
        assert_eq!(
            axis.ticks.iter().map(|&t| axis.label(t)).collect::<Vec<_>>(),
            ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
        );
        assert_eq!(Axis::rounded(-2000.0, 2000.0, 4).label(-1000.0), "−1,000");
        assert_eq!(Axis::rounded(-1.0, 1.0, 4).label(-0.0), "0.0");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }

    #[test]
    fn a_constant_still_has_a_scale() {
        for value in [0.0, 5.0, -1e9] {
            let axis = Axis::rounded(value, value, 4);
            assert!(axis.low <= value && value <= axis.high && axis.ticks.len() > 1, "{axis:?}");
            assert!((0.0..=1.0).contains(&Axis::tight(value, value, 4).share(value)));
        }
    }
}

//! Medians of rounds, and their confidence.

/// Confidence that the true median lies within the range of so many rounds, whatever their distribution: it does unless
/// all rounds fell on the same side of it. `None` for a single round.
pub(super) fn confidence(rounds: usize) -> Option<f64> {
    (rounds > 1).then(|| 1.0 - 2.0 * 0.5_f64.powi(i32::try_from(rounds).unwrap_or(i32::MAX)))
}

/// Returns the middle value; of an even number, the mean of the two in the middle.
pub(super) fn median(of: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = of.collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = if values.len().is_multiple_of(2) { values[values.len() / 2 - 1] } else { upper };
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0].into_iter()), Some(2.5));
        assert_eq!(median(std::iter::empty()), None);
    }

    #[test]
    fn six_rounds_are_enough_for_95_percent() {
        assert_eq!(confidence(1), None);
        assert!(confidence(5).unwrap() < 0.95 && confidence(6).unwrap() > 0.95);
    }
}

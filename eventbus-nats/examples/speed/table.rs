//! The figures of all rounds, and their goals.

use super::{Role, Workload};

/// Goals of the ratios: at least for the first three, at most for the last.
pub(crate) struct Goals {
    pub(crate) publish: f64,
    pub(crate) consume: f64,
    pub(crate) both: f64,
    pub(crate) p99: f64,
}

/// A bus's figures and a bare client's, round by round.
struct Row {
    name: String,
    goal: (Workload, f64),
    pairs: Vec<(f64, f64)>,
}

/// The results of all rounds.
pub(crate) struct Table {
    goals: Goals,
    rows: Vec<Row>,
}

impl Table {
    pub(crate) fn new(goals: Goals) -> Self {
        Self { goals, rows: Vec::new() }
    }

    /// Notes a workload's figures, of every bus beside every bare client.
    pub(super) fn note(&mut self, (workload, name): (Workload, &str), figures: &[(&str, Role, f64)]) {
        let goal = match workload {
            Workload::Publish => self.goals.publish,
            Workload::Consume => self.goals.consume,
            Workload::Both => self.goals.both,
            Workload::Latency => self.goals.p99,
        };
        let (buses, bare): (Vec<_>, Vec<_>) = figures.iter().partition(|(_, role, _)| *role == Role::Bus);
        for (bus, _, ours) in &buses {
            for (client, _, theirs) in &bare {
                let name = format!("{name}, {bus} / {client}");
                match self.rows.iter_mut().find(|row| row.name == name) {
                    Some(row) => row.pairs.push((*ours, *theirs)),
                    None => {
                        self.rows.push(Row { name, goal: (workload, goal), pairs: vec![(*ours, *theirs)] });
                    }
                }
            }
        }
    }

    pub(crate) fn print(&mut self) {
        self.rows.sort_by_key(|row| row.goal.0 as usize);
        println!("\n{:40} {:>5}  {:6} {:>9} {:>9}", "medians", "ratio", "goal", "bus", "bare");
        for Row { name, goal: (workload, goal), pairs } in &self.rows {
            let ratio = median(pairs.iter().map(|(ours, theirs)| ours / theirs));
            let (ours, theirs) = (median(pairs.iter().map(|pair| pair.0)), median(pairs.iter().map(|pair| pair.1)));
            let (sign, met, unit) = match workload {
                Workload::Latency => ('≤', ratio <= *goal, "µs"),
                _ => ('≥', ratio >= *goal, "k/s"),
            };
            let missed = if met { "" } else { "  missed" };
            println!("{name:40} {ratio:5.2}  {sign} {goal:<4} {ours:9.0} {theirs:9.0} {unit}{missed}");
        }
    }
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

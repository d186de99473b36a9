//! Start of a group, as options take it: `earliest`, `latest`, `position:P=N[,P=N…]`, `time:RFC3339`.

use std::collections::BTreeMap;

use eventbus::{Position, StartFrom};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const EXPECTED: &str = "expected earliest, latest, position:P=N[,P=N...] or time:RFC3339";

pub(crate) fn parse(text: &str) -> Result<StartFrom, String> {
    match text.split_once(':') {
        None if text == "earliest" => Ok(StartFrom::Earliest),
        None if text == "latest" => Ok(StartFrom::Latest),
        Some(("position", positions)) => positions_of(positions),
        Some(("time", time)) => {
            let time = OffsetDateTime::parse(time, &Rfc3339).map_err(|error| format!("time: {error}"))?;
            let millis = u64::try_from(time.unix_timestamp_nanos() / 1_000_000);
            millis.map(StartFrom::Time).map_err(|_| "time: expected one after 1970".to_owned())
        }
        _ => Err(EXPECTED.to_owned()),
    }
}

fn positions_of(text: &str) -> Result<StartFrom, String> {
    let mut positions = BTreeMap::new();
    for pair in text.split(',') {
        let read = pair.split_once('=').and_then(|(partition, position)| {
            Some((partition.trim().parse::<u32>().ok()?, position.trim().parse::<u64>().ok()?))
        });
        let (partition, position) = read.ok_or_else(|| format!("{pair:?}: expected PARTITION=POSITION"))?;
        if positions.insert(partition, Position::new(position)).is_some() {
            return Err(format!("partition {partition} is given twice"));
        }
    }
    Ok(StartFrom::Positions(positions))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_are_read() {
        assert_eq!(parse("earliest"), Ok(StartFrom::Earliest));
        assert_eq!(parse("latest"), Ok(StartFrom::Latest));
        assert_eq!(parse("time:1970-01-01T00:00:01Z"), Ok(StartFrom::Time(1_000)));
        let positions = [(0, Position::new(17)), (3, Position::new(0))].into();
        assert_eq!(parse("position:0=17,3=0"), Ok(StartFrom::Positions(positions)));
    }

    #[test]
    fn other_forms_are_refused() {
        for text in ["", "Earliest", "position:", "position:1", "position:1=2,1=3", "position:-1=2", "time:now", "7"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}

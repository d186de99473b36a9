//! The table from a server's answer to a publish to the record's fate (P2), as one function without state.
//!
//! | answer | fate |
//! |---|---|
//! | an acknowledgement | stored |
//! | the same with `duplicate` | stored, by an earlier send |
//! | 503 without a body | decided by a look at the stream: deleted, never there, JetStream off, leaving, recovering |
//! | limits with `discard=new`, account or server storage, disk full | not stored; may work later |
//! | too many requests, no leader, the same id in work | not stored; may work later |
//! | too large, sealed, another stream, a header that is not allowed, any other 400 | refused |
//! | an expectation that was not met | unknown: the log has to be read |
//! | anything that cannot be read | unknown |
//!
//! The producer decides about records without an answer: silence and a lost connection are unknown; a missing
//! permission comes as an event of the connection and is a refusal, unless the log holds the record.

use async_nats::jetstream::publish::PublishAck;
use eventbus_core::backend::Fate;
use eventbus_core::{Error, ErrorKind, Position};

use crate::connection::read;
use crate::error::{ApiError, Failure};

/// The meaning of an answer.
#[derive(Debug)]
pub(crate) enum Verdict {
    Known(Fate),
    /// No stream took the record: whether the stream exists decides.
    Ask,
}

pub(crate) fn judge(status: Option<u16>, payload: &[u8]) -> Verdict {
    if payload.is_empty() {
        return match status {
            Some(503) => Verdict::Ask,
            _ => Verdict::Known(unknown("the server answered nothing that says what became of the record")),
        };
    }
    if let Some((seq, duplicate)) = plain(payload) {
        return Verdict::Known(Fate::Stored { position: Position::new(seq), duplicate });
    }
    Verdict::Known(match read::<PublishAck>(payload) {
        Err(Failure::Api(error)) => refusal(error),
        Ok(PublishAck { sequence, duplicate, .. }) if sequence > 0 => {
            Fate::Stored { position: Position::new(sequence), duplicate }
        }
        _ => unknown("the server's answer cannot be read"),
    })
}

fn refusal(error: ApiError) -> Fate {
    let ApiError { code, err_code, description } = error;
    let as_kind = |kind| Error::new(kind, description.clone()).with("err_code", err_code);
    match err_code {
        10_054 => Fate::Refused(as_kind(ErrorKind::TooLarge)),
        10_070 | 10_071 => Fate::Unknown(as_kind(ErrorKind::Unknown)),
        10_060 | 10_109 | 10_111 | 10_166 => Fate::Refused(as_kind(ErrorKind::Refused)),
        10_002 | 10_023 | 10_077 | 10_008 | 10_009 | 10_118 | 10_158 | 10_167 => {
            Fate::NotStored(as_kind(ErrorKind::Unavailable))
        }
        _ if code == 400 => Fate::Refused(as_kind(ErrorKind::Refused)),
        _ => Fate::NotStored(as_kind(ErrorKind::Unavailable)),
    }
}

fn unknown(why: &'static str) -> Fate {
    Fate::Unknown(Error::new(ErrorKind::Unknown, why))
}

/// Reads the common acknowledgement by hand: parsing JSON costs as much as all else about one.
fn plain(payload: &[u8]) -> Option<(u64, bool)> {
    let text = std::str::from_utf8(payload).ok()?;
    if !text.starts_with("{\"stream\":") {
        return None;
    }
    let (before, digits) = text.split_once("\"seq\":")?;
    // Anything nested may hold numbers and errors of its own. A mark before the number is not looked for behind it.
    if before[1..].contains(['{', '[']) || before.contains("\"duplicate\"") {
        return None;
    }
    let digits = digits.trim_start();
    let end = digits.find(|c: char| !c.is_ascii_digit())?;
    let (seq, rest) = digits.split_at(end);
    let duplicate = match rest.trim() {
        "}" => false,
        rest if rest.strip_prefix(',').is_some_and(|rest| rest.trim_start() == "\"duplicate\": true}") => true,
        _ => return None,
    };
    seq.parse().ok().filter(|seq| *seq > 0).map(|seq| (seq, duplicate))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fate(payload: &str) -> Fate {
        match judge(None, payload.as_bytes()) {
            Verdict::Known(fate) => fate,
            Verdict::Ask => panic!("nothing to ask: {payload}"),
        }
    }

    fn error(code: u16, err_code: u64) -> String {
        format!(r#"{{"error":{{"code":{code},"err_code":{err_code},"description":"d"}},"stream":"T","seq":0}}"#)
    }

    #[test]
    fn acknowledgements_of_both_servers_are_read_by_hand() {
        for (payload, seq, duplicate) in [
            (r#"{"stream":"T", "seq":1}"#, 1, false),
            (r#"{"stream":"T","seq":18446744073709551615}"#, u64::MAX, false),
            (r#"{"stream":"T", "seq":7,"duplicate": true}"#, 7, true),
            (r#"{"stream":"T", "domain":"hub", "seq":7, "duplicate": true}"#, 7, true),
        ] {
            assert_eq!(plain(payload.as_bytes()), Some((seq, duplicate)), "{payload}");
        }
    }

    #[test]
    fn an_acknowledgement_with_more_in_it_is_still_one() {
        for (payload, duplicate) in [
            (r#"{"seq":5,"stream":"T"}"#, false),
            (r#"{"stream":"T","seq":5,"duplicate":true}"#, true),
            (r#"{"stream":"T","duplicate": true,"seq":5}"#, true),
            (r#"{"stream":"T","seq":5,"val":"1"}"#, false),
        ] {
            let Fate::Stored { position, duplicate: found } = fate(payload) else { panic!("{payload}") };
            assert_eq!((position.get(), found), (5, duplicate), "{payload}");
        }
    }

    #[test]
    fn nobody_there_is_asked_about() {
        assert!(matches!(judge(Some(503), b""), Verdict::Ask));
    }

    #[test]
    fn what_cannot_be_read_is_unknown() {
        for payload in [
            "{",
            "[]",
            "{}",
            r#"{"stream":"T","seq":0}"#,
            "+OK",
            r#"{"stream":"T","seq":-1}"#,
            r#"{"error":{"code":"x"},"stream":"T","seq":7}"#,
        ] {
            assert!(matches!(fate(payload), Fate::Unknown(_)), "{payload}");
        }
        assert!(matches!(judge(Some(200), b""), Verdict::Known(Fate::Unknown(_))));
        assert!(matches!(judge(None, b""), Verdict::Known(Fate::Unknown(_))));
        assert!(matches!(judge(None, &[0xff, 0xfe]), Verdict::Known(Fate::Unknown(_))));
    }

    #[test]
    fn every_error_of_the_server_has_its_fate() {
        // Not stored, and may be later: limits with discard=new, storage of account and server, disk full, too many
        // requests, no leader yet, the same id being worked on.
        for (code, err_code) in
            [(503, 10_077), (400, 10_002), (503, 10_023), (429, 10_167), (503, 10_008), (503, 10_009), (500, 10_118)]
        {
            assert!(matches!(fate(&error(code, err_code)), Fate::NotStored(e) if e.is_retryable()), "{err_code}");
        }
        assert!(matches!(fate(&error(409, 10_158)), Fate::NotStored(_)));
        // An error that nobody knows yet goes by its code, since every error means that the record was not stored.
        assert!(matches!(fate(&error(503, 19_999)), Fate::NotStored(_)));
        assert!(matches!(fate(&error(400, 19_999)), Fate::Refused(_)));
        // Refused for good.
        assert!(matches!(fate(&error(400, 10_054)), Fate::Refused(e) if e.kind() == ErrorKind::TooLarge));
        for (code, err_code) in [(400, 10_060), (400, 10_109), (500, 10_111), (400, 10_166)] {
            assert!(matches!(fate(&error(code, err_code)), Fate::Refused(_)), "{err_code}");
        }
        // Unknown.
        for err_code in [10_070, 10_071] {
            assert!(matches!(fate(&error(400, err_code)), Fate::Unknown(_)), "{err_code}");
        }
    }
}

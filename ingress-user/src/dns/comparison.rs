//! Whether what a resolver has serves the purpose of a record.

use std::fmt;

use serde::Serialize;

use super::publication::{Record, RecordType};

/// A record and what a resolver says of it. Displays as one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    #[serde(flatten)]
    pub record: Record,
    #[serde(flatten)]
    pub state: State,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", content = "found", rename_all = "lowercase")]
pub enum State {
    Ok,
    /// The name has no record of the type.
    Missing,
    /// It has these instead.
    Different(Vec<String>),
    /// Whether it has any is not known, and why.
    Unanswered(String),
}

impl Record {
    /// `found` are the values of all records with its name and type, written as its own.
    pub fn compare(&self, found: Vec<String>) -> State {
        let is_there = match self.kind {
            // Other hosts beside this one, and their order, are the operator's.
            RecordType::Mx => found.iter().any(|value| exchange(value) == exchange(&self.value)),
            // Others are of keys to come, or gone: one that fits is enough (RFC 7671 8.1).
            RecordType::Tlsa => found.contains(&self.value),
            // Other text does not matter; two records of the version count as none (RFC 8461 3.1, RFC 8460 3).
            RecordType::Txt => {
                let version = self.value.split(';').next().unwrap_or_default();
                found.iter().filter(|value| value.starts_with(version)).eq([&self.value])
            }
        };
        match is_there {
            true => State::Ok,
            false if found.is_empty() => State::Missing,
            false => State::Different(found),
        }
    }
}

/// The host of an MX record.
fn exchange(value: &str) -> Option<&str> {
    value.split_whitespace().nth(1)
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { record, state } = self;
        match state {
            State::Ok => write!(f, "ok          {record}"),
            State::Missing => write!(f, "missing     {record}"),
            State::Different(found) => {
                write!(f, "different   {record}: there is {}", found.join(" and "))
            }
            State::Unanswered(reason) => write!(f, "unanswered  {record}: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(kind: RecordType, value: &str, found: &[&str]) -> State {
        let record =
            Record { name: "example.net.".into(), kind, value: value.into(), purpose: "test" };
        record.compare(found.iter().map(|value| (*value).to_owned()).collect())
    }

    fn different(found: &[&str]) -> State {
        State::Different(found.iter().map(|value| (*value).to_owned()).collect())
    }

    #[test]
    fn an_mx_may_have_another_preference_and_stand_beside_others() {
        let found = |found| compare(RecordType::Mx, "10 mx.example.net.", found);
        assert_eq!(found(&["5 backup.example.net.", "20 mx.example.net."]), State::Ok);
        assert_eq!(found(&["10 mx.example.org."]), different(&["10 mx.example.org."]));
        assert_eq!(found(&[]), State::Missing);
    }

    #[test]
    fn a_tlsa_record_of_another_key_does_not_hide_ours() {
        let found = |found| compare(RecordType::Tlsa, "3 1 1 0a", found);
        assert_eq!(found(&["3 1 1 0b", "3 1 1 0a"]), State::Ok);
        assert_eq!(found(&["3 1 1 0b"]), different(&["3 1 1 0b"]));
    }

    #[test]
    fn text_of_other_things_is_passed_over_but_a_second_version_is_not() {
        let found = |found| compare(RecordType::Txt, "v=STSv1; id=1", found);
        assert_eq!(found(&["v=spf1 -all", "v=STSv1; id=1"]), State::Ok);
        let twice = ["v=STSv1; id=0", "v=STSv1; id=1"];
        assert_eq!(found(&twice), different(&twice));
        assert_eq!(found(&["v=spf1 -all"]), different(&["v=spf1 -all"]));
    }

    #[test]
    fn a_finding_is_one_line_and_one_object() {
        let record = Record {
            name: "_mta-sts.example.net.".into(),
            kind: RecordType::Txt,
            value: "v=STSv1; id=1".into(),
            purpose: "test",
        };
        let finding = Finding { record, state: different(&["v=STSv1; id=0"]) };
        assert_eq!(
            finding.to_string(),
            "different   _mta-sts.example.net. IN TXT \"v=STSv1; id=1\": there is v=STSv1; id=0"
        );
        assert_eq!(
            serde_json::to_value(&finding).unwrap(),
            serde_json::json!({
                "name": "_mta-sts.example.net.", "type": "TXT", "value": "v=STSv1; id=1",
                "purpose": "test", "state": "different", "found": ["v=STSv1; id=0"],
            })
        );
    }
}

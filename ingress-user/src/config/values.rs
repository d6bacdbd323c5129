//! Values with a unit, as they stand in the file.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Unexpected, Visitor};
use serde::ser::{Serialize, Serializer};

/// A length of time: `"300s"`, `"5m"`, `"250ms"`. A bare number is refused, because nobody remembers its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DurationText(pub(super) Duration);

/// A number of bytes: an integer, or a string with a binary unit such as `"50MiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size(pub(super) u64);

/// A whole number that counts things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count(pub(super) u64);

/// Which CPUs get a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Workers {
    Auto,
    Count(u64),
    Cpus(Vec<u64>),
}

/// Text, or a list of texts, of which the first form is the short one of the second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum OneOrMore {
    One(String),
    More(Vec<String>),
}

/// Milliseconds of each unit, largest first.
const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Bytes of each unit, largest first.
const SIZE_UNITS: [(&str, u64); 4] =
    [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Splits `"50MiB"` into number and unit and multiplies. `None` for anything else, and for what exceeds 64 bits.
fn parse_with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// Writes `value` in the largest unit that divides it.
fn write_with_unit(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    let fitting = units.iter().find(|(_, factor)| value != 0 && value.is_multiple_of(*factor));
    let (unit, factor) = fitting.or(units.last()).copied().unwrap_or(("", 1));
    write!(f, "{}{unit}", value / factor)
}

impl fmt::Display for DurationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_with_unit(f, u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX), &DURATION_UNITS)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_with_unit(f, self.0, &SIZE_UNITS)
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for DurationText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = DurationText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration with its unit (ms, s, m, h, d), such as \"300s\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<DurationText, E> {
                parse_with_unit(text, &DURATION_UNITS)
                    .map(|millis| DurationText(Duration::from_millis(millis)))
                    .ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(Text)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes, or a size with its unit (B, KiB, MiB, GiB), such as \"50MiB\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                parse_with_unit(text, &SIZE_UNITS)
                    .map(Size)
                    .ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Size, E> {
                whole(number, &self).map(Size)
            }
        }

        deserializer.deserialize_any(Bytes)
    }
}

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;

        impl Visitor<'_> for Number {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Count, E> {
                whole(number, &self).map(Count)
            }
        }

        deserializer.deserialize_any(Number)
    }
}

impl Serialize for Workers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Count(count) => serializer.serialize_u64(*count),
            Self::Cpus(cpus) => cpus.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Workers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Choice;

        impl<'de> Visitor<'de> for Choice {
            type Value = Workers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"auto\", a count, or a list of CPU numbers")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Workers, E> {
                match text {
                    "auto" => Ok(Workers::Auto),
                    _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Workers, E> {
                whole(number, &self).map(Workers::Count)
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Workers, A::Error> {
                let mut cpus = Vec::new();
                while let Some(Count(cpu)) = seq.next_element()? {
                    cpus.push(cpu);
                }
                Ok(Workers::Cpus(cpus))
            }
        }

        deserializer.deserialize_any(Choice)
    }
}

impl Serialize for OneOrMore {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::One(text) => serializer.serialize_str(text),
            Self::More(texts) => texts.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for OneOrMore {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;

        impl<'de> Visitor<'de> for Texts {
            type Value = OneOrMore;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOrMore, E> {
                Ok(OneOrMore::One(text.to_owned()))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<OneOrMore, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = seq.next_element()? {
                    texts.push(text);
                }
                Ok(OneOrMore::More(texts))
            }
        }

        deserializer.deserialize_any(Texts)
    }
}

/// TOML integers are signed; nothing in this file is negative.
fn whole<E: de::Error>(number: i64, expected: &dyn de::Expected) -> Result<u64, E> {
    u64::try_from(number)
        .map_err(|_negative| E::invalid_value(Unexpected::Signed(number), expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_needs_its_unit() {
        let parse = |text| parse_with_unit(text, &DURATION_UNITS);
        assert_eq!(parse("300s"), Some(300_000));
        assert_eq!(parse("5 m"), Some(300_000));
        assert_eq!(parse("250ms"), Some(250));
        for bad in ["300", "", "s", "-1s", "1.5s", "300S", "300sec", "99999999999999999999s"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_size_that_overflows_is_refused() {
        let parse = |text| parse_with_unit(text, &SIZE_UNITS);
        assert_eq!(parse("50MiB"), Some(50 << 20));
        assert_eq!(parse("1B"), Some(1));
        assert_eq!(parse("50MB"), None);
        assert_eq!(parse("18446744073709551615KiB"), None);
    }

    #[test]
    fn values_are_written_in_the_largest_exact_unit() {
        assert_eq!(Size(50 << 20).to_string(), "50MiB");
        assert_eq!(Size(1_500).to_string(), "1500B");
        assert_eq!(Size(0).to_string(), "0B");
        assert_eq!(DurationText(Duration::from_secs(300)).to_string(), "5m");
        assert_eq!(DurationText(Duration::from_millis(1_500)).to_string(), "1500ms");
    }
}

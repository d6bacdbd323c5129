//! The text of a configuration file, and where in it each key stands: errors name the line an operator has to edit.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::error::ConfigError;
use super::file::File;

/// A parsed file. Keys are addressed by dotted paths, array elements by number: `tls.certificates.0.chain`.
pub(super) struct Source<'t> {
    /// As the operator wrote it.
    name: &'t str,
    text: &'t str,
    tree: DeTable<'t>,
}

impl<'t> Source<'t> {
    /// Reads the shape of the file: TOML syntax, known keys, value types.
    pub(super) fn parse(name: &'t str, text: &'t str) -> Result<(Self, File), ConfigError> {
        let tree = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
            file: name.to_owned(),
            line: line_of(text, error.span().map_or(0, |span| span.start)),
            message: error.message().lines().collect::<Vec<_>>().join("; "),
        })?;
        let source = Self { name, text, tree: tree.into_inner() };
        source.sections_are_tables()?;
        let file = toml::from_str(text).map_err(|error| source.shape_error(&error))?;
        Ok((source, file))
    }

    /// An error about the value at `path`, or about its absence.
    pub(super) fn problem(&self, path: &str, expected: impl Into<String>) -> ConfigError {
        let (file, key, expected) = (self.name.to_owned(), self.label(path), expected.into());
        let place = self.locate(path);
        let line = line_of(self.text, place.at);
        match place.value {
            Some(span) => {
                ConfigError::Value { file, line, key, value: self.excerpt(span), expected }
            }
            None => ConfigError::Missing { file, line, key, expected },
        }
    }

    pub(super) fn contains(&self, path: &str) -> bool {
        self.locate(path).value.is_some()
    }

    /// Turns serde's message into ours: it knows the span and the expectation, not the key.
    fn shape_error(&self, error: &toml::de::Error) -> ConfigError {
        let at = error.span().map_or(0, |span| span.start);
        let path = path_at(&self.tree, at).unwrap_or_default();
        let message = error.message();
        let expected = message.split_once("expected ").map_or(message, |(_, expected)| expected);
        if message.starts_with("unknown field") {
            // Of a dotted key or header only the first unknown part is to blame.
            let name = message.split('`').nth(1).unwrap_or_default();
            let path = path_through(&path, name);
            return ConfigError::UnknownKey {
                file: self.name.to_owned(),
                line: line_of(self.text, at),
                key: self.label(path),
                expected: expected_keys(name, expected),
            };
        }
        let expected = match expected {
            "a sequence" if path == "listener" => "[[listener]] sections",
            "a sequence" => "a list",
            "wanted string or table" => "a string",
            other => other,
        };
        self.problem(&path, expected.replace('`', "\""))
    }

    /// Serde would fill a section from a list too, value by value in the order of the keys.
    fn sections_are_tables(&self) -> Result<(), ConfigError> {
        for (key, value) in &self.tree {
            let name = key.get_ref();
            match value.get_ref() {
                DeValue::Array(list) if name == "listener" => {
                    self.elements_are_tables(name, list)?
                }
                DeValue::Array(_) if name != "workers" => {
                    return Err(self.problem(name, format!("one [{name}] section")));
                }
                DeValue::Table(table) if name == "tls" || name == "mta_sts" => {
                    let certificates = table.get("certificates").map(Spanned::get_ref);
                    if let Some(DeValue::Array(list)) = certificates {
                        self.elements_are_tables(&format!("{name}.certificates"), list)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn elements_are_tables(&self, path: &str, list: &DeArray<'_>) -> Result<(), ConfigError> {
        match list.iter().position(|element| !element.get_ref().is_table()) {
            Some(index) => Err(self.problem(&format!("{path}.{index}"), "a table")),
            None => Ok(()),
        }
    }

    /// The path as an operator reads it: `[limits] idle_timeout`, `[tls] certificates[0].chain`, `hostname`.
    fn label(&self, path: &str) -> String {
        let (first, rest) = path.split_once('.').unwrap_or((path, ""));
        let is_list = matches!(self.tree.get(first).map(Spanned::get_ref), Some(DeValue::Array(_)));
        let mut label = match rest.is_empty() {
            true => return first.to_owned(),
            false if first == "listener" => "[[listener]]".to_owned(),
            false if is_list => first.to_owned(),
            false => format!("[{first}]"),
        };
        let in_section = label.starts_with('[');
        for (depth, step) in rest.split('.').enumerate() {
            match step.parse::<usize>() {
                // Which of the listeners is said by the line.
                Ok(_) if depth == 0 && first == "listener" => {}
                Ok(index) => label.push_str(&format!("[{index}]")),
                Err(_) => {
                    let space = in_section && label.ends_with(']') && !label.contains(' ');
                    label.push(if space { ' ' } else { '.' });
                    label.push_str(step);
                }
            }
        }
        label
    }

    /// Follows `path` as far as it exists.
    fn locate(&self, path: &str) -> Place {
        let mut steps = path.split('.');
        let first = steps.next().unwrap_or_default();
        let Some((key, mut value)) = self.tree.get_key_value(first) else {
            return Place { at: 0, value: None };
        };
        let mut at = key.span().start;
        for step in steps {
            match value.get_ref() {
                DeValue::Table(table) => match table.get_key_value(step) {
                    Some((key, next)) => (at, value) = (key.span().start, next),
                    None => return Place { at, value: None },
                },
                DeValue::Array(list) => {
                    match step.parse::<usize>().ok().and_then(|index| list.get(index)) {
                        Some(next) => (at, value) = (next.span().start, next),
                        None => return Place { at, value: None },
                    }
                }
                _ => return Place { at, value: None },
            }
        }
        Place { at, value: Some(value.span()) }
    }

    /// The value as written, cut to what fits in a line.
    fn excerpt(&self, span: Range<usize>) -> String {
        const CHARS_MAX: usize = 60;
        let written = self.text.get(span).unwrap_or_default();
        let line = written.split_whitespace().collect::<Vec<_>>().join(" ");
        match line.char_indices().nth(CHARS_MAX) {
            Some((end, _)) => format!("{} ...", &line[..end]),
            None => line,
        }
    }
}

struct Place {
    /// Byte offset of the key, or of the nearest thing around it.
    at: usize,
    /// `None`: the key is not in the file.
    value: Option<Range<usize>>,
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

/// The beginning of `path` that ends with the step `name`; all of it if there is none.
fn path_through<'p>(path: &'p str, name: &str) -> &'p str {
    let ends = path.match_indices('.').map(|(at, _)| at).chain([path.len()]);
    let through = ends.map(|end| &path[..end]).find(|part| part.rsplit('.').next() == Some(name));
    through.unwrap_or(path)
}

/// The deepest key whose name or value covers byte `at`.
fn path_at(table: &DeTable<'_>, at: usize) -> Option<String> {
    table.iter().find_map(|(key, value)| {
        let name = key.get_ref();
        match path_in_value(value, at) {
            Some(below) if below.is_empty() => Some(name.to_string()),
            Some(below) => Some(format!("{name}.{below}")),
            None => key.span().contains(&at).then(|| name.to_string()),
        }
    })
}

/// As [`path_at`], from a value down; empty for the value itself. A section's span is its header alone, so what is below
/// is asked first.
fn path_in_value(value: &Spanned<DeValue<'_>>, at: usize) -> Option<String> {
    let below = match value.get_ref() {
        DeValue::Table(table) => path_at(table, at),
        DeValue::Array(list) => list.iter().enumerate().find_map(|(index, element)| {
            let below = path_in_value(element, at)?;
            Some(if below.is_empty() { index.to_string() } else { format!("{index}.{below}") })
        }),
        _ => None,
    };
    below.or_else(|| value.span().contains(&at).then(String::new))
}

/// From serde's "one of `a`, `b`": the nearest name first, then all of them.
fn expected_keys(given: &str, expected: &str) -> String {
    let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    let nearest = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(given, name), *name))
        .min()
        .filter(|(distance, name)| *distance <= name.len() / 3);
    let list = match known.len() {
        0 | 1 => known.join(""),
        _ => format!("one of {}", known.join(", ")),
    };
    match nearest {
        Some((_, name)) => format!("{list} (did you mean {name}?)"),
        None => list,
    }
}

//! Reads the files in `tests/packets`; the format is in their README.md.

use std::fs;
use std::path::{Path, PathBuf};

use ingress_ebpf::abi::Verdict;
use ingress_user::xdp::Action;

use crate::setup::Setup;

/// A packet and what becomes of it.
#[derive(Debug)]
pub(crate) struct Packet {
    /// `FILE:LINE: TITLE`.
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) setup: Setup,
    /// The host has all of the packet at hand, the program only its beginning, and they judge differently.
    pub(crate) is_for_kernel_alone: bool,
    pub(crate) octets: Vec<u8>,
    /// Names of the layers and the offsets at which they begin.
    pub(crate) layers: Vec<(String, usize)>,
    /// As it is handed on, where it is not what came.
    pub(crate) out: Option<Vec<u8>>,
    pub(crate) action: Action,
    pub(crate) verdict: Verdict,
}

impl Packet {
    pub(crate) fn handed_on(&self) -> &[u8] {
        self.out.as_ref().unwrap_or(&self.octets)
    }

    /// Where the layer of this name begins.
    pub(crate) fn offset_of(&self, layer: &str) -> Option<usize> {
        self.layers.iter().find(|(name, _)| name == layer).map(|(_, offset)| *offset)
    }
}

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/packets")
}

/// The files, in the order of their names.
pub(crate) fn files() -> Vec<PathBuf> {
    let entries = fs::read_dir(folder()).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|end| end == "packets")).collect();
    files.sort();
    files
}

/// All packets of all files. Panics with the file and the line of what is wrong.
pub(crate) fn packets() -> Vec<Packet> {
    let mut packets = Vec::new();
    for path in files() {
        let file = path.file_name().unwrap().to_string_lossy();
        let text = fs::read_to_string(&path).unwrap();
        packets.extend(parse(&file, &text).unwrap_or_else(|error| panic!("{error}")));
    }
    packets
}

/// The packets of one file.
///
/// # Errors
/// Begins with `FILE:LINE: `.
pub(crate) fn parse(file: &str, text: &str) -> Result<Vec<Packet>, String> {
    let mut packets = Vec::new();
    let mut draft: Option<Draft> = None;
    for (line, number) in text.lines().zip(1..) {
        let at = |error| format!("{file}:{number}: {error}");
        // A comment goes to the end of its line.
        let line = line.split_once('#').map_or(line, |(before, _)| before).trim_end();
        if line.is_empty() {
            continue;
        }
        if let Some(title) = line.strip_prefix("== ") {
            if let Some(unfinished) = &draft {
                return Err(at(format!("`{}` has no `expect:`", unfinished.title)));
            }
            draft = Some(Draft::new(format!("{file}:{number}"), title));
            continue;
        }
        let Some(open) = &mut draft else {
            return Err(at("expected `== TITLE`".to_owned()));
        };
        if let Some(expected) = line.strip_prefix("expect: ") {
            packets.push(open.finish(expected).map_err(at)?);
            draft = None;
        } else {
            open.add(line).map_err(at)?;
        }
    }
    match draft {
        Some(unfinished) => Err(format!("{}: has no `expect:`", unfinished.place)),
        None => Ok(packets),
    }
}

/// A packet of which not all lines were read.
#[derive(Default)]
struct Draft {
    place: String,
    title: String,
    setup: Option<Setup>,
    is_for_kernel_alone: bool,
    octets: Vec<u8>,
    layers: Vec<(String, usize)>,
    out: Option<Vec<u8>>,
}

impl Draft {
    fn new(place: String, title: &str) -> Self {
        Self { place, title: title.to_owned(), ..Self::default() }
    }

    fn add(&mut self, line: &str) -> Result<(), String> {
        if let Some(words) = line.strip_prefix("setup: ") {
            if self.setup.replace(words.parse()?).is_some() {
                return Err("a second `setup:`".to_owned());
            }
        } else if self.setup.is_none() {
            return Err("expected `setup: WORDS`".to_owned());
        } else if line == "only: kernel" {
            self.is_for_kernel_alone = true;
        } else if line == "out:" {
            if self.out.replace(Vec::new()).is_some() {
                return Err("a second `out:`".to_owned());
            }
        } else {
            self.add_layer(line)?;
        }
        Ok(())
    }

    /// `NAME OCTETS ...`.
    fn add_layer(&mut self, line: &str) -> Result<(), String> {
        let mut words = line.split_ascii_whitespace();
        let name = words.next().unwrap_or_default();
        if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
            return Err(format!("`{name}` is no name of a layer"));
        }
        let octets = match &mut self.out {
            Some(out) => out,
            None => {
                self.layers.push((name.to_owned(), self.octets.len()));
                &mut self.octets
            }
        };
        let before = octets.len();
        for word in words {
            octets.extend(parse_octets(word)?);
        }
        if octets.len() == before { Err(format!("`{name}` has no octets")) } else { Ok(()) }
    }

    /// `ACTION, VERDICT`.
    fn finish(&mut self, expected: &str) -> Result<Packet, String> {
        let draft = std::mem::take(self);
        let (action, verdict) = expected.split_once(", ").ok_or("expected `ACTION, VERDICT`")?;
        let action = match action {
            "pass" => Action::Pass,
            "redirect" => Action::Redirect,
            "drop" => Action::Drop,
            _ => return Err(format!("`{action}` is none of pass, redirect and drop")),
        };
        let verdict = Verdict::ALL.into_iter().find(|known| known.name() == verdict);
        let Some(setup) = draft.setup else { return Err("expected `setup: WORDS`".to_owned()) };
        if draft.octets.len() < FRAME_BYTES_MIN {
            return Err(format!("fewer than {FRAME_BYTES_MIN} octets"));
        }
        Ok(Packet {
            name: format!("{}: {}", draft.place, draft.title),
            title: draft.title,
            setup,
            is_for_kernel_alone: draft.is_for_kernel_alone,
            octets: draft.octets,
            layers: draft.layers,
            out: draft.out,
            action,
            verdict: verdict.ok_or_else(|| format!("`{expected}` ends with no verdict"))?,
        })
    }
}

/// The test run refuses what is shorter than an Ethernet header.
pub(crate) const FRAME_BYTES_MIN: usize = 14;

fn parse_octets(word: &str) -> Result<Vec<u8>, String> {
    octets_of(word).ok_or_else(|| format!("`{word}` is neither HEX nor HEX*COUNT"))
}

/// `HEX`, or `HEX*COUNT` for the same so many times.
fn octets_of(word: &str) -> Option<Vec<u8>> {
    let (digits, count) = word.split_once('*').unwrap_or((word, "1"));
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) || digits.len() % 2 != 0 {
        return None;
    }
    let octet = |at| u8::from_str_radix(&digits[at..at + 2], 16).ok();
    let octets: Vec<u8> = (0..digits.len()).step_by(2).map(octet).collect::<Option<_>>()?;
    Some(octets.repeat(count.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: &str = "\
        # a file\n\
        == a packet\n\
        setup: drop steered # as usual\n\
        eth  020000000001 020000000002 0806\n\
        arp  00*3 ff01\n\
        expect: pass, not_ours\n";

    #[test]
    fn octets_are_those_of_all_layers_without_comments() {
        let [packet] = &parse("f", PACKET).unwrap()[..] else { panic!("one packet") };
        let expected = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 6, 0, 0, 0, 0xff, 1];
        assert_eq!(packet.octets, expected);
        assert_eq!(packet.handed_on(), expected);
        assert_eq!(packet.offset_of("arp"), Some(14));
        assert_eq!(packet.name, "f:2: a packet");
    }

    #[test]
    fn what_is_handed_on_may_be_another_packet() {
        let text = PACKET.replace("expect", "out:\neth 0102\nexpect");
        let [packet] = &parse("f", &text).unwrap()[..] else { panic!("one packet") };
        assert_eq!((packet.octets.len(), packet.handed_on()), (19, &[1, 2][..]));
    }

    #[test]
    fn an_error_names_its_file_and_line() {
        let wrong = [
            ("== a packet", "", "f:3: expected `== TITLE`"),
            ("setup: drop", "set: drop", "f:3: expected `setup: WORDS`"),
            ("drop steered", "dropped", "f:3: `dropped` is no word of a set-up"),
            ("eth ", "Eth ", "f:4: `Eth` is no name of a layer"),
            ("0806", "086", "f:4: `086` is neither HEX nor HEX*COUNT"),
            ("00*3 ff01", "00*", "f:5: `00*` is neither HEX nor HEX*COUNT"),
            ("00*3 ff01", "", "f:5: `arp` has no octets"),
            ("000001 020000000002 0806", "", "f:6: fewer than 14 octets"),
            ("pass,", "passed,", "f:6: `passed` is none of pass, redirect and drop"),
            ("not_ours", "ours", "f:6: `pass, ours` ends with no verdict"),
            ("expect: pass, not_ours\n", "", "f:2: has no `expect:`"),
            ("expect: pass, not_ours\n", "== b\n", "f:6: `a packet` has no `expect:`"),
        ];
        for (right, wrong, error) in wrong {
            let text = PACKET.replacen(right, wrong, 1);
            assert_eq!(parse("f", &text).map(|packets| packets.len()), Err(error.to_owned()));
        }
    }
}

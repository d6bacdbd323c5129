//! The lines of a file, one by one.

use std::fmt;
use std::sync::Arc;

use ingress_user::smtp::reply::{Closing, LocalFault};
use ingress_user::spool::{BodyEncoding, QueueId};

use super::{Dialogue, Fault, Message, ReplyLine, Step, Turn, escape};
use crate::dialogue;

/// The dialogues in the text of one file.
pub fn parse(file: &str, text: &str, preludes: &[Dialogue]) -> Result<Vec<Dialogue>, Fault> {
    let mut reader =
        Reader { file, preludes, dialogues: Vec::new(), turn_ended: true, owes_octets: false };
    for (number, line) in (1..).zip(text.lines()) {
        let fault = |what| Fault { file: file.to_owned(), line: number, what };
        reader.read(number, line).map_err(fault)?;
    }
    let fault = |what| Fault { file: file.to_owned(), line: text.lines().count(), what };
    reader.check_last().map_err(fault)?;
    Ok(reader.dialogues)
}

struct Reader<'a> {
    file: &'a str,
    preludes: &'a [Dialogue],
    dialogues: Vec<Dialogue>,
    /// The next `C` line begins a turn of its own.
    turn_ended: bool,
    /// The last turn is a message whose octets have not been given yet.
    owes_octets: bool,
}

impl Reader<'_> {
    fn read(&mut self, number: usize, line: &str) -> Result<(), String> {
        if line.ends_with([' ', '\t']) {
            return Err("a blank at the end of a line cannot be seen; write \\x20".to_owned());
        }
        if line.is_empty() {
            self.turn_ended = true;
            return Ok(());
        }
        if line.starts_with('#') {
            return Ok(());
        }
        if let Some(title) = line.strip_prefix("== ") {
            return self.begin(title);
        }
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "C:" => self.client(number, &[&escape::undo(rest)?[..], b"\r\n"].concat()),
            "C|" => self.client(number, &escape::undo(rest)?),
            "S:" | "S=" => self.reply(number, rest, word == "S="),
            "M:" => self.message_octets(&[&escape::undo(rest)?[..], b"\r\n"].concat()),
            "M|" => self.message_octets(&escape::undo(rest)?),
            "E:" => self.envelope_line(rest),
            "set" => self.set(rest),
            "use" => self.include(number, rest),
            "only" => self.manner(line),
            _ => {
                let turn = parse_turn(line)?;
                self.push(number, turn)
            }
        }
    }

    fn begin(&mut self, title: &str) -> Result<(), String> {
        self.check_last()?;
        if self.dialogues.iter().any(|dialogue| dialogue.title == title) {
            return Err(format!("there is a dialogue {title:?} in this file already"));
        }
        self.turn_ended = true;
        self.dialogues.push(Dialogue {
            file: self.file.to_owned(),
            title: title.to_owned(),
            settings: Arc::new(dialogue::settings()),
            only_whole: false,
            steps: Vec::new(),
        });
        Ok(())
    }

    fn current(&mut self) -> Result<&mut Dialogue, String> {
        self.dialogues.last_mut().ok_or_else(|| "a dialogue begins with == TITLE".to_owned())
    }

    fn last_turn(&mut self) -> Option<&mut Turn> {
        Some(&mut self.dialogues.last_mut()?.steps.last_mut()?.turn)
    }

    /// What the dialogue so far owes: the rest of a reply, the octets of a message, or any turn at all.
    fn check_last(&mut self) -> Result<(), String> {
        self.check_complete()?;
        match self.dialogues.last() {
            Some(last) if last.steps.is_empty() => {
                Err(format!("the dialogue {:?} has no turns", last.title))
            }
            _ => Ok(()),
        }
    }

    fn check_complete(&mut self) -> Result<(), String> {
        if self.owes_octets {
            return Err("the message before this has no M line".to_owned());
        }
        match self.last_turn() {
            Some(Turn::Reply(lines)) if lines.last().is_some_and(ReplyLine::continues) => {
                Err("the reply before this has no last line".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn push(&mut self, line: usize, turn: Turn) -> Result<(), String> {
        self.check_complete()?;
        self.owes_octets = matches!(turn, Turn::Message(_));
        self.current()?.steps.push(Step { line, turn });
        Ok(())
    }

    /// `C` lines without a blank line or anything else between them are one turn.
    fn client(&mut self, number: usize, octets: &[u8]) -> Result<(), String> {
        let turn_ended = std::mem::take(&mut self.turn_ended);
        match self.last_turn() {
            Some(Turn::Client(before)) if !turn_ended => before.extend_from_slice(octets),
            _ => self.push(number, Turn::Client(octets.to_vec()))?,
        }
        Ok(())
    }

    fn reply(&mut self, number: usize, text: &str, exact: bool) -> Result<(), String> {
        let code = text.as_bytes().get(..3).is_some_and(|code| code.iter().all(u8::is_ascii_digit));
        if !code || !matches!(text.as_bytes().get(3), None | Some(b' ' | b'-')) {
            return Err("a reply is a code of three digits, alone or with text".to_owned());
        }
        let line = ReplyLine { text: text.to_owned(), exact };
        match self.last_turn() {
            Some(Turn::Reply(lines)) if lines.last().is_some_and(ReplyLine::continues) => {
                lines.push(line);
                Ok(())
            }
            _ => self.push(number, Turn::Reply(vec![line])),
        }
    }

    fn message_octets(&mut self, octets: &[u8]) -> Result<(), String> {
        self.owes_octets = false;
        match self.last_turn() {
            Some(Turn::Message(message)) => message.octets.extend_from_slice(octets),
            _ => return Err("M stands behind a message line".to_owned()),
        }
        Ok(())
    }

    fn envelope_line(&mut self, text: &str) -> Result<(), String> {
        let value = escape::undo(text)?;
        let value = String::from_utf8(value).map_err(|_invalid| "not UTF-8".to_owned())?;
        let (name, value) = value.split_once('=').ok_or("E takes NAME=VALUE")?;
        let known = dialogue::SUMMARY_NAMES;
        if !known.contains(&name) {
            return Err(format!("an envelope has no {name:?}; it has {}", known.join(", ")));
        }
        match self.last_turn() {
            Some(Turn::Message(message)) => {
                message.envelope.push((name.to_owned(), value.to_owned()));
                Ok(())
            }
            _ => Err("E stands behind a message line".to_owned()),
        }
    }

    fn set(&mut self, text: &str) -> Result<(), String> {
        let (name, value) = text.split_once(' ').ok_or("set takes a name and a value")?;
        let dialogue = self.before_the_first_turn()?;
        let settings = Arc::get_mut(&mut dialogue.settings).ok_or("the settings are in use")?;
        dialogue::set(settings, name, value)
    }

    fn manner(&mut self, line: &str) -> Result<(), String> {
        let dialogue = self.before_the_first_turn()?;
        match line {
            "only whole" => dialogue.only_whole = true,
            _ => return Err(unknown(line)),
        }
        Ok(())
    }

    fn before_the_first_turn(&mut self) -> Result<&mut Dialogue, String> {
        let dialogue = self.current()?;
        match dialogue.steps.is_empty() {
            true => Ok(dialogue),
            false => Err("this stands before the first turn".to_owned()),
        }
    }

    fn include(&mut self, number: usize, name: &str) -> Result<(), String> {
        let mut preludes = self.preludes.iter();
        let prelude = preludes
            .find(|prelude| prelude.title == name)
            .ok_or_else(|| format!("there is no prelude {name:?}"))?;
        for step in &prelude.steps {
            self.push(number, step.turn.clone())?;
        }
        self.turn_ended = true;
        Ok(())
    }
}

/// A turn that is one line of its own.
fn parse_turn(line: &str) -> Result<Turn, String> {
    let words: Vec<&str> = line.split(' ').collect();
    Ok(match words.as_slice() {
        ["silence"] => Turn::Silence,
        ["message", "DATA"] => Turn::Message(Message::new(BodyEncoding::DotStuffed)),
        ["message", "BDAT"] => Turn::Message(Message::new(BodyEncoding::Verbatim)),
        ["sloppy", "message", "DATA"] => {
            Turn::Message(Message::new(BodyEncoding::SloppyDotStuffed))
        }
        ["sloppy", "message", "BDAT"] => Turn::Message(Message::new(BodyEncoding::SloppyVerbatim)),
        ["commit", "ok"] => Turn::Stored,
        ["commit", fault] => Turn::Refused(local_fault(fault)?),
        ["submit", id] => Turn::Submitted(queue_id(id)?),
        ["commit", id, "ok"] => Turn::Answered(queue_id(id)?, Ok(())),
        ["commit", id, fault] => Turn::Answered(queue_id(id)?, Err(local_fault(fault)?)),
        ["no", "room"] => Turn::NoRoom,
        ["tls"] => Turn::Tls,
        ["admit", client] => {
            Turn::Admit(client.parse().map_err(|_invalid| format!("{client:?} is no IP address"))?)
        }
        ["wait", time] => Turn::Wait(dialogue::seconds(time)?),
        ["close", why] => Turn::Close(closing(why)?),
        ["closed"] => Turn::Closed,
        _ => return Err(unknown(line)),
    })
}

impl Message {
    fn new(encoding: BodyEncoding) -> Self {
        Self { encoding, octets: Vec::new(), envelope: Vec::new() }
    }
}

fn unknown(line: &str) -> String {
    format!("{line:?} is no line of a dialogue; tests/dialogues/README.md lists them")
}

fn queue_id(text: &str) -> Result<QueueId, String> {
    text.parse().map(QueueId).map_err(|_invalid| format!("{text:?} is no number"))
}

fn local_fault(name: &str) -> Result<LocalFault, String> {
    use LocalFault::{NoBuffers, SpoolBusy, SpoolFull, SpoolPoisoned};
    named(name, [NoBuffers, SpoolBusy, SpoolFull, SpoolPoisoned])
}

fn closing(name: &str) -> Result<Closing, String> {
    use Closing::{Banned, ShuttingDown, TooManyConnections, TooManyConnectionsOfClient};
    named(name, [Banned, ShuttingDown, TooManyConnections, TooManyConnectionsOfClient])
}

/// The one of `values` that is written like this in the code.
fn named<T: fmt::Debug, const N: usize>(name: &str, values: [T; N]) -> Result<T, String> {
    let names = values.each_ref().map(|value| format!("{value:?}")).join(", ");
    let mut values = values.into_iter();
    values
        .find(|value| format!("{value:?}") == name)
        .ok_or_else(|| format!("{name:?} is none of {names}"))
}

#[cfg(test)]
mod tests {
    use ingress_user::smtp::session::Tls;

    use super::*;

    fn one(text: &str) -> Dialogue {
        let mut dialogues = parse("a.dialogue", text, &[]).unwrap();
        assert_eq!(dialogues.len(), 1);
        dialogues.remove(0)
    }

    fn fault_in(text: &str) -> String {
        parse("a.dialogue", text, &[]).unwrap_err().to_string()
    }

    #[test]
    fn client_lines_are_one_turn_until_a_blank_line() {
        let turns = one("== a\nC: NOOP\n# why\nC| NO\n\nC: OP\n").steps;
        let turns: Vec<_> = turns.iter().map(|step| (step.line, &step.turn)).collect();
        let [(2, Turn::Client(first)), (6, Turn::Client(second))] = turns.as_slice() else {
            panic!("{turns:?}");
        };
        assert_eq!((&first[..], &second[..]), (&b"NOOP\r\nNO"[..], &b"OP\r\n"[..]));
    }

    #[test]
    fn a_reply_has_its_lines_and_the_next_reply_its_own() {
        let turns = one("== a\nS: 250-a\nS= 250 b\nS: 354\n").steps;
        let replies: Vec<_> = turns
            .iter()
            .map(|step| match &step.turn {
                Turn::Reply(lines) => lines.iter().map(|l| (&*l.text, l.exact)).collect::<Vec<_>>(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(replies, [vec![("250-a", false), ("250 b", true)], vec![("354", false)]]);
    }

    #[test]
    fn a_message_has_octets_and_an_envelope() {
        let dialogue = one("== a\nmessage BDAT\nE: from=<\"a\\\\b\"@c>\nM: x\nM| .\\n\n");
        let Turn::Message(message) = &dialogue.steps[0].turn else { panic!("{dialogue:?}") };
        assert_eq!(message.encoding, BodyEncoding::Verbatim);
        assert_eq!(message.octets, b"x\r\n.\n");
        assert_eq!(message.envelope, [("from".to_owned(), "<\"a\\b\"@c>".to_owned())]);
    }

    #[test]
    fn a_prelude_brings_its_turns_under_the_line_of_its_use() {
        let preludes = parse("preludes", "== hello\nS: 220\nC: EHLO x\nS: 250\n", &[]).unwrap();
        let dialogues = parse("a.dialogue", "== a\nuse hello\nC: NOOP\n", &preludes).unwrap();
        let lines: Vec<_> = dialogues[0].steps.iter().map(|step| step.line).collect();
        assert_eq!(lines, [2, 2, 2, 3]);
        let unknown = parse("a.dialogue", "== a\nuse goodbye\n", &preludes).unwrap_err();
        assert_eq!(unknown.to_string(), "a.dialogue:2: there is no prelude \"goodbye\"");
    }

    #[test]
    fn settings_and_manner_stand_before_the_turns() {
        let dialogue = one("== a\nset errors_max 7\nonly whole\nset tls implicit\ntls\n");
        assert_eq!(dialogue.settings.errors_max, 7);
        assert!(dialogue.only_whole && dialogue.settings.tls == Tls::Implicit);
        assert!(matches!(dialogue.steps[0].turn, Turn::Tls));
        for line in ["set errors_max 7", "only whole"] {
            let fault = fault_in(&format!("== a\nS: 220\n{line}\n"));
            assert_eq!(fault, "a.dialogue:3: this stands before the first turn");
        }
    }

    #[test]
    fn what_is_not_understood_is_named_with_its_line() {
        for (text, line, word) in [
            ("C: NOOP\n", 1, "== TITLE"),
            ("== a\nCC: NOOP\n", 2, "no line of a dialogue"),
            ("== a\nC:NOOP\n", 2, "no line of a dialogue"),
            ("== a\n C: NOOP\n", 2, "no line of a dialogue"),
            ("== a\nsilence please\n", 2, "no line of a dialogue"),
            ("== a\nmessage\n", 2, "no line of a dialogue"),
            ("== a\nonly octets\n", 2, "no line of a dialogue"),
            ("== a\nC: NOOP \n", 2, "blank at the end"),
            ("== a\nC: \\q\n", 2, "\\q"),
            ("== a\nS: ok\n", 2, "three digits"),
            ("== a\nS: 2500\n", 2, "three digits"),
            ("== a\nS: 250-a\nC: NOOP\n", 3, "no last line"),
            ("== a\nS: 250-a\n", 2, "no last line"),
            ("== a\nM: x\n", 2, "behind a message"),
            ("== a\nE: from=<>\n", 2, "behind a message"),
            ("== a\nmessage DATA\nclosed\n", 3, "no M line"),
            ("== a\nmessage DATA\nE: sender=<>\n", 3, "no \"sender\""),
            ("== a\nset colour red\n", 2, "no setting \"colour\""),
            ("== a\nset errors_max many\n", 2, "many"),
            ("== a\nwait 5\n", 2, "seconds"),
            ("== a\nset tls maybe\n", 2, "none of off, starttls, implicit"),
            ("== a\nadmit localhost\n", 2, "no IP address"),
            ("== a\ncommit Spoolfull\n", 2, "none of NoBuffers, SpoolBusy, SpoolFull"),
            ("== a\ncommit one ok\n", 2, "no number"),
            ("== a\nclose Timeout\n", 2, "none of"),
            ("== a\nclosed\n== a\n", 3, "already"),
            ("== a\n== b\nclosed\n", 2, "no turns"),
            ("== a\n", 1, "no turns"),
        ] {
            let fault = fault_in(text);
            let place = format!("a.dialogue:{line}: ");
            assert!(fault.starts_with(&place) && fault.contains(word), "{text:?}: {fault}");
        }
    }
}

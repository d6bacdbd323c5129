//! Reads dialogues from files. The format is described in `tests/dialogues/README.md`.
//!
//! The reader is strict: what it does not understand is a fault with file and line, never a turn that is left out.

mod escape;
mod reader;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ingress_user::smtp::Settings;
use ingress_user::smtp::reply::{Closing, LocalFault};
use ingress_user::spool::{BodyEncoding, QueueId};

pub use reader::parse;

/// One dialogue as it stands in a file.
#[derive(Debug, Clone)]
pub struct Dialogue {
    pub file: String,
    pub title: String,
    pub settings: Arc<Settings>,
    /// TLS comes before the greeting.
    pub tls_first: bool,
    /// Played whole alone, because its turns are about what came in one receive.
    pub only_whole: bool,
    pub steps: Vec<Step>,
}

/// A turn, and the line of the file that it begins on. What a prelude holds has the line of its `use`.
#[derive(Debug, Clone)]
pub struct Step {
    pub line: usize,
    pub turn: Turn,
}

#[derive(Debug, Clone)]
pub enum Turn {
    /// The client sends these octets.
    Client(Vec<u8>),
    /// The server has sent this reply.
    Reply(Vec<ReplyLine>),
    /// The server has sent nothing more.
    Silence,
    /// The session asked for this message to be made durable.
    Message(Message),
    /// The spool takes the message, and says that it is durable.
    Stored,
    /// The spool does not take the message.
    Refused(LocalFault),
    /// The spool has taken the message and has not answered yet.
    Submitted(QueueId),
    /// The spool answers for a message submitted before.
    Answered(QueueId, Result<(), LocalFault>),
    /// The driver has no memory for more of the message that is being received.
    NoRoom,
    /// The session asked for a TLS handshake, and it is through.
    Tls,
    /// The clock moves; deadlines on the way fire.
    Wait(Duration),
    /// The server ends the connection.
    Close(Closing),
    /// The session is over.
    Closed,
}

/// What one line of a reply is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyLine {
    pub text: String,
    /// All of the line, not only how it begins.
    pub exact: bool,
}

impl ReplyLine {
    /// Whether another line of the same reply follows (RFC 5321 4.2.1).
    fn continues(&self) -> bool {
        self.text.as_bytes().get(3) == Some(&b'-')
    }
}

#[derive(Debug, Clone)]
pub struct Message {
    pub encoding: BodyEncoding,
    /// Its octets in wire form.
    pub octets: Vec<u8>,
    /// What the envelope says, as [`summary`](crate::dialogue::summary) puts it. What is not named is not looked at.
    pub envelope: Vec<(String, String)>,
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub file: String,
    pub line: usize,
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

impl std::error::Error for Fault {}

/// What every file begins with.
const TOPIC: &str = "# Topic: ";

/// Where the dialogues are.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dialogues")
}

/// All dialogues of all files in `folder`, in the order of the files' names.
pub fn load(folder: &Path) -> anyhow::Result<Vec<Dialogue>> {
    let preludes = parse("preludes", &fs::read_to_string(folder.join("preludes"))?, &[])?;
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "dialogue"));
    files.sort();
    let mut all = Vec::new();
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let text = fs::read_to_string(&file)?;
        if !text.starts_with(TOPIC) {
            let what = format!("a file begins with {TOPIC:?}");
            return Err(Fault { file: name.into_owned(), line: 1, what }.into());
        }
        all.extend(parse(&name, &text, &preludes)?);
    }
    Ok(all)
}

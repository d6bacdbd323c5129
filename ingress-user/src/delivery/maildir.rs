//! Delivery into a Maildir: one drop for the host behind, one file for each message.
//!
//! A message with many recipients is one file, not one for each: this is an edge server's drop, and who reads it next splits
//! by recipient. The file begins with what the envelope said, then comes the trace, then the message:
//!
//! ```text
//! Return-Path: <sender@example.org>          RFC 5321 4.4: made at final delivery
//! X-Ingress-Mail: RET=HDRS ENVID=QQ314159    where the sender gave such parameters (RFC 3461)
//! Delivered-To: recipient@example.net        once for each recipient
//! X-Ingress-Rcpt: NOTIFY=NEVER               of the recipient before it, where it had such parameters
//! Received: ...
//! ```
//!
//! Lines end in CRLF, as they arrived. Maildirs usually have LF, but then a message could not come back octet by octet: a
//! lone LF would be indistinguishable from a line end.
//!
//! # Never lost, and hardly ever twice
//!
//! The spool delivers at least once: after a crash a message may come again that was already here. The file's name is
//! therefore made only from what the record says of itself, so a repetition renames over the same file in `new/` and
//! changes nothing, unless a reader has meanwhile moved it to `cur/`. Two different records never share a name: beside time
//! and queue id it has the record's [discriminator](crate::spool::Message::discriminator). Left-overs in `tmp/` are
//! overwritten the same way.
//!
//! A batch is written and synced file by file, all are renamed, and one sync of `new/` makes them durable; only then are
//! they released from the spool.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{DeliverError, Outcome};
use crate::smtp::envelope::{Envelope, Notify, Ret};
use crate::spool::{Message, ReadError, Reader, RecordRef, sync_directory};

/// Octets of host name in a file name; NAME_MAX is 255 for all of it.
const HOST_BYTES_MAX: usize = 100;

/// Trace and the pieces of a dot-stuffed body are small; the file should not be written line by line.
const WRITE_BUFFER_BYTES: usize = 64 << 10;

/// A Maildir that exists.
#[derive(Debug)]
pub(super) struct Maildir {
    tmp: PathBuf,
    new: PathBuf,
    /// The host's name as file names have it.
    host: String,
}

impl Maildir {
    /// Creates what is missing, readable by the daemon's user only.
    pub(super) fn open(path: &Path, hostname: &str) -> io::Result<Self> {
        for folder in ["tmp", "new", "cur"] {
            DirBuilder::new().recursive(true).mode(0o700).create(path.join(folder))?;
        }
        sync_directory(path)?;
        Ok(Self { tmp: path.join("tmp"), new: path.join("new"), host: sanitized(hostname) })
    }

    /// Delivers what can be delivered of `records`.
    pub(super) fn deliver(&self, records: Vec<RecordRef>, reader: &Reader) -> Outcome {
        let mut outcome = Outcome::default();
        for record in records {
            match self.deliver_one(&record, reader) {
                Ok(()) => outcome.delivered.push(record),
                Err(error) => outcome.fail(record, error),
            }
        }
        if !outcome.delivered.is_empty()
            && let Err(error) = sync_directory(&self.new)
        {
            // None of the names is sure to survive: all are delivered again, over the same files.
            tracing::warn!(folder = %self.new.display(), %error, "cannot sync the Maildir");
            outcome.deferred.append(&mut outcome.delivered);
        }
        outcome
    }

    fn deliver_one(&self, record: &RecordRef, reader: &Reader) -> Result<(), DeliverError> {
        let message = reader.open(record)?;
        let name = self.file_name(&message);
        let tmp = self.tmp.join(&name);
        let result =
            write_file(&tmp, &message).and_then(|()| Ok(fs::rename(&tmp, self.new.join(&name))?));
        if result.is_err() {
            // Best effort: a later attempt overwrites it.
            let _ = fs::remove_file(&tmp);
        }
        result
    }

    /// Seconds, then fields with a letter each as the Maildir convention has them: M the microseconds, R a number that no
    /// other record has, Q the queue id.
    fn file_name(&self, message: &Message) -> String {
        let accepted_at = message.accepted_at();
        let (seconds, micros) = (accepted_at / 1_000_000, accepted_at % 1_000_000);
        let (discriminator, id) = (message.discriminator(), message.id());
        format!("{seconds}.M{micros:06}R{discriminator:08x}Q{id}.{}", self.host)
    }
}

fn write_file(path: &Path, message: &Message) -> Result<(), DeliverError> {
    let file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
    let mut output = BufWriter::with_capacity(WRITE_BUFFER_BYTES, file);
    write_head(message.envelope(), &mut output)?;
    output.write_all(message.trace())?;
    message.copy_to(&mut output)?;
    let file: File = output.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok(())
}

/// Addresses come from SMTP commands and hold no line end, so no recipient can add a header line.
fn write_head(envelope: &Envelope, output: &mut impl Write) -> io::Result<()> {
    write!(output, "Return-Path: <{}>\r\n", envelope.reverse_path())?;
    let ret = envelope.ret.map(|ret| match ret {
        Ret::Full => "RET=FULL".to_owned(),
        Ret::Headers => "RET=HDRS".to_owned(),
    });
    let id = envelope.envelope_id().map(|id| format!("ENVID={id}"));
    write_parameters("X-Ingress-Mail", [ret, id], output)?;
    for recipient in envelope.recipients() {
        write!(output, "Delivered-To: {}\r\n", recipient.path)?;
        let notify = (recipient.notify != Notify::UNSPECIFIED)
            .then(|| format!("NOTIFY={}", recipient.notify));
        let original = recipient.original.map(|original| format!("ORCPT={original}"));
        write_parameters("X-Ingress-Rcpt", [notify, original], output)?;
    }
    Ok(())
}

/// A header field with those of the two parameters that were given; no field where none was.
fn write_parameters(
    field: &str,
    parameters: [Option<String>; 2],
    output: &mut impl Write,
) -> io::Result<()> {
    let given: Vec<String> = parameters.into_iter().flatten().collect();
    if given.is_empty() { Ok(()) } else { write!(output, "{field}: {}\r\n", given.join(" ")) }
}

/// `/` and `:` are written as the Maildir convention has it; nothing else that could trouble a file name is kept.
fn sanitized(hostname: &str) -> String {
    let mut host = String::new();
    for character in hostname.chars() {
        match character {
            '/' => host.push_str("\\057"),
            ':' => host.push_str("\\072"),
            plain if plain.is_ascii_alphanumeric() || "-._".contains(plain) => host.push(plain),
            _ => host.push('_'),
        }
    }
    host.truncate(HOST_BYTES_MAX);
    host
}

impl From<ReadError> for DeliverError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Damaged { .. } | ReadError::Envelope { .. } => Self::Unreadable(error),
            ReadError::Io { .. } => Self::Spool(error),
            ReadError::Output(error) => Self::Output(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_never_leaves_the_folder_nor_ends_the_unique_part() {
        assert_eq!(sanitized("mx1.example.net"), "mx1.example.net");
        assert_eq!(sanitized("../a:b c"), "..\\057a\\072b_c");
        assert_eq!(sanitized(&"a".repeat(300)).len(), HOST_BYTES_MAX);
    }
}

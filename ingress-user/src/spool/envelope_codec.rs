//! The envelope as tag, length, value. A reader that meets a tag it does not know skips it if the tag says so, else
//! refuses the record: an older daemon never delivers a message whose conditions it does not understand.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::record::Fields;
use crate::smtp::envelope::{BodyType, Envelope, Notify, Protocol, Recipient, Ret};

/// Set in a tag: who does not know it may skip it.
const OPTIONAL: u8 = 0x80;

const REVERSE_PATH: u8 = 1;
const RECIPIENT: u8 = 2;
const CLIENT: u8 = 3;
const HELO: u8 = 4;
const PROTOCOL: u8 = 5;
const BODY: u8 = 6;
/// No value. Who does not know it could send the message where UTF-8 is not understood.
const SMTPUTF8: u8 = 7;
/// No value. Who does not know it could send the message in clear.
const REQUIRETLS: u8 = 8;
const RET: u8 = 9;
const ENVELOPE_ID: u8 = 10;
/// Of the recipient before it.
const NOTIFY: u8 = 11;
/// Of the recipient before it.
const ORIGINAL_RECIPIENT: u8 = 12;
/// Only shown, so it may be skipped.
const CLIENT_NAME: u8 = OPTIONAL | 1;

/// Tag octet and 32 bits of length.
const PREFIX_BYTES: u64 = 5;

/// Why octets that carry the right checksum are no envelope to this version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    #[error("it ends within a field")]
    Cut,
    #[error("field {0} is of a kind this version must understand but does not")]
    UnknownField(u8),
    #[error("field {0} has a value this version does not know")]
    UnknownValue(u8),
    #[error("field {0} is missing")]
    Missing(u8),
}

pub(super) fn encoded_bytes(envelope: &Envelope) -> u64 {
    let mut bytes = 0;
    fields(envelope, |_, value| bytes += PREFIX_BYTES + value.len() as u64);
    bytes
}

pub(super) fn encode(envelope: &Envelope, out: &mut Vec<u8>) {
    fields(envelope, |tag, value| put(tag, value, out));
}

/// Hands out every field in the order of the record.
fn fields(envelope: &Envelope, mut field: impl FnMut(u8, &[u8])) {
    field(REVERSE_PATH, envelope.reverse_path().as_bytes());
    for recipient in envelope.recipients() {
        field(RECIPIENT, recipient.path.as_bytes());
        if recipient.notify != Notify::UNSPECIFIED {
            field(NOTIFY, &[recipient.notify.bits()]);
        }
        if let Some(original) = recipient.original {
            field(ORIGINAL_RECIPIENT, original.as_bytes());
        }
    }
    match envelope.client {
        IpAddr::V4(address) => field(CLIENT, &address.octets()),
        IpAddr::V6(address) => field(CLIENT, &address.octets()),
    }
    field(HELO, envelope.helo().as_bytes());
    if envelope.smtputf8 {
        field(SMTPUTF8, &[]);
    }
    if envelope.requiretls {
        field(REQUIRETLS, &[]);
    }
    if let Some(ret) = envelope.ret {
        field(RET, &[code_of(ret, &RETS)]);
    }
    if let Some(id) = envelope.envelope_id() {
        field(ENVELOPE_ID, id.as_bytes());
    }
    if let Some(name) = envelope.client_name() {
        field(CLIENT_NAME, name.as_bytes());
    }
    // Mandatory ones last: an envelope that is cut short lacks one.
    field(PROTOCOL, &[code_of(envelope.protocol, &PROTOCOLS)]);
    field(BODY, &[code_of(envelope.body, &BODIES)]);
}

/// Values by the octet that stands for them: their position.
const PROTOCOLS: [Protocol; 5] =
    [Protocol::Smtp, Protocol::Esmtp, Protocol::Esmtps, Protocol::Lmtp, Protocol::Lmtps];
const BODIES: [BodyType; 3] = [BodyType::SevenBit, BodyType::EightBitMime, BodyType::BinaryMime];
const RETS: [Ret; 2] = [Ret::Full, Ret::Headers];

fn code_of<T: PartialEq>(value: T, values: &[T]) -> u8 {
    // Every value is in its list: the test of all values would fail else.
    values.iter().position(|known| *known == value).unwrap_or(usize::from(u8::MAX)) as u8
}

fn value_of<T: Copy>(tag: u8, code: &[u8], values: &[T]) -> Result<T, EnvelopeError> {
    match code {
        [code] => values.get(usize::from(*code)).copied(),
        _ => None,
    }
    .ok_or(EnvelopeError::UnknownValue(tag))
}

fn put(tag: u8, value: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    // A value is one address or name out of one command line, which `command_line_bytes_max` keeps far below 4 GiB.
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(value);
}

pub(super) fn decode(bytes: &[u8]) -> Result<Envelope, EnvelopeError> {
    let mut fields = Fields(bytes);
    let mut envelope = Envelope::default();
    let mut recipient = None;
    let mut seen = Vec::new();
    while let Some([tag]) = fields.take::<1>() {
        let length = fields.number32().ok_or(EnvelopeError::Cut)?;
        let value = fields.slice(length as usize).ok_or(EnvelopeError::Cut)?;
        seen.push(tag);
        match tag {
            RECIPIENT => {
                let path = text(tag, value)?;
                let next = Recipient { path, notify: Notify::UNSPECIFIED, original: None };
                recipient.replace(next).into_iter().for_each(|done| envelope.add_recipient(done));
            }
            NOTIFY => {
                of_recipient(tag, &mut recipient)?.notify = notify_of(value)?;
            }
            ORIGINAL_RECIPIENT => {
                of_recipient(tag, &mut recipient)?.original = Some(text(tag, value)?);
            }
            _ => decode_field(tag, value, &mut envelope)?,
        }
    }
    recipient.into_iter().for_each(|last| envelope.add_recipient(last));
    match MANDATORY.into_iter().find(|tag| !seen.contains(tag)) {
        None => Ok(envelope),
        Some(missing) => Err(EnvelopeError::Missing(missing)),
    }
}

const MANDATORY: [u8; 6] = [REVERSE_PATH, RECIPIENT, CLIENT, HELO, PROTOCOL, BODY];

/// A field that is not a recipient's.
fn decode_field(tag: u8, value: &[u8], envelope: &mut Envelope) -> Result<(), EnvelopeError> {
    match tag {
        REVERSE_PATH => envelope.set_reverse_path(text(tag, value)?),
        CLIENT => envelope.client = address(value)?,
        HELO => envelope.set_helo(text(tag, value)?),
        PROTOCOL => envelope.protocol = value_of(tag, value, &PROTOCOLS)?,
        BODY => envelope.body = value_of(tag, value, &BODIES)?,
        SMTPUTF8 => envelope.smtputf8 = true,
        REQUIRETLS => envelope.requiretls = true,
        RET => envelope.ret = Some(value_of(tag, value, &RETS)?),
        ENVELOPE_ID => envelope.set_envelope_id(Some(text(tag, value)?)),
        CLIENT_NAME => envelope.set_client_name(Some(text(tag, value)?)),
        unknown if unknown & OPTIONAL != 0 => {}
        unknown => return Err(EnvelopeError::UnknownField(unknown)),
    }
    Ok(())
}

fn of_recipient<'r, 'v>(
    tag: u8,
    recipient: &'r mut Option<Recipient<'v>>,
) -> Result<&'r mut Recipient<'v>, EnvelopeError> {
    recipient.as_mut().ok_or(EnvelopeError::UnknownValue(tag))
}

fn notify_of(value: &[u8]) -> Result<Notify, EnvelopeError> {
    match value {
        [bits] => Notify::from_bits(*bits),
        _ => None,
    }
    .ok_or(EnvelopeError::UnknownValue(NOTIFY))
}

fn text(tag: u8, value: &[u8]) -> Result<&str, EnvelopeError> {
    std::str::from_utf8(value).ok().ok_or(EnvelopeError::UnknownValue(tag))
}

fn address(value: &[u8]) -> Result<IpAddr, EnvelopeError> {
    let v4 = || <[u8; 4]>::try_from(value).map(|octets| Ipv4Addr::from(octets).into()).ok();
    let v6 = || <[u8; 16]>::try_from(value).map(|octets| Ipv6Addr::from(octets).into()).ok();
    v4().or_else(v6).ok_or(EnvelopeError::UnknownValue(CLIENT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn recipient(path: &str) -> Recipient<'_> {
        Recipient { path, notify: Notify::UNSPECIFIED, original: None }
    }

    fn envelope() -> Envelope {
        let mut envelope = Envelope::new("2001:db8::1".parse().unwrap());
        envelope.add_recipient(recipient("a@example.net"));
        envelope.add_recipient(Recipient {
            notify: Notify::NEVER,
            original: Some("rfc822;b+2Bx@example.net"),
            ..recipient("b@example.net")
        });
        envelope.set_helo("client.example");
        envelope.set_envelope_id(Some("QQ314159"));
        envelope.set_client_name(Some("mail.example.org"));
        envelope.protocol = Protocol::Esmtps;
        envelope.body = BodyType::EightBitMime;
        envelope.smtputf8 = true;
        envelope.requiretls = true;
        envelope.ret = Some(Ret::Headers);
        envelope
    }

    fn encoded() -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(&envelope(), &mut bytes);
        bytes
    }

    #[test]
    fn an_envelope_survives_and_its_length_is_foretold() {
        assert_eq!(encoded().len() as u64, encoded_bytes(&envelope()));
        assert_eq!(decode(&encoded()), Ok(envelope()));
    }

    #[test]
    fn every_protocol_body_and_ret_survives() {
        for protocol in PROTOCOLS {
            for body in BODIES {
                for ret in RETS {
                    let mut envelope = envelope();
                    (envelope.protocol, envelope.body, envelope.ret) = (protocol, body, Some(ret));
                    let mut bytes = Vec::new();
                    encode(&envelope, &mut bytes);
                    assert_eq!(decode(&bytes), Ok(envelope));
                }
            }
        }
    }

    #[test]
    fn a_recipients_field_without_recipient_is_refused() {
        let mut bytes = Vec::new();
        put(NOTIFY, &[8], &mut bytes);
        bytes.extend(encoded());
        assert_eq!(decode(&bytes), Err(EnvelopeError::UnknownValue(NOTIFY)));
    }

    #[test]
    fn an_unknown_optional_field_is_skipped_and_an_unknown_other_one_refused() {
        let mut bytes = encoded();
        put(0x90, b"later", &mut bytes);
        assert_eq!(decode(&bytes), Ok(envelope()));
        put(0x10, b"later", &mut bytes);
        assert_eq!(decode(&bytes), Err(EnvelopeError::UnknownField(0x10)));
    }

    #[test]
    fn no_cut_of_an_envelope_is_one_with_other_recipients() {
        let bytes = encoded();
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end]).is_err(), "cut at {end}");
        }
    }

    proptest! {
        #[test]
        fn any_octets_are_decoded_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn any_envelope_survives(
            path in "\\PC{0,40}",
            recipients in prop::collection::vec("\\PC{1,40}", 1..5),
            client in any::<IpAddr>(),
        ) {
            let mut envelope = Envelope::new(client);
            envelope.set_reverse_path(&path);
            recipients.iter().for_each(|path| envelope.add_recipient(recipient(path)));
            let mut bytes = Vec::new();
            encode(&envelope, &mut bytes);
            prop_assert_eq!(bytes.len() as u64, encoded_bytes(&envelope));
            prop_assert_eq!(decode(&bytes), Ok(envelope));
        }
    }
}

//! The envelope as tag, length, value. A reader that meets a tag it does not know skips it if the tag says so, else
//! refuses the record: an older daemon never delivers a message whose conditions it does not understand.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::record::Fields;
use crate::smtp::envelope::{BodyType, Envelope, Protocol};

/// Set in a tag: who does not know it may skip it.
const OPTIONAL: u8 = 0x80;

const REVERSE_PATH: u8 = 1;
const RECIPIENT: u8 = 2;
const CLIENT: u8 = 3;
const HELO: u8 = 4;
const PROTOCOL: u8 = 5;
const BODY: u8 = 6;

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
    let client_bytes = match envelope.client {
        IpAddr::V4(_) => 4,
        IpAddr::V6(_) => 16,
    };
    let recipients: u64 = envelope.recipients.iter().map(|r| PREFIX_BYTES + r.len() as u64).sum();
    // Reverse path, client, helo, protocol and body beside the recipients; the last two are one octet each.
    5 * PREFIX_BYTES
        + envelope.reverse_path.len() as u64
        + client_bytes
        + envelope.helo.len() as u64
        + 2
        + recipients
}

pub(super) fn encode(envelope: &Envelope, out: &mut Vec<u8>) {
    put(REVERSE_PATH, envelope.reverse_path.as_bytes(), out);
    for recipient in &envelope.recipients {
        put(RECIPIENT, recipient.as_bytes(), out);
    }
    match envelope.client {
        IpAddr::V4(address) => put(CLIENT, &address.octets(), out),
        IpAddr::V6(address) => put(CLIENT, &address.octets(), out),
    }
    put(HELO, envelope.helo.as_bytes(), out);
    let protocol = match envelope.protocol {
        Protocol::Smtp => 0,
        Protocol::Esmtp => 1,
        Protocol::Esmtps => 2,
    };
    put(PROTOCOL, &[protocol], out);
    let body = match envelope.body {
        BodyType::SevenBit => 0,
        BodyType::EightBitMime => 1,
        BodyType::BinaryMime => 2,
    };
    put(BODY, &[body], out);
}

fn put(tag: u8, value: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    // A value is one address or name out of one command line, which `command_line_bytes_max` keeps far below 4 GiB.
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(value);
}

pub(super) fn decode(bytes: &[u8]) -> Result<Envelope, EnvelopeError> {
    let mut fields = Fields(bytes);
    let mut recipients = Vec::new();
    let (mut reverse_path, mut client, mut helo) = (None, None, None);
    let (mut protocol, mut body) = (None, None);
    while let Some([tag]) = fields.take::<1>() {
        let length = fields.number32().ok_or(EnvelopeError::Cut)?;
        let value = fields.slice(length as usize).ok_or(EnvelopeError::Cut)?;
        match tag {
            REVERSE_PATH => reverse_path = Some(text(tag, value)?),
            RECIPIENT => recipients.push(text(tag, value)?),
            CLIENT => client = Some(address(value)?),
            HELO => helo = Some(text(tag, value)?),
            PROTOCOL => protocol = Some(protocol_of(value)?),
            BODY => body = Some(body_of(value)?),
            unknown if unknown & OPTIONAL != 0 => {}
            unknown => return Err(EnvelopeError::UnknownField(unknown)),
        }
    }
    if recipients.is_empty() {
        return Err(EnvelopeError::Missing(RECIPIENT));
    }
    Ok(Envelope {
        reverse_path: reverse_path.ok_or(EnvelopeError::Missing(REVERSE_PATH))?,
        recipients,
        client: client.ok_or(EnvelopeError::Missing(CLIENT))?,
        helo: helo.ok_or(EnvelopeError::Missing(HELO))?,
        protocol: protocol.ok_or(EnvelopeError::Missing(PROTOCOL))?,
        body: body.ok_or(EnvelopeError::Missing(BODY))?,
    })
}

fn text(tag: u8, value: &[u8]) -> Result<Box<str>, EnvelopeError> {
    std::str::from_utf8(value).map(Box::from).ok().ok_or(EnvelopeError::UnknownValue(tag))
}

fn address(value: &[u8]) -> Result<IpAddr, EnvelopeError> {
    let v4 = || <[u8; 4]>::try_from(value).map(|octets| Ipv4Addr::from(octets).into()).ok();
    let v6 = || <[u8; 16]>::try_from(value).map(|octets| Ipv6Addr::from(octets).into()).ok();
    v4().or_else(v6).ok_or(EnvelopeError::UnknownValue(CLIENT))
}

fn protocol_of(value: &[u8]) -> Result<Protocol, EnvelopeError> {
    match value {
        [0] => Ok(Protocol::Smtp),
        [1] => Ok(Protocol::Esmtp),
        [2] => Ok(Protocol::Esmtps),
        _ => Err(EnvelopeError::UnknownValue(PROTOCOL)),
    }
}

fn body_of(value: &[u8]) -> Result<BodyType, EnvelopeError> {
    match value {
        [0] => Ok(BodyType::SevenBit),
        [1] => Ok(BodyType::EightBitMime),
        [2] => Ok(BodyType::BinaryMime),
        _ => Err(EnvelopeError::UnknownValue(BODY)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn envelope() -> Envelope {
        Envelope {
            reverse_path: "".into(),
            recipients: vec!["a@example.net".into(), "b@example.net".into()],
            client: "2001:db8::1".parse().unwrap(),
            helo: "client.example".into(),
            protocol: Protocol::Esmtps,
            body: BodyType::EightBitMime,
        }
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
            let envelope = Envelope {
                reverse_path: path.into(),
                recipients: recipients.into_iter().map(Into::into).collect(),
                client,
                ..envelope()
            };
            let mut bytes = Vec::new();
            encode(&envelope, &mut bytes);
            prop_assert_eq!(bytes.len() as u64, encoded_bytes(&envelope));
            prop_assert_eq!(decode(&bytes), Ok(envelope));
        }
    }
}

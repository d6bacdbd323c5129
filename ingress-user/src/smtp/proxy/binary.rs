//! Version 2: sixteen octets, a block of addresses, and TLVs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Parsed, ProxyError, Source};

/// The longest header that is taken, TLVs included. The specification lets it grow to 64 KiB and asks senders to stay
/// below 536 octets, one small segment; this leaves room for names and a client certificate's details, and bounds what is
/// kept of a connection before anybody knows whose it is.
pub const HEADER_BYTES_MAX: usize = 4_096;

const SIGNATURE: [u8; 12] =
    [0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A];
/// Signature, version and command, family and transport, length of the rest.
const FIXED_BYTES: usize = 16;
/// Type and length of a TLV.
const TLV_HEAD_BYTES: usize = 3;
const TLV_CRC32C: u8 = 0x03;

pub(super) fn parse(input: &[u8]) -> Result<Parsed, ProxyError> {
    let begun = input.get(..SIGNATURE.len()).unwrap_or(input);
    if !SIGNATURE.starts_with(begun) {
        return Err(ProxyError::no_header(input));
    }
    let rest = input.get(SIGNATURE.len()..).unwrap_or_default();
    let Some((&version_and_command, rest)) = rest.split_first() else {
        return Ok(Parsed::Incomplete);
    };
    let command = command(version_and_command)?;
    let Some((&family_and_transport, rest)) = rest.split_first() else {
        return Ok(Parsed::Incomplete);
    };
    let block = Block::new(command, family_and_transport)?;
    let Some(length) = rest_length(rest, block)? else {
        return Ok(Parsed::Incomplete);
    };
    let header_bytes = FIXED_BYTES + length;
    let header = input.get(..header_bytes);
    let checksum = match block {
        Block::Ignored => None,
        _ => {
            let begun = header.unwrap_or(input);
            find_checksum(begun, FIXED_BYTES + block.bytes(), header_bytes)?
        }
    };
    let Some(header) = header else {
        return Ok(Parsed::Incomplete);
    };
    if let Some(at) = checksum {
        verify_checksum(header, at)?;
    }
    let addresses = header.get(FIXED_BYTES..).unwrap_or_default();
    Ok(Parsed::Complete { header_bytes, source: block.source(addresses) })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    /// The balancer speaks for itself.
    Local,
    Proxy,
}

fn command(version_and_command: u8) -> Result<Command, ProxyError> {
    match (version_and_command >> 4, version_and_command & 0x0F) {
        (2, 0) => Ok(Command::Local),
        (2, 1) => Ok(Command::Proxy),
        (2, other) => Err(ProxyError::Command(other)),
        (version, _) => Err(ProxyError::Version(version)),
    }
}

/// What stands behind the fixed part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    /// Nothing that means anything here, of no known shape: LOCAL, or a family that is not specified. Not even TLVs are
    /// looked for, since nobody says where they begin.
    Ignored,
    Inet,
    Inet6,
    /// Paths of Unix sockets: no client on the network.
    Unix,
}

impl Block {
    fn new(command: Command, family_and_transport: u8) -> Result<Self, ProxyError> {
        match (command, family_and_transport) {
            // LOCAL: the family is to be ignored, whatever it says.
            (Command::Local, _) => Ok(Self::Ignored),
            (Command::Proxy, 0x00..=0x02) => Ok(Self::Ignored),
            (Command::Proxy, 0x11) => Ok(Self::Inet),
            (Command::Proxy, 0x21) => Ok(Self::Inet6),
            (Command::Proxy, 0x31..=0x32) => Ok(Self::Unix),
            (Command::Proxy, other) => Err(ProxyError::Transport(other)),
        }
    }

    /// Two addresses; two ports of 2 octets.
    fn bytes(self) -> usize {
        match self {
            Self::Ignored => 0,
            Self::Inet => 2 * 4 + 2 * 2,
            Self::Inet6 => 2 * 16 + 2 * 2,
            Self::Unix => 2 * 108,
        }
    }

    /// Reads the source out of a block of at least [`bytes`](Self::bytes).
    fn source(self, addresses: &[u8]) -> Source {
        let source = match self {
            Self::Ignored | Self::Unix => None,
            Self::Inet => addresses.first_chunk().map(|&[a, b, c, d, _, _, _, _, high, low]| {
                (IpAddr::from(Ipv4Addr::new(a, b, c, d)), [high, low])
            }),
            Self::Inet6 => addresses.first_chunk::<16>().and_then(|&address| {
                let port = addresses.get(32..)?.first_chunk::<2>()?;
                Some((IpAddr::from(Ipv6Addr::from(address)), *port))
            }),
        };
        source.map_or(Source::Local, |(address, port)| {
            let port = u16::from_be_bytes(port);
            Source::Conveyed(SocketAddr::new(address.to_canonical(), port))
        })
    }
}

/// The length field at the start of `rest`; `None` if it has not come whole.
fn rest_length(rest: &[u8], block: Block) -> Result<Option<usize>, ProxyError> {
    let Some(&high) = rest.first() else {
        return Ok(None);
    };
    let low = rest.get(1).copied();
    let length = u16::from_be_bytes([high, low.unwrap_or(0)]).into();
    if FIXED_BYTES + length > HEADER_BYTES_MAX {
        return Err(ProxyError::HeaderTooLong);
    }
    let needed = block.bytes();
    if low.is_some() && length < needed {
        return Err(ProxyError::AddressesTooShort { length, needed });
    }
    Ok(low.map(|_| length))
}

/// Walks the TLVs from octet `at` of a header as far as it has come: `begun` of `header_bytes`. Returns where the value
/// of the CRC-32C stands, if one has come.
fn find_checksum(
    begun: &[u8],
    mut at: usize,
    header_bytes: usize,
) -> Result<Option<usize>, ProxyError> {
    let mut checksum = None;
    while at < header_bytes {
        if at + TLV_HEAD_BYTES > header_bytes {
            return Err(ProxyError::TlvTooLong { at });
        }
        let tlv = begun.get(at..).unwrap_or_default();
        let Some((&kind, length)) = tlv.split_first() else {
            break;
        };
        if kind == TLV_CRC32C && checksum.is_some() {
            return Err(ProxyError::ChecksumShape { at });
        }
        let Some(&high) = length.first() else {
            break;
        };
        let low = length.get(1).copied();
        let length = usize::from(u16::from_be_bytes([high, low.unwrap_or(0)]));
        let value = at + TLV_HEAD_BYTES;
        if value + length > header_bytes {
            return Err(ProxyError::TlvTooLong { at });
        }
        if kind == TLV_CRC32C && (high != 0 || low.is_some_and(|low| low != 4)) {
            return Err(ProxyError::ChecksumShape { at });
        }
        if low.is_none() {
            break;
        }
        if kind == TLV_CRC32C {
            checksum = Some(value);
        }
        at = value + length;
    }
    Ok(checksum)
}

/// Section 2.2.3: the sum is over the whole header with zeros in the place of the sum itself.
fn verify_checksum(header: &[u8], at: usize) -> Result<(), ProxyError> {
    let (before, rest) = header.split_at_checked(at).unwrap_or((header, &[]));
    let Some((carried, after)) = rest.split_first_chunk() else {
        return Err(ProxyError::TlvTooLong { at });
    };
    let carried = u32::from_be_bytes(*carried);
    let computed = [&[0; 4], after]
        .iter()
        .fold(crc32c::crc32c(before), |sum, octets| crc32c::crc32c_append(sum, octets));
    match carried == computed {
        true => Ok(()),
        false => Err(ProxyError::Checksum { carried, computed }),
    }
}

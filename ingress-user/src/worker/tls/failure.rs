//! Why a connection's TLS ended in an error.

use rustls::Error;
use rustls::error::{AlertDescription, PeerMisbehaved};

use crate::tls::verdict::Ending;

/// The TLS of a connection broke. Whatever alert belongs to it has been appended to the output.
#[derive(Debug, thiserror::Error)]
pub enum TlsFailure {
    #[error("{0}")]
    Library(Error),
    /// Under TLS 1.2; TLS 1.3 has none.
    #[error("the client asked for a renegotiation")]
    Renegotiation,
    #[error("the client asked for new keys more often than {0} times")]
    KeyUpdates(u16),
}

/// What broke TLS after the handshake, for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsBreak {
    /// The client asked for a renegotiation: it could be made to pay for handshakes without an end.
    Renegotiation,
    /// Key updates without an end.
    KeyUpdates,
    /// Records without content, one after another.
    EmptyRecords,
    /// The client sent an alert.
    Alert,
    /// A record that is none, does not decrypt, or comes out of turn.
    Protocol,
}

impl TlsBreak {
    pub const ALL: [Self; 5] =
        [Self::Renegotiation, Self::KeyUpdates, Self::EmptyRecords, Self::Alert, Self::Protocol];

    /// As metrics and the log have it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Renegotiation => "renegotiation",
            Self::KeyUpdates => "key_updates",
            Self::EmptyRecords => "empty_records",
            Self::Alert => "alert",
            Self::Protocol => "protocol",
        }
    }
}

impl TlsFailure {
    /// Who ended it, by what the library says.
    pub fn ending(&self) -> Ending {
        match self {
            Self::Library(Error::AlertReceived(alert)) => Ending::AlertReceived((*alert).into()),
            _ => Ending::WeRefused,
        }
    }

    /// The alert that was sent for it, by its number.
    pub fn alert_sent(&self) -> Option<u8> {
        match self {
            Self::Library(error) => AlertDescription::try_from(error).ok().map(u8::from),
            Self::Renegotiation | Self::KeyUpdates(_) => None,
        }
    }

    /// What it is, for a connection whose handshake was through.
    pub fn kind(&self) -> TlsBreak {
        match self {
            Self::Renegotiation => TlsBreak::Renegotiation,
            Self::KeyUpdates(_) => TlsBreak::KeyUpdates,
            Self::Library(Error::AlertReceived(_)) => TlsBreak::Alert,
            Self::Library(Error::PeerMisbehaved(misbehaved)) => match misbehaved {
                PeerMisbehaved::TooManyEmptyFragments | PeerMisbehaved::EmptyFragment => {
                    TlsBreak::EmptyRecords
                }
                // The library allows so many in a row.
                PeerMisbehaved::TooManyConsecutiveHandshakeMessagesAfterHandshake => {
                    TlsBreak::KeyUpdates
                }
                PeerMisbehaved::TooManyRenegotiationRequests => TlsBreak::Renegotiation,
                _ => TlsBreak::Protocol,
            },
            Self::Library(_) => TlsBreak::Protocol,
        }
    }
}

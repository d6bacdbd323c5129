//! Which of the two languages a listener speaks.

use serde::{Deserialize, Serialize};

/// SMTP, or its sibling without a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// RFC 5321: one reply to a message, whatever its number of recipients.
    Smtp,
    /// RFC 2033: LHLO greets, and a message has one reply for each recipient it was accepted for.
    Lmtp,
}

impl Dialect {
    /// As the configuration file has it.
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Smtp => "smtp",
            Self::Lmtp => "lmtp",
        }
    }
}

//! Asks a resolver for records, over UDP and TCP.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr;
use tokio::time::{Instant, timeout_at};

use super::comparison::{Finding, State};
use super::publication::{Record, RecordType};

/// For each try of a question. A resolver that has to ask others takes a second or two.
const TRY_TIMEOUT: Duration = Duration::from_secs(5);
/// Of a question after its first try, for datagrams that are lost.
const RETRIES: usize = 1;
/// Asked at a time, so that a resolver that is dead or slow is waited for once and not for each record.
const QUESTIONS_MAX: usize = 16;
/// For all questions together. What is not answered by then is said to be so.
const CHECK_TIMEOUT: Duration = Duration::from_secs(120);

/// Why no resolver can be asked.
#[derive(Debug, thiserror::Error)]
#[error("no resolver to ask: {0}: name one with --resolver ADDRESS:PORT")]
pub struct ResolverError(#[from] NetError);

/// What `server`, else the system's resolvers, say of each record.
pub async fn check(
    records: &[Record],
    server: Option<SocketAddr>,
) -> Result<Vec<Finding>, ResolverError> {
    let resolver = resolver(server)?;
    let deadline = Instant::now() + CHECK_TIMEOUT;
    let mut findings = Vec::with_capacity(records.len());
    for records in records.chunks(QUESTIONS_MAX) {
        let ask = |record: &Record| tokio::spawn(state(resolver.clone(), record.clone(), deadline));
        let questions: Vec<_> = records.iter().map(ask).collect();
        for (record, question) in records.iter().zip(questions) {
            let state = question.await.unwrap_or_else(|error| State::Unanswered(error.to_string()));
            findings.push(Finding { record: record.clone(), state });
        }
    }
    Ok(findings)
}

async fn state(resolver: TokioResolver, record: Record, deadline: Instant) -> State {
    match timeout_at(deadline, values(&resolver, &record)).await {
        Ok(Ok(found)) => record.compare(found),
        Ok(Err(error)) => State::Unanswered(error.to_string()),
        Err(_elapsed) => {
            State::Unanswered(format!("no time left after {} s", CHECK_TIMEOUT.as_secs()))
        }
    }
}

fn resolver(server: Option<SocketAddr>) -> Result<TokioResolver, NetError> {
    let mut builder = match server {
        Some(server) => {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
            let connections = connections.map(|mut connection| {
                connection.port = server.port();
                connection
            });
            // The operator named it, so what it says does not exist is not asked of it twice.
            let server = NameServerConfig::new(server.ip(), true, connections.to_vec());
            let config = ResolverConfig::from_name_servers(vec![server]);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        }
        None => TokioResolver::builder_tokio()?,
    };
    builder.options_mut().timeout = TRY_TIMEOUT;
    builder.options_mut().attempts = RETRIES;
    builder.build()
}

/// Values of all records with the name and type of `record`, written as [`Record::value`] is.
async fn values(resolver: &TokioResolver, record: &Record) -> Result<Vec<String>, NetError> {
    let kind = match record.kind {
        RecordType::Mx => rr::RecordType::MX,
        RecordType::Tlsa => rr::RecordType::TLSA,
        RecordType::Txt => rr::RecordType::TXT,
    };
    match resolver.lookup(record.name.as_str(), kind).await {
        Ok(lookup) => {
            Ok(lookup.answers().iter().filter_map(|answer| value(&answer.data)).collect())
        }
        Err(error) if error.is_no_records_found() => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// `None` for what leads to an answer and is none itself, such as a CNAME.
fn value(data: &rr::RData) -> Option<String> {
    match data {
        rr::RData::MX(mx) => {
            Some(format!("{} {}", mx.preference, mx.exchange.to_string().to_ascii_lowercase()))
        }
        rr::RData::TLSA(tlsa) => Some(tlsa.to_string()),
        // The strings of one record are one text (RFC 8461 3.1, RFC 8460 3).
        rr::RData::TXT(text) => Some(String::from_utf8_lossy(&text.txt_data.concat()).into_owned()),
        _ => None,
    }
}

//! The spool alone: no sockets, no sessions.

use std::iter;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use crossbeam_channel::Sender;
use ingress_user::config::SpoolConfig;
use ingress_user::metrics::Metrics;
use ingress_user::smtp::envelope::Envelope;
use ingress_user::spool::{
    BodyEncoding, Completion, CompletionSink, QueueId, Spool, Submission, Ticket,
};
use ingress_user::worker::buffers::{BUFFER_BYTES, Buffer, Chunk};
use ingress_user::worker::clock::Now;

use crate::server;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Messages written for each figure, and the backlog of the start that is timed
    #[arg(long, default_value_t = 100_000)]
    messages: u64,
    /// Octets of a message
    #[arg(long, default_value_t = 1024)]
    size: u32,
}

/// Messages that wait for the writer at once: one client, smtp-source's usual number, a full batch.
const IN_FLIGHT: [u64; 3] = [1, 50, 256];

#[expect(clippy::print_stdout, reason = "the figures are the output")]
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(options.size as usize <= BUFFER_BYTES, "--size is at most {BUFFER_BYTES}");
    for in_flight in IN_FLIGHT {
        let folder = server::folder_on_disk()?;
        // One at a time waits for the disk with each: fewer messages say the same.
        let messages =
            if in_flight == 1 { options.messages.div_ceil(20) } else { options.messages };
        let seconds = write(folder.path(), messages, in_flight, options.size)?;
        let rate = messages as f64 / seconds;
        println!("written with {in_flight} in flight: {rate:.0} durable messages/s");
        let start = Now::read().monotonic;
        let (spool, _answers) = open(folder.path())?;
        let millis = Now::read().monotonic.duration_since(start).as_secs_f64() * 1000.0;
        println!("start with a backlog of {messages}: {millis:.0} ms");
        spool.thread.shutdown();
    }
    Ok(())
}

/// Seconds to make `messages` durable with at most `in_flight` waiting.
fn write(folder: &Path, messages: u64, in_flight: u64, size: u32) -> Result<f64> {
    let (spool, answers) = open(folder)?;
    let start = Now::read().monotonic;
    let mut buffers: Vec<Buffer> = (0..in_flight).map(|_| Buffer::standalone()).collect();
    let (mut sent, mut answered) = (0, 0);
    while answered < messages {
        while sent < messages
            && let Some(buffer) = buffers.pop()
        {
            let refused = spool.handle.submit(submission(sent, buffer, size)).err();
            ensure!(
                refused.is_none(),
                "the spool refused a message: {:?}",
                refused.map(|r| r.reason)
            );
            sent += 1;
        }
        let completion = answers.recv()?;
        completion.outcome?;
        buffers.extend(completion.buffers);
        answered += 1;
    }
    let seconds = Now::read().monotonic.duration_since(start).as_secs_f64();
    spool.thread.shutdown();
    Ok(seconds)
}

fn submission(number: u64, buffer: Buffer, size: u32) -> Submission {
    Submission {
        ticket: Ticket { worker: 0, connection: number },
        id: QueueId(number),
        accepted_at: number,
        envelope: Box::new(Envelope::plain(
            [192, 0, 2, 1].into(),
            "client.example.org",
            "sender@example.org",
            &["user@example.net"],
        )),
        trace: b"Received: from client.example.org\r\n".to_vec(),
        body: vec![Chunk::new(buffer, iter::once(0..size).collect())],
        encoding: BodyEncoding::Verbatim,
    }
}

fn open(folder: &Path) -> Result<(Spool, crossbeam_channel::Receiver<Completion>)> {
    let (sender, answers) = crossbeam_channel::unbounded();
    let metrics = Arc::new(Metrics::new(&[0]));
    let sink = Box::new(Answers(sender));
    Ok((Spool::open(folder, &SpoolConfig::default(), sink, metrics)?, answers))
}

struct Answers(Sender<Completion>);

impl CompletionSink for Answers {
    fn complete(&mut self, completion: Completion) {
        // The measurement that no longer listens has failed and says so itself.
        let _ = self.0.send(completion);
    }

    fn flush(&mut self) {}
}

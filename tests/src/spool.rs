//! Writes a backlog with the daemon's own spool, as if a daemon had accepted it and was stopped before delivery.

use std::iter;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use ingress_user::config::SpoolConfig;
use ingress_user::metrics::Metrics;
use ingress_user::smtp::envelope::Envelope;
use ingress_user::spool::{
    BodyEncoding, Completion, CompletionSink, QueueId, Spool, SpoolHandle, Submission, Ticket,
};
use ingress_user::worker::buffers::{Buffer, Chunk};

/// Messages with the spool at a time: as many as one batch takes.
const IN_FLIGHT_MAX: usize = 256;

/// Wednesday, 1 January 2025, in microseconds since 1970.
const ACCEPTED_AT: u64 = 1_735_689_600_000_000;

/// Puts `count` messages into the spool below `state_dir`, message N with the text `text(N)`.
pub fn write_backlog(state_dir: &Path, count: usize, text: impl Fn(usize) -> String) {
    let (sender, completions) = mpsc::channel();
    let spool = Spool::open(
        &state_dir.join("spool"),
        &SpoolConfig::default(),
        Box::new(Completions(sender)),
        Arc::new(Metrics::new(&[0])),
    )
    .expect("the spool opens");
    let mut buffers: Vec<Buffer> = (0..IN_FLIGHT_MAX).map(|_| Buffer::standalone()).collect();
    for number in 0..count {
        let buffer = buffers.pop().unwrap_or_else(|| committed(&completions, &mut buffers));
        submit(&spool.handle, number, &text(number), buffer);
    }
    while buffers.len() < IN_FLIGHT_MAX {
        let buffer = committed(&completions, &mut buffers);
        buffers.push(buffer);
    }
    spool.thread.shutdown();
}

fn submit(spool: &SpoolHandle, number: usize, text: &str, mut buffer: Buffer) {
    buffer.bytes_mut()[..text.len()].copy_from_slice(text.as_bytes());
    let submission = Submission {
        ticket: Ticket { worker: 0, connection: number as u64 },
        id: QueueId::new(ACCEPTED_AT + number as u64, 0),
        accepted_at: ACCEPTED_AT + number as u64,
        envelope: Box::new(Envelope::plain(
            [192, 0, 2, 1].into(),
            "client.test",
            "sender@example.org",
            &["user@example.net"],
        )),
        trace: b"Received: from client.test\r\n".to_vec(),
        body: vec![Chunk::new(buffer, iter::once(0..text.len() as u32).collect())],
        encoding: BodyEncoding::Verbatim,
    };
    spool.submit(submission).expect("the spool has room for what is in flight");
}

/// Waits until a message is durable; its buffer can be used again.
fn committed(completions: &Receiver<Completion>, spare: &mut Vec<Buffer>) -> Buffer {
    let completion = completions.recv().expect("the writer answers what it took");
    completion.outcome.expect("the disk takes the backlog");
    spare.extend(completion.buffers);
    spare.pop().expect("each message has one buffer")
}

struct Completions(Sender<Completion>);

impl CompletionSink for Completions {
    fn complete(&mut self, completion: Completion) {
        // The writer may be shut down while nobody waits any more.
        let _nobody_waits = self.0.send(completion);
    }

    fn flush(&mut self) {}
}
